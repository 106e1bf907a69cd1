"""What a transformer is made of: one small dataclass per block, one union per choice.

Every variant carries a `kind`; the room `model` resolves each union by one table. Which published
family uses what is said where the field is.
"""

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import require, require_at_least_zero, require_positive
from configs.mlp_config import Gelu, MLPConfig, SwiGLUConfig
from configs.position_config import PositionConfig, RopeConfig

DType = Literal["float32", "bfloat16"]
Architecture = Literal["decoder_only", "encoder_only", "encoder_decoder"]
Kernel = Literal["auto", "reference", "blockwise", "cudnn", "splash"]
Remat = Literal["none", "attention", "dots", "full"]
MOST_LAYERS = 10_000  # beyond any model; a slip of the keyboard would be counted layer by layer


@dataclass(frozen=True, kw_only=True)
class RMSNormConfig:
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467), statistics in fp32.

    The learned scale is stored minus `scale_offset`: Gemma stores it minus one.
    """

    kind: Literal["rms_norm"] = "rms_norm"
    epsilon: float = 1e-5
    scale_offset: float = 0.0

    def __post_init__(self):
        require_positive("model.norm", epsilon=self.epsilon)


@dataclass(frozen=True, kw_only=True)
class LayerNormConfig:
    """Layer norm (Ba et al. 2016, arXiv 1607.06450), statistics in fp32; with a bias or without."""

    kind: Literal["layer_norm"] = "layer_norm"
    epsilon: float = 1e-5
    use_bias: bool = True

    def __post_init__(self):
        require_positive("model.norm", epsilon=self.epsilon)


NormConfig = RMSNormConfig | LayerNormConfig


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245).

    `num_kv_heads` equal to `num_heads` is multi-head attention, 1 is multi-query attention.
    `causal_blocks` cuts a causal row's queries into that many blocks, each of which reads only
    the keys up to its own end: 2 skips a quarter of the work, 4 three eighths. `kernel` is what
    computes it; "auto" takes what suits platform and shape, and a kernel that cannot gives way to
    the reference with a line in the log. Both change speed, not results (docs/attention_kernels).

    `layer_pattern`, repeated over the layers, says which of them see everything and which a
    `window`: there a query sees the keys less than `window` places from it (Gemma 2 and 3,
    ModernBERT, Mistral). `qk_norm` norms every query and key over the head before it is turned
    (Qwen 3, Gemma 3). `logit_softcap` s > 0 turns a score x into s·tanh(x/s) (Gemma 2).
    `query_scale` multiplies the scores; 0: 1/sqrt(head_dim); T5 has 1.
    """

    num_heads: int = 4
    num_kv_heads: int = 4
    head_dim: int = 32
    causal_blocks: int = 1
    kernel: Kernel = "auto"
    window: int = 0
    layer_pattern: tuple[Literal["full", "window"], ...] = ("full",)
    qk_norm: bool = False
    logit_softcap: float = 0.0
    query_scale: float = 0.0
    use_qkv_bias: bool = False
    use_out_bias: bool = False

    def __post_init__(self):
        require_positive(
            "model.attention",
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            causal_blocks=self.causal_blocks,
        )
        require_at_least_zero(
            "model.attention",
            window=self.window,
            logit_softcap=self.logit_softcap,
            query_scale=self.query_scale,
        )
        require(
            self.num_heads % self.num_kv_heads == 0,
            "model.attention.num_kv_heads",
            self.num_kv_heads,
            f"a divisor of num_heads ({self.num_heads})",
        )
        require(bool(self.layer_pattern), "model.attention.layer_pattern", "none", "one or more")
        require(
            (self.window > 0) == ("window" in self.layer_pattern),
            "model.attention.window",
            self.window,
            f"a window above 0 exactly where layer_pattern ({', '.join(self.layer_pattern)}) "
            "has window layers",
        )

    def windowed_layers(self, num_layers: int) -> tuple[bool, ...]:
        """For each layer whether it sees a window only."""
        pattern = self.layer_pattern
        return tuple(pattern[layer % len(pattern)] == "window" for layer in range(num_layers))

    @property
    def score_scale(self) -> float:
        """What the product of a query and a key is multiplied by."""
        return self.query_scale or self.head_dim**-0.5


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """What happens to a token's embedding before the first layer.

    `scale_by_width` multiplies it by sqrt(emb_dim) (Gemma, some BARTs). `num_token_types` > 0
    adds a learned row per token type; pretraining has type 0 everywhere (BERT). `use_norm` norms
    the sum (BERT, BART, ModernBERT).
    """

    scale_by_width: bool = False
    num_token_types: int = 0
    use_norm: bool = False

    def __post_init__(self):
        require_at_least_zero("model.embedding", num_token_types=self.num_token_types)


