"""A small run directory, written as a finished run leaves it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.serialize import SCHEMA_VERSION

Files = dict[str, Any]


def run_files() -> Files:
    """Name -> object of a .json file, or list of objects of a .jsonl file."""
    shape = {
        "params": 1_100_000,
        "matmul_params": 1_050_000,
        "flops_per_token": 7_000_000,
        "flops_per_token_palm": 7_500_000,
        "emb_dim": 128,
    }
    return {
        "run.json": {"schema_version": 1, "name": "small", "status": "complete"},
        "plan.json": {
            "schema_version": 1,
            "budget": {"kind": "time", "value": 100, "unit": "seconds", "flops": 1.4e13},
            "law": {
                "name": "twenty-tokens",
                "convention": "matmul parameters, head included",
                "source": "Hoffmann et al. 2022",
                "in_range": False,
                "note": "below the range of the fit",
            },
            "optimum": {"params": 1e6, "tokens": 2e7, "flops": 1.4e13, "tokens_per_param": 20},
            "model": shape,
            "data": {"tokens": 2_000_000, "epochs": 1.0, "seq_len": 128, "batch_size": 8},
            "training": {"num_steps": 100, "learning_rate": 3e-3, "warmup_steps": 10},
            "rules": [{"field": "training.num_steps", "value": 100, "rule": "tokens / batch"}],
            "predicted": {
                "flops": 1.4e13,
                "train_seconds": 100.0,
                "step_seconds": 1.0,
                "peak_bytes": 2**30,
                "loss": None,
                "loss_note": "no loss law at this scale",
            },
            "hardware": {"device": "cpu", "num_devices": 1, "source": "time trial"},
        },
        "config.json": {
            "schema_version": SCHEMA_VERSION,
            "name": "small",
            "model": {"emb_dim": 128},
            "data": {"seq_len": 128},
        },
        "fingerprint.json": {
            "schema_version": 1,
            "versions": {"jax": "0.10.2"},
            "devices": ["cpu"],
        },
        "metrics.jsonl": [
            {
                "step": step,
                "loss": 3.0 + 4.0 * math.exp(-step / 20),
                "grad_norm": 1.0,
                "learning_rate": 3e-3 * (1 - step / 120),
                "tokens": step * 20_000,
                "step_seconds": 1.1,
                "tokens_per_second": 18_000.0,
                "mfu": 0.4,
                "mfu_palm": 0.43,
                "train_seconds": step * 1.1,
            }
            for step in range(10, 101, 10)
        ],
        "evaluations.jsonl": [
            {"step": step, "nats_per_token": 3.5 - step / 200, "bits_per_byte": 1.9 - step / 250}
            for step in (50, 100)
        ],
        "samples.jsonl": [
            {
                "step": 100,
                "prompt": "def main(",
                "text": "argv):\n    return 0\n",
                "expected": "args):\n    pass\n",
                "sampling": {"temperature": 0.8, "seed": 0},
            }
        ],
        "events.jsonl": [{"time": "2026-01-01T00:00:00Z", "event": "resumed", "detail": "at 40"}],
        "ledger.json": {
            "schema_version": 1,
            "rows": 15_625,
            "places": 2_015_625,
            "tokens_read": 1_999_900,
            "tokens_repeated": 15_625,
            "tokens_padded": 100,
            "tokens_truncated": 0,
            "tokens_trained_on": 1_999_000,
            "tokens_dropped": 70,
            "cuts": 15_000,
            "epochs": 1.0,
            "corpora": [
                {
                    "name": "notes<1>",
                    "tokens": 1_999_970,
                    "rows_per_epoch": 15_625,
                    "dropped_per_epoch": 70,
                    "epochs": 1.0,
                    "by_epoch": [
                        {
                            "epoch": 0,
                            "rows": 15_625,
                            "places": 2_015_625,
                            "tokens_read": 1_999_900,
                            "tokens_repeated": 15_625,
                            "tokens_padded": 100,
                            "tokens_truncated": 0,
                            "tokens_trained_on": 1_999_000,
                            "tokens_dropped": 70,
                            "cuts": 15_000,
                        }
                    ],
                }
            ],
        },
        "goodput.json": {
            "schema_version": 1,
            "goodput": 0.955,
            "starts": 2,
            "seconds": {"step": 105.0, "compile": 3.0, "save": 0.5, "down": 1.4, "evaluate": 2.0},
            "marks": {"0": 0.0, "100": 105.0},
            "last_seen": 1_767_225_600.0,
            "stopped": True,
        },
        "summary.json": {
            "schema_version": 1,
            "params": 1_100_000,
            "matmul_params": 1_050_000,
            "tokens": 2_000_000,
            "flops": 1.4e13,
            "num_steps": 100,
            "train_seconds": 110.0,
            "compile_seconds": 5.0,
            "prepare_seconds": 9.0,
            "step_seconds": 1.25,
            "peak_bytes": 1.1 * 2**30,
            "peak_rss_bytes": 2 * 2**30,
            "mfu": 0.4,
            "mfu_palm": 0.43,
            "nats_per_token": 3.0,
            "bits_per_byte": 1.5,
            "baselines": {"xz_bits_per_byte": 2.0, "xz_primed_bits_per_byte": 1.2},
            "export": {
                "path": "export/llama",
                "verified_against": "transformers",
                "max_abs_logit_difference": 2e-6,
            },
        },
    }


@pytest.fixture
def files() -> Files:
    return run_files()


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[[Files], Path]:
    """Writes files into a fresh run directory and returns its path."""

    def write(files: Files) -> Path:
        run_dir = tmp_path / "small"
        run_dir.mkdir()
        for name, content in files.items():
            if name.endswith(".jsonl"):
                content = "".join(json.dumps(record) + "\n" for record in content)
            else:
                content = json.dumps(content)
            (run_dir / name).write_text(content)
        return run_dir

    return write
