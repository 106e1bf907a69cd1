"""Every FLOP of a training run, counted from the config alone.

Convention: a multiply-add is two. Model FLOPs of training = 3 × forward; recomputation is not
counted. Each kernel counts 6 for every place that is multiplied by it: an encoder's for the
encoder's places, cross-attention's keys and values too, all else in a decoder and the head for the
decoder's; of a mixture the router and as many experts as a token is sent to.

Scores count for pairs of a query and a key: all of a row with itself, in window layers those less
than `window` places apart, in cross-attention all of a decoder's row with an encoder's. In a causal
stack half of the pairs count, in window layers too; the PaLM variant (arXiv 2204.02311, appendix B)
does not halve. Document boundaries inside a packed row, which mask more, and prefixes, which mask
less, are not credited.
"""

import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

from configs.mlp_config import MoEConfig
from configs.model_config import ModelConfig
from configs.objective_config import ExampleLengths
from configs.optimizer_config import MuonConfig
from configs.schema import RunConfig
from planner.attention_kernel import Platform, attentions, memory_pairs_visited
from planner.parameters import (
    ParameterSpec,
    Side,
    active_size,
    has_tied_head,
    parameters,
    sides,
)

_MUON_ITERATIONS = 5  # of optax.contrib.muon, unless told otherwise

# Products that a kernel's backward pass has besides four: scores, once or in both of its halves.
_PRODUCTS_AGAIN = {"reference": 0, "blockwise": 1, "cudnn": 1, "splash": 3}


@dataclass(frozen=True, kw_only=True)
class TrainingFlops:
    """Model FLOPs of training on one row or one place, by component (forward and backward).

    embedding: 0.0, since the look-up is a gather and its gradient a scatter; neither multiplies.
    Cross-attention's projections and scores count among attention's.
    """

    embedding: float = 0.0
    attention_projections: float
    attention_scores: float
    mlp: float
    head: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


def training_flops_per_row(
    config: ModelConfig, lengths: ExampleLengths | int, *, causal: bool = True
) -> TrainingFlops:
    """Model FLOPs of one example: 6 a kernel's scalar and place, 12·H·C a pair that counts.

    Args:
      lengths: of both sides; a number is the length of a model's only side.
      causal: False gives the PaLM variant.
    """
    lengths = _lengths(lengths)
    products = _products(config, lengths)
    heads = config.attention.num_heads * config.attention.head_dim
    doubled = sum(_doubled_pairs(config, side, lengths, causal) for side in sides(config))
    return TrainingFlops(
        attention_projections=6 * products["attention"],
        attention_scores=6 * heads * doubled,
        mlp=6 * products["mlp"],
        head=6 * products["head"],
    )


def training_flops_per_token(
    config: ModelConfig, lengths: ExampleLengths | int, *, causal: bool = True
) -> TrainingFlops:
    """`training_flops_per_row` over the row's places, those of both sides together.

    With one side and no windows: 6 per matmul parameter and 12·N·(H·C)·L, halved if causal.
    """
    lengths = _lengths(lengths)
    per_row = training_flops_per_row(config, lengths, causal=causal)
    parts = {name: value / lengths.places for name, value in asdict(per_row).items()}
    return TrainingFlops(**parts)


def matmul_params_per_place(config: ModelConfig, lengths: ExampleLengths | int) -> float:
    """Matmul parameters that a place meets on average: FLOPs a place without scores, over 6.

    Where there is one side: `matmul_params`. In an encoder-decoder a place meets one side's.
    """
    flops = training_flops_per_token(config, lengths)
    return (flops.attention_projections + flops.mlp + flops.head) / 6


@dataclass(frozen=True, kw_only=True)
class ExecutedFlops:
    """FLOPs of the matrix products one optimizer step executes, over the global batch.

    The first four are forward and backward together. recomputation: forward products repeated
    during the backward pass, by rematerialisation or inside of an attention kernel. optimizer:
    Muon's orthogonalisation; the others have none.
    """

    attention_projections: float
    attention_scores: float
    mlp: float
    head: float
    recomputation: float
    optimizer: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