@dataclass(frozen=True, kw_only=True)
class LinearHeadConfig:
    """Logits straight from the last layer. `logit_softcap` s > 0: s·tanh(x/s) (Gemma 2).

    `logit_scale` multiplies them: T5 1.0 has emb_dim ** -0.5 with its tied table.
    """

    kind: Literal["linear"] = "linear"
    use_bias: bool = False
    logit_softcap: float = 0.0
    logit_scale: float = 1.0

    def __post_init__(self):
        require_at_least_zero("model.head", logit_softcap=self.logit_softcap)
        require_positive("model.head", logit_scale=self.logit_scale)


@dataclass(frozen=True, kw_only=True)
class MaskedLMHeadConfig:
    """Dense layer, GELU and norm before the logits (BERT; Devlin et al. 2019, arXiv 1810.04805)."""

    kind: Literal["masked_lm"] = "masked_lm"
    use_bias: bool = True
    use_dense_bias: bool = True
    gelu: Gelu = "exact"


@dataclass(frozen=True, kw_only=True)
class NoHeadConfig:
    """The last layer's activations instead of logits: an encoder for embeddings."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True)
class SequenceClassificationHeadConfig:
    """Dense layer, tanh and a projection to the classes, at every place (BERT's pooler and
    classifier; Devlin et al. 2019, arXiv 1810.04805): which place counts, loss weights say."""

    kind: Literal["sequence_classification"] = "sequence_classification"
    num_labels: int = 2

    def __post_init__(self):
        require(self.num_labels >= 2, "model.head.num_labels", self.num_labels, "2 or more")


@dataclass(frozen=True, kw_only=True)
class TokenClassificationHeadConfig:
    """A projection to the classes at every place (Devlin et al. 2019, section 5.3)."""

    kind: Literal["token_classification"] = "token_classification"
    num_labels: int = 2

    def __post_init__(self):
        require(self.num_labels >= 2, "model.head.num_labels", self.num_labels, "2 or more")


ClassHeadConfig = SequenceClassificationHeadConfig | TokenClassificationHeadConfig
HeadConfig = LinearHeadConfig | MaskedLMHeadConfig | NoHeadConfig | ClassHeadConfig


@dataclass(frozen=True, kw_only=True)
class FanInInitConfig:
    """Kernels from a normal of deviation 1/sqrt(fan-in), so that unit variance stays unit variance.

    Projections back into the residual start smaller by 1/sqrt(number of them) (Radford et al.
    2019, section 2.3); embeddings have deviation 1/sqrt(emb_dim), so that tied logits start at
    variance one.
    """

    kind: Literal["fan_in"] = "fan_in"


@dataclass(frozen=True, kw_only=True)
class NormalInitConfig:
    """Every matrix and table from one normal: BERT, GPT-2, Llama have deviation .02.

    `scale_residual`: projections back into the residual smaller by 1/sqrt(number of them), as
    GPT-2; BERT and BART do not.
    """

    kind: Literal["normal"] = "normal"
    stddev: float = 0.02
    scale_residual: bool = True

    def __post_init__(self):
        require_positive("model.init", stddev=self.stddev)


@dataclass(frozen=True, kw_only=True)
class T5InitConfig:
    """T5's: 1 for the embedding table, 1/sqrt(emb_dim·head_dim) for queries (whose scores are not
    scaled), 1/sqrt(fan-in) for all else (the released Mesh TensorFlow code)."""

    kind: Literal["t5"] = "t5"


@dataclass(frozen=True, kw_only=True)
class MuPInitConfig:
    """Maximal update parametrisation (Yang et al. 2022, arXiv 2203.03466, table 8): learning rates
    found at width `base_emb_dim` carry over to others.

    With m = emb_dim / base_emb_dim: hidden kernels have deviation 1/sqrt(fan-in), and Adam's step
    and weight decay for them are divided by m; tables start as at the base width; logits are
    divided by m. Widen by heads: the paper's 1/head_dim in the scores is a constant where head_dim
    stays the same.
    """

    kind: Literal["mup"] = "mup"
    base_emb_dim: int = 128

    def __post_init__(self):
        require_positive("model.init", base_emb_dim=self.base_emb_dim)


InitConfig = FanInInitConfig | NormalInitConfig | T5InitConfig | MuPInitConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A transformer. Parameters are fp32; `compute_dtype` is what activations and matmuls use.

    `num_layers` are the decoder's, or the encoder's where there is no decoder;
    `num_encoder_layers` are the encoder's of an encoder-decoder. `norm_placement`: "pre" norms
    each sublayer's input, "post" the sum after it (BERT, BART), "sandwich" input and output
    (Gemma 2). `skip_first_norm`: the first layer's attention takes its input as it is, which the
    embedding's norm has normed already (ModernBERT).

    `scan_layers` compiles one layer and loops over it (fast to compile); False unrolls the same
    loop (faster to run on CPU). Parameters have the same layout either way: every leaf of a layer
    carries a leading `num_layers` axis, so checkpoints fit both.

    `remat`: what a layer computes again in its backward pass instead of keeping it (Chen et al.
    2016, arXiv 1604.06174). "none" keeps everything; "attention" computes scores and softmax again
    (Korthikanti et al. 2022, arXiv 2205.05198, section 5); "dots" keeps products with kernels and
    computes the rest again; "full" keeps only the layer's input. `remat_pattern`, repeated over the
    layers, says which of them do so.
    """

    architecture: Architecture = "decoder_only"
    vocab_size: int = 2048
    emb_dim: int = 128
    num_layers: int = 4
    num_encoder_layers: int = 0
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    position: PositionConfig = field(default_factory=RopeConfig)
    norm: NormConfig = field(default_factory=RMSNormConfig)
    norm_placement: Literal["pre", "post", "sandwich"] = "pre"
    skip_first_norm: bool = False
    mlp: MLPConfig = field(default_factory=SwiGLUConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    head: HeadConfig = field(default_factory=LinearHeadConfig)
    tie_embeddings: bool = True
    init: InitConfig = field(default_factory=FanInInitConfig)
    compute_dtype: DType = "float32"
    scan_layers: bool = True
    remat: Remat = "none"
    remat_pattern: tuple[Literal["remat", "keep"], ...] = ("remat",)

    def __post_init__(self):
        require_positive(
            "model",
            vocab_size=self.vocab_size,
            emb_dim=self.emb_dim,
            num_layers=self.num_layers,
        )
        for name in ("num_layers", "num_encoder_layers"):
            layers = getattr(self, name)
            require(layers <= MOST_LAYERS, f"model.{name}", layers, f"at most {MOST_LAYERS:,}")
        require(bool(self.remat_pattern), "model.remat_pattern", "none", "one or more")
        has_both = self.architecture == "encoder_decoder"
        require(
            (self.num_encoder_layers > 0) == has_both and self.num_encoder_layers >= 0,
            "model.num_encoder_layers",
            self.num_encoder_layers,
            f"{'1 or more' if has_both else '0'} for architecture {self.architecture}",
        )
        if isinstance(self.position, RopeConfig):
            require(
                self.attention.head_dim % 2 == 0,
                "model.attention.head_dim",
                self.attention.head_dim,
                "an even number (rotary embedding turns pairs)",
            )
            require(
                self.position.local_theta == 0 or self.attention.window > 0,
                "model.position.local_theta",
                self.position.local_theta,
                "0 without window layers",
            )
        require(
            not (self.skip_first_norm and self.norm_placement == "post"),
            "model.skip_first_norm",
            self.skip_first_norm,
            "False with norm_placement post, where no layer norms its input",
        )

    def layer_remat(self, num_layers: int) -> tuple[Remat, ...]:
        """What each layer computes again."""
        pattern = self.remat_pattern
        return tuple(
            self.remat if pattern[layer % len(pattern)] == "remat" else "none"
            for layer in range(num_layers)
        )

    @property
    def has_vocab_head(self) -> bool:
        """Whether the head's outputs are logits over the vocabulary."""
        return isinstance(self.head, LinearHeadConfig | MaskedLMHeadConfig)

    @property
    def num_residual_projections(self) -> int:
        """Projections that add up in the residual of the deeper side: two or three a layer."""
        per_layer = 3 if self.architecture == "encoder_decoder" else 2
        return max(per_layer * self.num_layers, 2 * self.num_encoder_layers)
