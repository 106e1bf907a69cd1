"""Models of four shapes with random parameters, a tokenizer, and text made to break it."""

import io
import random
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from configs.mlp_config import SwiGLUConfig
from configs.model_config import AttentionConfig, ModelConfig, RMSNormConfig
from configs.position_config import RopeConfig
from export.convert import param_shapes, unflatten
from export.reference import ApplyFn, model_apply
from export.verify import PROBES

VOCAB_SIZE = 512
QUICK_COMPILE: dict[str, Any] = {"xla_backend_optimization_level": 0}

# Name -> what differs. Sizes are all different so that a swapped axis cannot pass.
MODELS = {
    "tied, grouped queries": {},
    "untied": {"tie_embeddings": False},
    "multi-head": {"attention": AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=8)},
    "heads wider than the model": {
        "attention": AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=20)
    },
}

FRAGMENTS = (
    *(" ", "  ", "    ", "\t", "\n", "\r\n", "\u00a0", "\u200b", "\ufeff", "\x00", "\x7f"),
    *("a", "b", "e", "s", "self", "return", "def ", "=", "==", "#", '"', "0", "1", "<", ">"),
    *("<s>", "</s>", "<pad>", "<unk>", "<0x41>", "[MASK]", "\u2581"),
    *("é", "e\u0301", "漢", "字", "🎉", "👩\u200d👩\u200d👧", "\U0010ffff"),
)


def make_config(**changes) -> ModelConfig:
    fields = {
        "vocab_size": VOCAB_SIZE,
        "emb_dim": 32,
        "num_layers": 3,
        "attention": AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8),
        "mlp": SwiGLUConfig(mlp_dim=56),
        "norm": RMSNormConfig(epsilon=3e-5),
        "position": RopeConfig(theta=5_000.0),
    }
    return ModelConfig(**(fields | changes))


def make_params(config: ModelConfig, seed: int = 0) -> dict:
    """Normal numbers, large enough that logits spread over several units."""
    rng, flat = np.random.default_rng(seed), {}
    offset = getattr(config.norm, "scale_offset", 0.0)
    for path, shape in param_shapes(config).items():
        center = 1.0 - offset if path.endswith("scale") else 0.0
        flat[path] = (center + 0.2 * rng.standard_normal(shape)).astype(np.float32)
    return unflatten(flat)


def quick_apply(config: ModelConfig) -> ApplyFn:
    """Our forward pass, machine code unoptimised: it compiles in half the time."""
    return model_apply(config, compiler_options=QUICK_COMPILE)


def train_model(**changes) -> bytes:
    """A small SentencePiece model on this folder's sources, made the way data/tokenizer.py does."""
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py")]
    options = {
        "model_type": "bpe",
        "vocab_size": VOCAB_SIZE,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "allow_whitespace_only_pieces": True,
        "character_coverage": 0.999,
        "pad_id": 0,
        "unk_id": 1,
        "bos_id": 2,
        "eos_id": 3,
        "max_sentence_length": 100_000,
        "minloglevel": 2,
    }
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]
        sentence_iterator=iter(sources), model_writer=model, **(options | changes)
    )
    return model.getvalue()


def nasty_lines(count: int) -> list[str]:
    """Probes, lines of code with their indentation, and random mixtures."""
    rng = random.Random(0)
    code = Path(sysconfig.get_path("stdlib"), "argparse.py").read_text(encoding="utf-8")
    lines = [*PROBES, *rng.sample(code.splitlines(keepends=True), count // 2)]
    while len(lines) < count:
        lines.append("".join(rng.choices(FRAGMENTS, k=rng.randint(1, 40))))
    return lines
