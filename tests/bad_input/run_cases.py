"""Runs and checkpoints that are damaged, half there, or of another model than their config says."""

from tests.bad_input.case import case, cut, edit, flip, remove, write

GENERATE = "generate pretrained hello"
RESUME = "train pretrained"
_STEP = "pretrained/checkpoints/0"
_ARRAYS = f"{_STEP}/state/ocdbt.process_0/manifest.ocdbt"
_MANIFEST = f"{_STEP}/isoflop_manifest.json"
_CONFIG = "pretrained/config.json"
_RUN = "pretrained/run.json"

CHECKPOINTS = [
    case("checkpoint: none", GENERATE, "checkpoint", damage=remove(_STEP)),
    case(
        "checkpoint: no folder of them",
        GENERATE,
        "checkpoint",
        damage=remove("pretrained/checkpoints"),
    ),
    case("checkpoint: a flipped bit", GENERATE, "manifest.ocdbt", damage=flip(_ARRAYS)),
    case(
        "checkpoint: a file cut short",
        "score pretrained hello",
        "manifest.ocdbt",
        damage=cut(_ARRAYS, 9),
    ),
    case(
        "checkpoint: a file missing", "export pretrained", "manifest.ocdbt", damage=remove(_ARRAYS)
    ),
    case(
        "checkpoint: a file too many",
        "attention pretrained hello",
        "extra",
        damage=write(f"{_STEP}/extra", ""),
    ),
    case(
        "checkpoint: manifest missing",
        "embeddings pretrained hello",
        "manifest",
        damage=remove(_MANIFEST),
    ),
    case(
        "checkpoint: manifest cut short",
        "sampling pretrained --corpus=corpus",
        "manifest",
        damage=cut(_MANIFEST, 40),
    ),
    case("checkpoint: manifest without files", GENERATE, "manifest", damage=write(_MANIFEST, "{}")),
    case(
        "checkpoint: manifest with a list", GENERATE, "manifest", damage=write(_MANIFEST, "[1, 2]")
    ),
    case(
        "checkpoint: evaluated",
        "evaluate pretrained --tasks records.jsonl",
        "manifest.ocdbt",
        damage=flip(_ARRAYS),
    ),
    case(
        "checkpoint: adapted",
        "adapt pretrained --out=out --corpus=corpus",
        "manifest.ocdbt",
        damage=flip(_ARRAYS),
    ),
    case(
        "checkpoint: a model of another width",
        GENERATE,
        "mlp/up/kernel",
        damage=(edit(_CONFIG, "model.mlp.mlp_dim", 96)),
    ),
    case(
        "checkpoint: a model of more layers",
        GENERATE,
        "mlp_norm/scale",
        damage=edit(_CONFIG, "model.num_layers", 3),
    ),
    case(
        "checkpoint: a model with more parts",
        GENERATE,
        "head",
        damage=edit(_CONFIG, "model.tie_embeddings", False),
    ),
]

RUNS = [
    case("run: no config", GENERATE, "config.json", damage=remove(_CONFIG)),
    case("run: config cut short", RESUME, "config.json", damage=cut(_CONFIG, 50)),
    case(
        "run: config with an unknown field",
        RESUME,
        "config.json: modell",
        damage=edit(_CONFIG, "modell", {}),
    ),
    case(
        "run: config from the future",
        GENERATE,
        "schema_version",
        damage=edit(_CONFIG, "schema_version", 99),
    ),
    case(
        "run: no tokenizer",
        GENERATE,
        "tokenizer.model",
        damage=remove("pretrained/tokenizer.model"),
    ),
    case(
        "run: tokenizer cut short",
        GENERATE,
        "tokenizer.model",
        damage=cut("pretrained/tokenizer.model", 99),
    ),
    case(
        "run: no fingerprint",
        RESUME,
        "fingerprint.json",
        damage=remove("pretrained/fingerprint.json"),
    ),
    case(
        "run: fingerprint cut short",
        "inspect pretrained",
        "fingerprint.json",
        damage=cut("pretrained/fingerprint.json", 30),
    ),
    case(
        "run: fingerprint of another corpus",
        RESUME,
        "data.corpus",
        damage=edit("pretrained/fingerprint.json", "corpora", []),
    ),
    case("run: corpus is gone", RESUME, "data.corpus", damage=remove("corpus")),
    case(
        "run: corpus is another",
        "train pretrained --corpus=other_corpus",
        "data.corpus",
        num_problems=2,
    ),
    case(
        "run: corpus is gone at export", "export pretrained", "data.corpus", damage=remove("corpus")
    ),
    case("run: run.json cut short", "report pretrained", "run.json", damage=cut(_RUN, 9)),
    case("run: run.json of a list", "report pretrained", "run.json", damage=write(_RUN, "[]")),
    case(
        "run: run.json from the future",
        "report pretrained",
        "run.json",
        damage=edit(_RUN, "schema_version", 99),
    ),
    case("run: run.json is not there", "report pretrained", "run.json", damage=remove(_RUN)),
    case("run: run.json cut short at resuming", RESUME, "run.json", damage=cut(_RUN, 9)),
    case("run: settled in another's folder", "export text", "run", "text"),
    case(
        "run: labels damaged",
        "generate encoder 'a <mask>'",
        "labels.json",
        damage=write("encoder/labels.json", "{"),
    ),
]

ARCHITECTURES = [
    case("architecture: encoder scored in steps", "generate encoder hello", "mask"),
    case("architecture: encoder as a decoder's family", "export encoder --family=llama", "llama"),
    case("architecture: decoder as an encoder's family", "export pretrained --family=bert", "bert"),
    case("architecture: unknown family", "export pretrained --family=lama", "family", "lama"),
    case(
        "architecture: decoder adapted to classes of tokens",
        "adapt pretrained --out=out --task=token_classes",
        "kind",
    ),
    case("export: out that is a file", "export pretrained --out=runs.csv", "out", "runs.csv"),
    case("export: out with something else", "export pretrained --out=text", "out", "text"),
    case("export: out below a file", "export pretrained --out=runs.csv/a", "out", "runs.csv"),
]

CASES = [*CHECKPOINTS, *RUNS, *ARCHITECTURES]