def executed_flops_per_step(config: RunConfig, *, platform: Platform = "cpu") -> ExecutedFlops:
    """FLOPs of the matrix products that a compiled train step really executes.

    Against the model FLOPs of `training_flops_per_row`: attention is neither halved for the mask
    nor spared outside of windows, but counts the pairs that its kernel visits (`kernel_pairs`); a
    mixture's experts count the slots that its dispatch may fill, and the products that send tokens
    there and back; what is computed again and what the optimizer multiplies is added. Backward is
    twice forward in every layer: the first one's input gradient is needed too, by the embedding
    table. The look-up is a gather and the loss compares ids, so neither multiplies; the loss in
    chunks repeats nothing. The mesh changes nothing here: it cuts the same rows (work it repeats on
    several devices is not counted).

    Computed again, of each layer as its policy says:

    - full: its forward products. In a pre-norm layer all but the dense MLP's last, whose result no
      gradient needs.
    - dots: scores and weighted values, since they are not kept; so are a mixture's products.
    - attention: scores, from which the weights come again; a kernel runs its forward pass again.
    - none: nothing.

    Whatever the policy, a kernel that keeps no weights computes scores again in its backward pass:
    5 products in place of the reference's 4; splash attention 7, since gradients of queries and of
    keys are computed by two kernels, each of which needs scores and the weights' gradient.

    Args:
      platform: decides on the attention kernel. (HLO text shows no FLOPs of splash and cuDNN.)
    """
    m, lengths, rows = config.model, config.lengths, config.training.batch_size
    products, slots = _products(m, lengths), expert_slots(config)
    by_side = [_side_flops(config, side, platform) for side in sides(m)]
    mlp, sent = 2.0 * rows * products["mlp"], 2.0 * m.emb_dim * slots.sent
    if isinstance(m.mlp, MoEConfig):
        mlp += 2.0 * rows * products["experts"] * (slots.computed / slots.chosen - 1)
    return ExecutedFlops(
        attention_projections=3 * 2.0 * rows * products["attention"],
        attention_scores=sum(side.scores for side in by_side),
        # To the slots forward and backward; back from them also for the gradient of the gates.
        mlp=3 * mlp + 5 * sent,
        head=3 * 2.0 * rows * products["head"],
        recomputation=sum(side.recomputed for side in by_side),
        optimizer=_muon_flops(m) if isinstance(config.optimizer, MuonConfig) else 0.0,
    )


class _SideFlops(NamedTuple):
    """Of one side's layers: scores and weighted values, forward and backward; what is repeated."""

    scores: float
    recomputed: float


def _side_flops(config: RunConfig, side: Side, platform: Platform) -> _SideFlops:
    m, rows, N = config.model, config.training.batch_size, side.num_layers
    products, slots = _products(m, config.lengths, side.name), expert_slots(config, side.name)
    mlp, experts = 2.0 * rows * products["mlp"], 0.0
    sent = 2.0 * m.emb_dim * slots.sent
    if isinstance(m.mlp, MoEConfig):
        experts = 2.0 * rows * products["experts"] * slots.computed / slots.chosen
        mlp += experts - 2.0 * rows * products["experts"]
    elif m.norm_placement == "pre":
        mlp -= 2.0 * rows * products["down"]
    projections = 2.0 * rows * products["attention"]
    scores, recomputed = 0.0, 0.0
    kinds = zip(m.attention.windowed_layers(N), m.layer_remat(N), strict=True)
    for is_window, remat in kinds:
        once, again, within = 0.0, 0.0, 0.0
        for kernel, pairs in attentions(config, side, platform, is_window=is_window):
            product = 2.0 * rows * m.attention.num_heads * m.attention.head_dim * pairs
            once += product
            again += product if kernel == "reference" and remat == "attention" else 2 * product
            within += _PRODUCTS_AGAIN[kernel] * product
        scores += 6 * once
        recomputed += within
        match remat:
            case "full":
                recomputed += (projections + mlp + sent) / N + again
            case "dots":
                recomputed += (experts + sent) / N + again
            case "attention":
                recomputed += again
    return _SideFlops(scores, recomputed)


class ExpertSlots(NamedTuple):
    """Rows of a mixture's experts in one step, over all layers.

    chosen: pairs of a token and an expert it is sent to. computed: slots that there are for them,
    empty ones included. sent: pairs of a token and a slot that a product decides on; 0 where
    tokens are gathered instead.
    """

    chosen: int = 0
    computed: int = 0
    sent: int = 0


