"""PyTorch's side of benchmarks/gpu_training.py: one of transformers' models under the clock.

    PYTHON benchmarks/gpu_peer.py SETTINGS.json OUT.json --variant compile

Needs torch and transformers alone, so PYTHON may be another environment's. SETTINGS.json is what
`benchmarks.gpu_cases.peer_settings` gives. Parameters, gradients and moments are fp32, products
bf16 under autocast, the optimizer is PyTorch's own (AdamW fused into one kernel), gradients are
clipped: what our step does. No mask is passed, so that attention may take its fastest kernel.
"""

import argparse
import contextlib
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

_WARM_UP_STEPS = 3
_FEWEST_STEPS = 5
_CLIP_NORM = 1.0
VARIANTS = ("compile", "eager", "compile-cudnn")


def measure(
    settings: dict[str, Any],
    *,
    variant: str,
    is_checkpointed: bool,
    max_steps: int,
    max_seconds: float,
) -> dict[str, Any]:
    """Trains the model on one random batch.

    Args:
      variant: "eager" runs operations one by one, "compile" through torch.compile; both let SDPA
        choose its kernel, "compile-cudnn" tells it to take cuDNN's.
      is_checkpointed: layers are computed again in the backward pass.
      max_steps: timed at most; fewer (five at least) where they take longer than `max_seconds`.

    Returns:
      status: "measured" or "does not fit"; the other fields as of benchmarks/gpu_ours.py.
    """
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    record: dict[str, Any] = {
        "variant": variant,
        "is_checkpointed": is_checkpointed,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    try:
        model, attention = build(settings, device)
        model.train()
        if is_checkpointed:
            model.gradient_checkpointing_enable()
        record |= {
            "attention": attention,
            "params": sum(parameter.numel() for parameter in model.parameters()),
        }
        optimizer = _optimizer(settings["optimizer"], model, device)
        forward = torch.compile(model) if variant.startswith("compile") else model
        batch = random_batch(settings, device)
        losses, seconds = [], []
        for number in range(_WARM_UP_STEPS + max_steps):
            start = time.perf_counter()
            with _kernel(variant), torch.autocast(device, torch.bfloat16):
                loss = forward(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP_NORM)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
            if device == "cuda":
                torch.cuda.synchronize()
            if number >= _WARM_UP_STEPS:
                seconds.append(time.perf_counter() - start)
            if len(seconds) >= _FEWEST_STEPS and sum(seconds) > max_seconds:
                break
    except torch.OutOfMemoryError:
        return record | {"status": "does not fit"}
    return record | {
        "status": "measured",
        "seconds": statistics.median(seconds),
        "step_seconds": seconds,
        "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "losses": [losses[0], losses[-1]],
    }


def build(settings: dict[str, Any], device: str) -> tuple[Any, str]:
    """The model in fp32 on a device ("meta": without memory), and which attention it has.

    That is SDPA where transformers has it for the family, else its plain one ("eager").
    """
    import torch
    import transformers as t

    config_class, model_class = {
        "llama": (t.LlamaConfig, t.LlamaForCausalLM),
        "t5": (t.T5Config, t.T5ForConditionalGeneration),
        "bert": (t.BertConfig, t.BertForMaskedLM),
    }[settings["family"]]
    config = config_class(**settings["config"], use_cache=False)
    if "tie_word_embeddings" in settings["config"]:  # T5Config overrides what it is given
        config.tie_word_embeddings = settings["config"]["tie_word_embeddings"]
    for attention in ("sdpa", "eager"):
        config._attn_implementation = attention
        try:
            with torch.device(device):
                model = model_class(config)
        except ValueError:
            if attention == "eager":
                raise
            continue
        if settings["family"] == "t5":  # one table for both sides, as the released model has
            model.set_input_embeddings(model.get_input_embeddings())
        return model, attention
    raise AssertionError("one of the two returned or raised")


def random_batch(settings: dict[str, Any], device: str) -> dict[str, Any]:
    """Full rows of random tokens, each of which has a label."""
    import torch

    def tokens(length: int) -> Any:
        shape = settings["rows"], length
        return torch.randint(1, settings["config"]["vocab_size"], shape, device=device)

    batch = {"labels": tokens(settings["length"])}
    if settings["encoder_length"]:
        return batch | {
            "input_ids": tokens(settings["encoder_length"]),
            "decoder_input_ids": tokens(settings["length"]),
        }
    return batch | {"input_ids": tokens(settings["length"])}


def _optimizer(kind: str, model: Any, device: str) -> Any:
    import torch

    if kind == "adafactor":
        return torch.optim.Adafactor(model.parameters(), lr=1e-4)
    return torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=device == "cuda"
    )


def _kernel(variant: str) -> Any:
    """SDPA told to take cuDNN's kernel, or left alone."""
    if not variant.endswith("cudnn"):
        return contextlib.nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH])


def main() -> None:
    """Measures one variant and writes the record to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--variant", choices=VARIANTS, default="compile")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    record = measure(
        json.loads(options.settings.read_text()),
        variant=options.variant,
        is_checkpointed=options.checkpointing,
        max_steps=options.steps,
        max_seconds=options.seconds,
    )
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
