"""Outputs and greedy continuations of a model, by our forward pass and by `transformers`.

Outputs are logits, or the last layer's activations of a model without a head; B rows, L places, V
the vocabulary (or the width), M places of the encoder, G greedy tokens.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.model_config import ModelConfig, NoHeadConfig

PROMPT_TOKENS = 16
GREEDY_TOKENS = 32


class Rows(NamedTuple):
    """What a model reads: rows of one document each, which begins at position 0.

    Attributes:
      tokens_BL: int32; the decoder's in an encoder-decoder.
      mask_BL: bool, False at padding, which is on the right.
      prompt: how many tokens a greedy continuation begins with; 0 for a model that writes none.
      encoder_tokens_BM, encoder_mask_BM: the encoder's, where there are two sides.
    """

    tokens_BL: np.ndarray
    mask_BL: np.ndarray
    prompt: int
    encoder_tokens_BM: np.ndarray | None = None
    encoder_mask_BM: np.ndarray | None = None


ApplyFn = Callable[[Mapping[str, Any], Rows], Any]
"""(params, rows) -> outputs_BLV fp32."""


class LoadError(RuntimeError):
    """`transformers` could not load a folder whole."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a model says about rows of tokens.

    Attributes:
      logits_BLV: outputs of the rows.
      greedy_BG: the G tokens that follow greedily on the rows' prompts; G is 0 without prompts.
      greedy_logits_BGV: the logits each of them was chosen by; None from `transformers`.
    """

    logits_BLV: np.ndarray
    greedy_BG: np.ndarray
    greedy_logits_BGV: np.ndarray | None = None


def auto_class(config: ModelConfig) -> str:
    """The class of `transformers` that loads an export of the model."""
    if isinstance(config.head, NoHeadConfig):
        return "AutoModel"
    return {
        "decoder_only": "AutoModelForCausalLM",
        "encoder_only": "AutoModelForMaskedLM",
        "encoder_decoder": "AutoModelForSeq2SeqLM",
    }[config.architecture]


def model_apply(config: ModelConfig, compiler_options: dict[str, Any] | None = None) -> ApplyFn:
    """Our forward pass in fp32 at full matmul precision, compiled, whatever the run computed in."""
    import jax
    import jax.numpy as jnp

    from model.build import build_model, forward

    # Padded queries of a longest row would not divide into blocks, and results are the same.
    attention = replace(config.attention, causal_blocks=1)
    model = build_model(replace(config, attention=attention, compute_dtype="float32"))

    def places(mask: jax.Array) -> dict[str, jax.Array]:
        positions = jnp.broadcast_to(jnp.arange(mask.shape[1]), mask.shape)
        return {"positions": positions, "segment_ids": mask.astype(jnp.int32)}

    @partial(jax.jit, compiler_options=compiler_options)
    def run(
        params: Any, tokens_BL: jax.Array, mask_BL: jax.Array, *encoder: jax.Array
    ) -> jax.Array:
        fields = places(mask_BL)
        if encoder:
            tokens_BM, mask_BM = encoder
            fields |= {f"encoder_{name}": value for name, value in places(mask_BM).items()}
            fields["encoder_tokens"] = tokens_BM
        with jax.default_matmul_precision("highest"):
            return forward(model, params, tokens_BL, **fields)

    def apply(params: Mapping[str, Any], rows: Rows) -> jax.Array:
        encoder = () if rows.encoder_tokens_BM is None else rows[3:]
        return run(params, rows.tokens_BL, rows.mask_BL, *encoder)

    return apply


def our_outputs(apply_fn: ApplyFn, params: Mapping[str, Any], rows: Rows) -> Outputs:
    """Outputs of our forward pass."""
    logits_BLV = np.asarray(apply_fn(params, rows))
    # A decoder is causal: what stands after a position does not reach it, so rows keep their
    # length (one compilation) and are overwritten from the prompt on.
    tokens_BL = rows.tokens_BL.copy()
    steps = []
    for at in range(rows.prompt, rows.prompt + GREEDY_TOKENS) if rows.prompt else ():
        step_BV = np.asarray(apply_fn(params, rows._replace(tokens_BL=tokens_BL)))[:, at - 1]
        tokens_BL[:, at] = step_BV.argmax(axis=-1)
        steps.append(step_BV)
    return Outputs(
        logits_BLV=logits_BLV,
        greedy_BG=tokens_BL[:, rows.prompt : rows.prompt + len(steps)],
        greedy_logits_BGV=np.stack(steps, axis=1) if steps else logits_BLV[:, :0],
    )


def load_with_transformers(
    folder: Path, config: ModelConfig, may_be_missing: Callable[[str], bool]
) -> tuple[str, Any, Any] | None:
    """The folder as its users will load it: local files, no remote code, fp32.

    Args:
      folder: the export.
      config: the model it was written from, which decides the class that loads it.
      may_be_missing: tensors of theirs that do not reach the outputs.

    Returns:
      (what was used, model, tokenizer), or None where transformers or torch is not installed.

    Raises:
      LoadError: it does not load, or not every tensor finds its place.
    """
    try:
        import torch
        import transformers
    except ImportError:
        return None
    with _quiet(transformers):
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            auto_tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **options)
            loaded: Any = getattr(transformers, auto_class(config)).from_pretrained(
                str(folder), use_safetensors=True, output_loading_info=True, **options
            )
        except Exception as error:  # whatever it raises, it could not load what we wrote
            raise LoadError(f"transformers cannot load it: {error}") from error
    model, info = loaded
    odd = {key: sorted(map(str, names)) for key, names in info.items() if names}
    missing = [name for name in odd.pop("missing_keys", []) if not may_be_missing(name)]
    odd |= {"missing_keys": missing} if missing else {}
    if odd:
        raise LoadError(f"transformers loaded it with {odd}")
    versions = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    return versions, model.float().eval(), auto_tokenizer


def torch_outputs(model: Any, rows: Rows) -> Outputs:
    """Outputs of a `transformers` model; greedy tokens by its own `generate`, with its cache."""
    import torch

    def tensor(array: np.ndarray) -> Any:
        return torch.from_numpy(array.astype(np.int64))

    tokens_BL, mask_BL = tensor(rows.tokens_BL), tensor(rows.mask_BL)
    if rows.encoder_tokens_BM is None:
        inputs = {"input_ids": tokens_BL, "attention_mask": mask_BL}
        prompt = {name: value[:, : rows.prompt] for name, value in inputs.items()}
    else:
        assert rows.encoder_mask_BM is not None
        encoder_inputs = {
            "input_ids": tensor(rows.encoder_tokens_BM),
            "attention_mask": tensor(rows.encoder_mask_BM),
        }
        inputs = {**encoder_inputs, "decoder_input_ids": tokens_BL}
        prompt = {**encoder_inputs, "decoder_input_ids": tokens_BL[:, : rows.prompt]}
    greedy_BG = tokens_BL[:, :0]
    with torch.no_grad():
        outputs = model(**inputs)
        if rows.prompt:
            # 32 tokens whatever they are: ours does not stop at the end of a document either.
            model.generation_config.eos_token_id = None
            written_BL = model.generate(
                **prompt, do_sample=False, max_new_tokens=GREEDY_TOKENS, use_cache=True
            )
            greedy_BG = written_BL[:, rows.prompt :]
    logits_BLV = outputs.logits if hasattr(outputs, "logits") else outputs.last_hidden_state
    return Outputs(logits_BLV=logits_BLV.float().numpy(), greedy_BG=greedy_BG.numpy())


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bars or advice while loading; errors still raise."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