def expert_slots(config: RunConfig, side_name: str = "") -> ExpertSlots:
    """How many slots `model.moe` lays out for the choices of a step; none for a dense model.

    Of one side where it is named.

    dropless: blocks of a quarter of an expert's even share, a power of two, 512 at most; each
    expert may fill its last one badly. (A device skips the blocks that stay empty; of several
    devices each has blocks of its own.) capacity: the room that every expert has in every row.
    """
    mlp, t = config.model.mlp, config.training
    total = ExpertSlots()
    if not isinstance(mlp, MoEConfig):
        return total
    E, k = mlp.num_experts, mlp.experts_per_token
    for side in sides(config.model):
        if side_name not in ("", side.name):
            continue
        length = side.length(config.lengths)
        per_row, rows = length * k, side.num_layers * t.batch_size
        if mlp.dispatch == "capacity":
            room = min(length, math.ceil(mlp.capacity_factor * per_row / E - 1e-9))
            added = (rows * per_row, rows * E * room, rows * length * E * room)
        else:
            choices = t.batch_size // t.num_microbatches * per_row
            block = min(512, 1 << max(choices // (4 * E), 1).bit_length() - 1)
            computed = (choices + min(E, choices) * (block - 1)) // block * block
            parts = side.num_layers * t.num_microbatches
            added = (rows * per_row, parts * computed, 0)
        total = ExpertSlots(*map(sum, zip(total, added, strict=True)))
    return total


def forward_flops_chinchilla(
    *,
    layers: int,
    d: int,
    f: int,
    heads: int,
    kv: int,
    vocab: int,
    seq_len: int,
    embeddings_and_logits: bool = True,
) -> float:
    """Forward FLOPs of one sequence as the Chinchilla paper counts them.

    Embeddings 2·s·V·d (as a one-hot product); per layer query, key and value 3·2·s·d·(h·k),
    scores 2·s²·(h·k), softmax 3·h·s², weighted values 2·s²·(h·k), output 2·s·(h·k)·d and an
    ungated feed-forward 2·s·(2·d·f); logits 2·s·d·V. Attention is not halved for the mask.
    Source: Hoffmann et al. 2022, arXiv 2203.15556, appendix F. Training is three times this.

    Args:
      d, f, kv: widths of the model, the feed-forward and one head (the paper's d_model, ffw_size
        and key_size).
      embeddings_and_logits: False leaves out the embedding and the logits.
    """
    s, hk = seq_len, heads * kv
    attention = 3 * 2 * s * d * hk + 2 * s**2 * hk + 3 * heads * s**2 + 2 * s**2 * hk
    per_layer = attention + 2 * s * hk * d + 2 * s * (2 * d * f)
    outside = 2 * s * vocab * d + 2 * s * d * vocab
    return float(layers * per_layer + (outside if embeddings_and_logits else 0))


def chinchilla_params(
    *, layers: int, d: int, f: int, heads: int, kv: int, vocab: int = 32_000
) -> int:
    """Parameters of a model of the Chinchilla paper: L·(5·d·h·k + 2·d·f) + V·d.

    Five attention matrices, the fifth of Transformer-XL's relative positions; one tied table.
    Reproduces the sizes printed in Hoffmann et al. 2022, arXiv 2203.15556, table A9.
    """
    return layers * (5 * d * heads * kv + 2 * d * f) + vocab * d


def _lengths(lengths: ExampleLengths | int) -> ExampleLengths:
    if isinstance(lengths, ExampleLengths):
        return lengths
    return ExampleLengths(tokens=lengths, overlap=0, length=lengths)


def _products(config: ModelConfig, lengths: ExampleLengths, side_name: str = "") -> dict[str, int]:
    """Multiply-adds of a row's forward products with kernels, by part; of one side if it is named.

    experts, down: what of `mlp` a mixture's experts and the MLPs' last kernels have.
    """
    by_part = {"attention": 0, "mlp": 0, "head": 0, "experts": 0, "down": 0}
    for spec in parameters(config):
        if not spec.is_kernel or side_name not in ("", spec.path[0]):
            continue
        product = active_size(config, spec) * _places(config, spec, lengths)
        if not spec.is_layer_kernel:
            by_part["head"] += product
            continue
        by_part["mlp" if spec.path[2] == "mlp" else "attention"] += product
        for name in ("experts", "down"):
            if name in spec.path:
                by_part[name] += product
    if has_tied_head(config) and not side_name:
        by_part["head"] += config.vocab_size * config.emb_dim * lengths.length
    return by_part


def _places(config: ModelConfig, spec: ParameterSpec, lengths: ExampleLengths) -> int:
    """Places of a row that a kernel multiplies."""
    for side in sides(config):
        if spec.path[0] == side.name:
            reads_memory = spec.path[2] == "cross_attention" and spec.path[3] in ("key", "value")
            return lengths.encoder_length if reads_memory else side.length(lengths)
    return lengths.length


def _doubled_pairs(config: ModelConfig, side: Side, lengths: ExampleLengths, causal: bool) -> int:
    """Twice the pairs that count in all layers of a side: whole numbers, halved squares too."""
    length = side.length(lengths)
    halves = 1 if side.is_causal and causal else 2
    own = sum(
        _pairs_within(length, config.attention.window if is_window else length)
        for is_window in config.attention.windowed_layers(side.num_layers)
    )
    return halves * own + 2 * side.num_layers * memory_pairs_visited(side, lengths)


def _pairs_within(length: int, window: int) -> int:
    """Pairs of places of a row that are less than `window` apart, in both directions."""
    window = min(window, length)
    return length + (window - 1) * (2 * length - window)


def _muon_flops(config: ModelConfig) -> float:
    """FLOPs of Muon's Newton–Schulz iterations on every layer's kernels.

    Each of the five iterations takes a matrix X [m, n], m <= n (transposed if need be), to
    c0·X + (c1·A + c2·A·A)·X with A = X·Xᵀ: products of m·m·n, m·m·m and m·m·n multiply-adds.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; optax.contrib.muon.
    """
    flops = 0.0
    for spec in parameters(config):
        if not spec.is_muons:
            continue
        num_leading = 2 if spec.is_expert else 1  # each layer's, each expert's matrix by itself
        matrices, shape = math.prod(spec.shape[:num_leading]), spec.shape[num_leading:]
        num_inputs = 2 if spec.path[-2] == "out" else 1  # the output projection contracts (H, C)
        inputs, outputs = math.prod(shape[:num_inputs]), math.prod(shape[num_inputs:])
        m, n = min(inputs, outputs), max(inputs, outputs)
        flops += _MUON_ITERATIONS * matrices * 2.0 * (2 * m * m * n + m**3)
    return flops
