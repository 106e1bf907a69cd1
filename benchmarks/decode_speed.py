"""Generation against `transformers` on PyTorch: the same weights, prompts and process.

    .venv/bin/python benchmarks/decode_speed.py                    # both sizes, batches 1 and 16
    .venv/bin/python benchmarks/decode_speed.py --sizes 10M --rounds 9

A Llama of random weights is written as a Hugging Face folder, loaded by both sides in fp32 and
asked to continue the same prompts greedily with its key/value cache; the tokens must be equal.
Sides take turns in every round. Prefill is the time to a first token; decoding is what each
further token takes, the first one's time taken off. Both sides are warm; what warming up took, our
compilation or their first call, is reported apart. The ratio is the median over rounds of paired
ratios.
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from configs.mlp_config import SwiGLUConfig
from configs.model_config import AttentionConfig, ModelConfig
from data.tokenizer import Tokenizer, train_tokenizer
from export.write import export_run
from inference.generate import TextGenerator
from inference.prompts import PromptFormat
from inference.sampling import Sampling
from model.build import build_model, count_params, init_params


def llama(emb_dim: int, num_layers: int, num_heads: int, mlp_dim: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=8192,
        num_layers=num_layers,
        emb_dim=emb_dim,
        attention=AttentionConfig(
            num_heads=num_heads, num_kv_heads=num_heads, head_dim=emb_dim // num_heads
        ),
        mlp=SwiGLUConfig(mlp_dim=mlp_dim),
        tie_embeddings=False,
    )


SIZES = {"10M": llama(256, 6, 4, 704), "100M": llama(768, 12, 12, 2048)}
BATCHES = (1, 16)
PROMPT_TOKENS, NEW_TOKENS = 256, 64


@dataclass
class Side:
    """One contender: prompts [B, L] and a number of new tokens to the tokens [B, n]."""

    name: str
    generate: Callable[[np.ndarray, int], np.ndarray]
    warm_up_seconds: float = 0.0


def our_side(config: ModelConfig, params: Any, tokenizer: Tokenizer) -> Side:
    base = PromptFormat.of(config, tokenizer)
    endless = PromptFormat(**{**base.__dict__, "eos_ids": ()})  # random weights would end anywhere
    generator = TextGenerator(config, params, tokenizer, prompt_format=endless)

    def generate(prompts_BL: np.ndarray, new_tokens: int) -> np.ndarray:
        generations = generator.generate_tokens(
            prompts_BL.tolist(), max_tokens=new_tokens, sampling=Sampling(temperature=0.0)
        )
        return np.array([generation.tokens for generation in generations])

    return Side("isoflop", generate)


def their_side(folder: Path) -> Side:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(os.cpu_count() or 1)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None

    def generate(prompts_BL: np.ndarray, new_tokens: int) -> np.ndarray:
        prompts = torch.from_numpy(prompts_BL.astype(np.int64))
        with torch.inference_mode():
            tokens = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=0,
            )
        return tokens[:, prompts.shape[1] :].numpy()

    return Side("transformers", generate)


def seconds(side: Side, prompts_BL: np.ndarray, new_tokens: int) -> float:
    start = time.perf_counter()
    side.generate(prompts_BL, new_tokens)
    return time.perf_counter() - start


def measure(sides: list[Side], prompts_BL: np.ndarray, rounds: int) -> dict[str, list[list[float]]]:
    """Seconds of prefill and seconds of decoding, a list a side of one figure a round."""
    first_tokens = []
    for side in sides:
        start = time.perf_counter()
        first_tokens.append(side.generate(prompts_BL, 1 + NEW_TOKENS))
        side.generate(prompts_BL, 1)
        side.warm_up_seconds = time.perf_counter() - start
    agree = np.mean(first_tokens[0] == first_tokens[1])
    # Two tokens within rounding of each other may swap once; from there on the texts differ.
    assert (first_tokens[0][:, :8] == first_tokens[1][:, :8]).all(), "the sides disagree"
    print(f"  {agree:.1%} of {first_tokens[0].size} greedy tokens are equal")
    taken: dict[str, list[list[float]]] = {"prefill": [[], []], "decode": [[], []]}
    for number in range(rounds):
        order = (0, 1) if number % 2 else (1, 0)
        for index in order:
            prefill = seconds(sides[index], prompts_BL, 1)
            whole = seconds(sides[index], prompts_BL, 1 + NEW_TOKENS)
            taken["prefill"][index].append(prefill)
            taken["decode"][index].append(whole - prefill)
    return taken


def rows_of(size: str, batch: int, sides: list[Side], taken: dict[str, list[list[float]]]):
    """Table rows: what, tokens a second of either side, and the ratio."""
    for what, tokens in (("prefill", batch * PROMPT_TOKENS), ("decode", batch * NEW_TOKENS)):
        ours, theirs = taken[what]
        ratios = sorted(t / o for o, t in zip(ours, theirs, strict=True))
        yield (
            size,
            str(batch),
            what,
            f"{tokens / statistics.median(ours):,.0f}",
            f"{tokens / statistics.median(theirs):,.0f}",
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            f"{sides[0].warm_up_seconds:.1f}, {sides[1].warm_up_seconds:.1f}",
        )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    table = Table(
        "size", "batch", "what", "ours, tokens/s", "theirs", "ratio (range)", "warm-up s, both"
    )
    words = [f"word{number} = {number * 7919 % 10007}\n" for number in range(20_000)]
    tokenizer = train_tokenizer(words, vocab_size=2048)
    for size in options.sizes:
        config = SIZES[size]
        params = jax.jit(partial(init_params, build_model(config)))(jax.random.key(0))
        print(f"{size}: {count_params(params):,} parameters")
        with tempfile.TemporaryDirectory() as folder:
            export_run(params, config, tokenizer, Path(folder) / "hf", seq_len=2048)
            sides = [our_side(config, params, tokenizer), their_side(Path(folder) / "hf")]
        for batch in options.batches:
            prompts_BL = np.random.default_rng(0).integers(4, 8192, (batch, PROMPT_TOKENS))
            for row in rows_of(size, batch, sides, measure(sides, prompts_BL, options.rounds)):
                table.add_row(*row)
        del sides, params
        gc.collect()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
