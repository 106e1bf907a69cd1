"""One of N processes that feed a run: writes the rows it holds, for tests to put together again.

python feed_process.py OUT CORPUS_A CORPUS_B PROCESS NUM_PROCESSES PORT
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

from configs.data_config import (
    BestFitConfig,
    ConcatenateConfig,
    DataConfig,
    LengthBucketsConfig,
    ProportionalMixtureConfig,
    SingleCorpusConfig,
    WeightedMixtureConfig,
)
from configs.model_config import AttentionConfig, ModelConfig
from configs.optimizer_config import AdamWConfig, CosineConfig
from configs.schema import MeshConfig, RunConfig, TrainingConfig
from data.batches import Cursor
from data.dataset import open_corpora, training_rows
from data.ledger import Ledger
from train.feed import feed
from train.ledger import total_ledger
from train.mesh import make_mesh
from train.step import batch_sharding

NUM_STEPS = 7
# Steps at which reading starts anew, from the cursor a checkpoint would hold.
STARTS = (0, 3, 6)
THREADS = (0, 1, 4)


def cases(a: str, b: str) -> dict[str, DataConfig]:
    """Packings and mixtures, with rows of 32 tokens and a seed of their own."""
    weighted = WeightedMixtureConfig(corpora=(a, b), weights=(0.7, 0.3, 0.2, 0.8), stage_steps=(4,))
    proportional = ProportionalMixtureConfig(corpora=(a, b), temperature=2.0)
    single = SingleCorpusConfig()
    return {
        name: DataConfig(
            corpus=a if mixture == single else "",
            mixture=mixture,
            packing=packing,
            seq_len=32,
            seed=seed,
        )
        for seed, (name, packing, mixture) in enumerate(
            [
                ("concatenate", ConcatenateConfig(), single),
                ("best_fit", BestFitConfig(), single),
                ("length_buckets", LengthBucketsConfig(group_rows=4), single),
                ("concatenate_weighted", ConcatenateConfig(), weighted),
                ("best_fit_weighted", BestFitConfig(), weighted),
                ("best_fit_proportional", BestFitConfig(), proportional),
            ]
        )
    }


def run_config(data: DataConfig, num_devices: int, vocab_size: int) -> RunConfig:
    """Batches of 4, then 8, then 16 rows over all devices; passes over rows 20 to 24."""
    training = TrainingConfig(
        num_steps=NUM_STEPS, batch_size=16, batch_warmup=(4, 8), batch_warmup_steps=(2, 3)
    )
    attention = AttentionConfig(num_heads=1, num_kv_heads=1, head_dim=2)
    model = ModelConfig(vocab_size=vocab_size, emb_dim=8, num_layers=1, attention=attention)
    mesh = MeshConfig(data=num_devices)
    optimizer = AdamWConfig(schedule=CosineConfig(warmup_steps=1))
    return RunConfig(model=model, data=data, optimizer=optimizer, training=training, mesh=mesh)


def main() -> None:
    out, a, b = sys.argv[1:4]
    process, num_processes, port = map(int, sys.argv[4:])
    if num_processes > 1:
        jax.distributed.initialize(f"localhost:{port}", num_processes, process)
    arrays, ledgers = {}, {}
    for name, data in cases(a, b).items():
        corpora = open_corpora(data)
        vocab_size = next(iter(corpora.values())).tokenizer.vocab_size
        config = run_config(data, jax.device_count(), vocab_size)
        sharding = batch_sharding(config, make_mesh(config.mesh))
        cursors = {0: Cursor().skip(20, 25)}
        for start in STARTS:
            for threads in THREADS:
                source = training_rows(config, corpora)  # nothing cached
                ledger = Ledger(facts=source.facts)
                batches = feed(
                    source,
                    cursors[start],
                    config.training,
                    first_step=start,
                    sharding=sharding,
                    num_threads=threads,
                )
                for step, fed in enumerate(batches, start=start + 1):
                    cursors.setdefault(step, fed.cursor)
                    assert cursors[step] == fed.cursor
                    ledger = ledger.add(fed.entries)
                    for field, array in fed.batch._asdict().items():
                        for shard in [] if array is None else array.addressable_shards:
                            key = f"{name}/{start}/{threads}/{step}/{field}/{shard.index[0].start}"
                            arrays[key] = np.asarray(shard.data)
                total = total_ledger(Ledger(facts=source.facts), ledger)
                ledgers[f"{name}/{start}/{threads}"] = total.to_json()
    np.savez(Path(out) / f"{process}.npz", **arrays)
    (Path(out) / f"{process}.json").write_text(json.dumps(ledgers))


if __name__ == "__main__":
    main()
