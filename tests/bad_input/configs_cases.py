"""Configs that cannot be meant: damaged files, unknown fields, wrong values, contradictions."""

from tests.bad_input.case import Damage, case, cut, drop, edit, replace_text, write

TRAIN = "train config.json --run=out"
_CONFIG = "config.json"


def _set(field: str, value: object) -> Damage:
    return edit(_CONFIG, field, value)


DAMAGED_FILES = [
    case("config: no such file", "train none.json", "none.json", "No such file"),
    case("config: empty", TRAIN, "config.json", "invalid JSON", damage=write(_CONFIG, "")),
    case("config: cut short", TRAIN, "config.json", "invalid JSON", damage=cut(_CONFIG, 300)),
    case("config: a list", TRAIN, "config.json", "[1]", damage=write(_CONFIG, "[1]")),
    case("config: not UTF-8", TRAIN, "config.json", "UTF-8", damage=write(_CONFIG, b"{\xff}")),
    case("config: zeros", TRAIN, "config.json", "JSON", damage=write(_CONFIG, bytes(4096))),
    case("config: nested too deep", TRAIN, "config.json", damage=write(_CONFIG, "[" * 100_000)),
    case(
        "config: a key twice",
        TRAIN,
        "config.json",
        "'name' is given twice",
        damage=replace_text(_CONFIG, '"name": ', '"name": "a", "name": '),
    ),
    case(
        "config: a folder of the name",
        "train folder.json",
        "folder.json",
        damage=write("folder.json/config.json", "{}"),
    ),
    case(
        "config: schema from the future", TRAIN, "schema_version", damage=_set("schema_version", 99)
    ),
    case("config: schema unknown", TRAIN, "schema_version", damage=drop(_CONFIG, "schema_version")),
    case("config: schema in words", TRAIN, "schema_version", damage=_set("schema_version", "3")),
    case(
        "config: NaN",
        TRAIN,
        "config.json",
        "NaN",
        damage=replace_text(_CONFIG, '"learning_rate": 0.02', '"learning_rate": NaN'),
    ),
    case(
        "config: a number of 5,000 digits",
        TRAIN,
        "config.json",
        damage=replace_text(_CONFIG, '"num_steps": 20', f'"num_steps": {"9" * 5000}'),
    ),
]

FIELDS = [
    case("field: unknown", TRAIN, "optimiser", "unknown", damage=_set("optimiser", {})),
    case(
        "field: unknown, inside",
        TRAIN,
        "model.attention.num_head",
        "'num_heads'",
        damage=_set("model.attention.num_head", 2),
    ),
    case("field: missing", TRAIN, "data.seq_len", "nothing", damage=drop(_CONFIG, "data.seq_len")),
    case("field: missing section", TRAIN, "training", "nothing", damage=drop(_CONFIG, "training")),
    case("field: words", TRAIN, "training.num_steps", damage=_set("training.num_steps", "many")),
    case("field: true", TRAIN, "training.batch_size", damage=_set("training.batch_size", True)),
    case("field: a fraction", TRAIN, "data.seq_len", "32.0", damage=_set("data.seq_len", 32.0)),
    case(
        "field: null",
        TRAIN,
        "optimizer.learning_rate",
        damage=_set("optimizer.learning_rate", None),
    ),
    case("field: a list", TRAIN, "model", "[]", damage=_set("model", [])),
    case("field: an object", TRAIN, "name", damage=_set("name", {"a": 1})),
    case("field: zero", TRAIN, "training.batch_size", damage=_set("training.batch_size", 0)),
    case("field: negative", TRAIN, "training.num_steps", damage=_set("training.num_steps", -3)),
    case(
        "field: infinite",
        TRAIN,
        "optimizer.learning_rate",
        damage=replace_text(_CONFIG, '"learning_rate": 0.02', '"learning_rate": 1e999'),
    ),
    case("field: huge", TRAIN, "memory", damage=_set("model.emb_dim", 10**30), num_problems=2),
    case(
        "field: huge batch",
        TRAIN,
        "memory",
        damage=_set("training.batch_size", 8 * 10**15),
    ),
    case("field: seed beyond 32 bits", TRAIN, "seed", damage=_set("training.seed", 2**70)),
    case("field: empty name", "train config.json", "name", damage=_set("name", "")),
    case(
        "field: a name that leaves its folder",
        "train config.json",
        "name",
        damage=_set("name", "../outside"),
    ),
    case(
        "kind: unknown",
        TRAIN,
        "objective.kind",
        "'causal_lm'",
        damage=_set("objective.kind", "causal"),
    ),
    case("kind: missing", TRAIN, "optimizer.kind", damage=drop(_CONFIG, "optimizer.kind")),
    case("kind: a number", TRAIN, "model.norm.kind", damage=_set("model.norm.kind", 3)),
    case(
        "kind: another variant's fields",
        TRAIN,
        "model.norm",
        damage=_set("model.norm", {"kind": "layer_norm", "scale_offset": 1}),
    ),
    case(
        "rules: unknown mesh axis",
        TRAIN,
        "mesh.rules",
        "'rows'",
        damage=_set("mesh.rules.batch", ["rows"]),
    ),
]

CONTRADICTIONS = [
    case(
        "together: heads and key/value heads",
        f"{TRAIN} --model.attention.num-heads=3 --model.attention.num-kv-heads=2",
        "num_kv_heads",
    ),
    case("together: objective of an encoder", f"{TRAIN} --objective.kind=masked_lm", "objective"),
    case(
        "together: warm-up beyond the end",
        f"{TRAIN} --optimizer.schedule.warmup-steps=500",
        "warmup_steps",
    ),
    case("together: microbatches", f"{TRAIN} --training.num-microbatches=3", "num_microbatches"),
    case("together: mesh and devices", f"{TRAIN} --mesh.data=3", "mesh", "8"),
    case("together: mesh and batch", f"{TRAIN} --training.batch-size=12", "training.batch_size"),
    case("together: mesh and widths", f"{TRAIN} --mesh.data=1 --mesh.tensor=8", "heads"),
    case(
        "together: two axes of one dimension",
        f"{TRAIN} --mesh.rules.mlp data --mesh.rules.batch data --mesh.rules.embed data",
        "mesh.rules.mlp",
        num_problems=2,
    ),
    case("together: corpus and vocabulary", f"{TRAIN} --model.vocab-size=300", "vocab_size"),
    case("together: corpus and row length", f"{TRAIN} --data.seq-len=5000", "data.seq_len"),
    case("together: corpus and epochs", f"{TRAIN} --data.max-epochs=0.01", "data.max_epochs"),
    case("together: no corpus", f"{TRAIN} --data.corpus=", "data.corpus"),
    case(
        "together: control symbols",
        f"{TRAIN} --objective.kind=fill_in_the_middle",
        "fill_in_the_middle",
    ),
]

CASES = [*DAMAGED_FILES, *FIELDS, *CONTRADICTIONS]
