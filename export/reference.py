"""Logits and greedy continuations of a model, by our forward pass and by `transformers`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.model_config import ModelConfig

PROMPT_TOKENS = 16
GREEDY_TOKENS = 32

ApplyFn = Callable[[Mapping[str, Any], np.ndarray], Any]
"""(params, tokens_BL int32) -> logits_BLV fp32; each row one document that starts at position 0."""


class LoadError(RuntimeError):
    """`transformers` could not load a folder whole."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a model says about rows of tokens.

    Attributes:
      logits_BLV: logits of the rows.
      greedy_BG: the G tokens that follow greedily on the rows' first `PROMPT_TOKENS`.
      greedy_logits_BGV: the logits each of them was chosen by; None from `transformers`.
    """

    logits_BLV: np.ndarray
    greedy_BG: np.ndarray
    greedy_logits_BGV: np.ndarray | None = None


def model_apply(config: ModelConfig) -> ApplyFn:
    """Our forward pass in fp32 at full matmul precision, compiled, whatever the run computed in."""
    import jax
    import jax.numpy as jnp

    from model.build import build_model

    model = build_model(replace(config, compute_dtype="float32"))

    @jax.jit
    def forward(params: Any, tokens_BL: jax.Array) -> jax.Array:
        positions = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1]), tokens_BL.shape)
        segment_ids = jnp.ones_like(tokens_BL)
        with jax.default_matmul_precision("highest"):
            logits_BLV = model.apply(
                {"params": params}, tokens_BL, positions=positions, segment_ids=segment_ids
            )
        assert isinstance(logits_BLV, jax.Array)
        return logits_BLV

    return forward


def our_outputs(apply_fn: ApplyFn, params: Mapping[str, Any], rows_BL: np.ndarray) -> Outputs:
    """Outputs of our forward pass."""
    logits_BLV = np.asarray(apply_fn(params, rows_BL))
    # Attention is causal: what stands after a position does not reach it, so rows keep their
    # length (one compilation) and are overwritten from the prompt on.
    tokens_BL = rows_BL.copy()
    steps = []
    for at in range(PROMPT_TOKENS, rows_BL.shape[1]):
        step_BV = np.asarray(apply_fn(params, tokens_BL))[:, at - 1]
        tokens_BL[:, at] = step_BV.argmax(axis=-1)
        steps.append(step_BV)
    return Outputs(
        logits_BLV=logits_BLV,
        greedy_BG=tokens_BL[:, PROMPT_TOKENS:],
        greedy_logits_BGV=np.stack(steps, axis=1),
    )


def load_with_transformers(folder: Path) -> tuple[str, Any, Any] | None:
    """The folder as its users will load it: local files, no remote code, fp32.

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
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                str(folder), use_safetensors=True, output_loading_info=True, **options
            )
        except Exception as error:  # whatever it raises, it could not load what we wrote
            raise LoadError(f"transformers cannot load it: {error}") from error
    model, info = loaded
    odd = {key: sorted(map(str, names)) for key, names in info.items() if names}
    if odd:
        raise LoadError(f"transformers loaded it with {odd}")
    versions = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    return versions, model.float().eval(), auto_tokenizer


def torch_outputs(model: Any, rows_BL: np.ndarray) -> Outputs:
    """Outputs of a `transformers` model; greedy tokens by its own `generate`, with its cache."""
    import torch

    tokens_BL = torch.from_numpy(rows_BL.astype(np.int64))
    prompt_BP = tokens_BL[:, :PROMPT_TOKENS]
    # 32 tokens whatever they are: ours does not stop at the end of a document either.
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        logits_BLV = model(input_ids=tokens_BL).logits
        continued_BL = model.generate(
            input_ids=prompt_BP,
            attention_mask=torch.ones_like(prompt_BP),
            do_sample=False,
            max_new_tokens=GREEDY_TOKENS,
            use_cache=True,
        )
    return Outputs(
        logits_BLV=logits_BLV.float().numpy(),
        greedy_BG=continued_BL[:, PROMPT_TOKENS:].numpy(),
    )


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
