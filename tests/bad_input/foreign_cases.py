"""Hugging Face folders that are half there, damaged, or of models that isoflop cannot express."""

import json

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.bad_input.case import Damage, case, cut, drop, edit, remove, write

IMPORT = "import foreign --out=out --corpus=corpus --mesh.data=8"
GENERATE = "generate foreign hello"
_CONFIG = "foreign/config.json"
_TENSORS = "foreign/model.safetensors"
_INDEX = "foreign/model.safetensors.index.json"
_NAME = "model.norm.weight"


def _with_tensor(name: str, tensor: np.ndarray | None) -> Damage:
    """The tensors with another of that name, or without it."""

    def damage() -> None:
        tensors = load_file(_TENSORS)
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
        save_file(tensors, _TENSORS, metadata={"format": "pt"})

    return damage


def _smaller_vocabulary() -> None:
    """A model of fewer pieces than its corpus has, whole in itself."""
    tensors = load_file(_TENSORS)
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:300].copy()
    save_file(tensors, _TENSORS, metadata={"format": "pt"})
    edit(_CONFIG, "vocab_size", 300)()


def _index(weight_map: object) -> Damage:
    return write(_INDEX, json.dumps({"weight_map": weight_map}))


FOLDERS = [
    case("folder: not there", "import none --out=out --corpus=corpus", "none"),
    case("folder: a file", "import runs.csv --out=out --corpus=corpus", "runs.csv"),
    case("folder: no config", IMPORT, "config.json", damage=remove(_CONFIG)),
    case("folder: config cut short", IMPORT, "config.json", damage=cut(_CONFIG, 40)),
    case("folder: config of a list", IMPORT, "config.json", damage=write(_CONFIG, "[]")),
    case("folder: config not UTF-8", IMPORT, "config.json", damage=write(_CONFIG, b"\xff\xfe")),
    case("folder: no weights", IMPORT, "model.safetensors", damage=remove(_TENSORS)),
    case(
        "folder: pickled weights only",
        IMPORT,
        "pytorch_model.bin",
        damage=(remove(_TENSORS), write("foreign/pytorch_model.bin", b"\x80\x04")),
    ),
    case(
        "folder: no tokenizer",
        GENERATE,
        "tokenizer",
        damage=(remove("foreign/tokenizer.json"), remove("foreign/tokenizer.model")),
    ),
    case(
        "folder: tokenizer cut short",
        GENERATE,
        "tokenizer.json",
        damage=(cut("foreign/tokenizer.json", 99), remove("foreign/tokenizer.model")),
    ),
    case(
        "folder: checksums of other files",
        GENERATE,
        "config.json",
        damage=write("foreign/isoflop.json", '{"xxh3_128": {"config.json": "0"}}'),
    ),
    case(
        "folder: checksums cut short",
        GENERATE,
        "isoflop.json",
        damage=write("foreign/isoflop.json", "{"),
    ),
]

CONFIGS = [
    case(
        "foreign config: unknown model",
        IMPORT,
        "model_type",
        "'mamba'",
        damage=edit(_CONFIG, "model_type", "mamba"),
    ),
    case("foreign config: no model", IMPORT, "model_type", damage=drop(_CONFIG, "model_type")),
    case(
        "foreign config: another head",
        IMPORT,
        "architectures",
        damage=edit(_CONFIG, "architectures", ["LlamaForTokenClassification"]),
    ),
    case("foreign config: no width", IMPORT, "hidden_size", damage=drop(_CONFIG, "hidden_size")),
    case(
        "foreign config: width in words",
        IMPORT,
        "hidden_size",
        damage=edit(_CONFIG, "hidden_size", "wide"),
    ),
    case(
        "foreign config: width of nothing",
        IMPORT,
        "hidden_size",
        damage=edit(_CONFIG, "hidden_size", 0),
    ),
    case(
        "foreign config: another width",
        IMPORT,
        "model.",
        "shape",
        damage=edit(_CONFIG, "intermediate_size", 96),
    ),
    case(
        "foreign config: more layers",
        IMPORT,
        "model.layers.2",
        damage=edit(_CONFIG, "num_hidden_layers", 3),
    ),
    case(
        "foreign config: fewer layers",
        IMPORT,
        "model.layers.1",
        damage=edit(_CONFIG, "num_hidden_layers", 1),
    ),
    case(
        "foreign config: billions of layers",
        IMPORT,
        "num_layers",
        damage=edit(_CONFIG, "num_hidden_layers", 10**12),
    ),
    case(
        "foreign config: heads that do not divide",
        IMPORT,
        "num_kv_heads",
        damage=edit(_CONFIG, "num_key_value_heads", 5),
    ),
    case(
        "foreign config: unknown activation",
        IMPORT,
        "hidden_act",
        damage=edit(_CONFIG, "hidden_act", "sine"),
    ),
    case(
        "foreign config: unknown scaling of positions",
        IMPORT,
        "rope",
        damage=edit(_CONFIG, "rope_parameters", {"rope_type": "magic", "rope_theta": 1e4}),
    ),
    case(
        "foreign config: context in words",
        IMPORT,
        "max_position_embeddings",
        damage=edit(_CONFIG, "max_position_embeddings", "long"),
    ),
    case(
        "foreign config: smaller vocabulary",
        IMPORT,
        "embed_tokens",
        damage=edit(_CONFIG, "vocab_size", 300),
    ),
]

WEIGHTS = [
    case("weights: cut short", IMPORT, "model.safetensors", damage=cut(_TENSORS, 5000)),
    case("weights: empty", IMPORT, "model.safetensors", damage=write(_TENSORS, "")),
    case(
        "weights: header beyond the file",
        IMPORT,
        "model.safetensors",
        damage=write(_TENSORS, b"\xff" * 64),
    ),
    case("weights: a tensor missing", IMPORT, _NAME, damage=_with_tensor(_NAME, None)),
    case(
        "weights: a tensor too many",
        IMPORT,
        "model.extra",
        damage=_with_tensor("model.extra", np.zeros(3, np.float32)),
    ),
    case(
        "weights: another shape",
        IMPORT,
        _NAME,
        damage=_with_tensor(_NAME, np.zeros(33, np.float32)),
    ),
    case(
        "weights: whole numbers",
        IMPORT,
        _NAME,
        "int8",
        damage=_with_tensor(_NAME, np.zeros(32, np.int8)),
    ),
    case("weights: fp64", IMPORT, _NAME, "float64", damage=_with_tensor(_NAME, np.zeros(32))),
    case("index: cut short", IMPORT, "index.json", damage=write(_INDEX, "{")),
    case("index: no map", IMPORT, "weight_map", damage=write(_INDEX, "{}")),
    case(
        "index: missing file",
        IMPORT,
        "model-00002.safetensors",
        damage=_index({_NAME: "model-00002.safetensors"}),
    ),
    case(
        "index: file outside",
        IMPORT,
        "../secret.safetensors",
        damage=_index({_NAME: "../secret.safetensors"}),
    ),
    case("index: absolute file", IMPORT, "/etc/passwd", damage=_index({_NAME: "/etc/passwd"})),
    case(
        "index: names what the file lacks",
        IMPORT,
        "model.safetensors",
        damage=_index({"model.other.weight": "model.safetensors"}),
    ),
    case("index: a number for a file", IMPORT, "index.json", damage=_index({_NAME: 3})),
]

IMPORTS = [
    case("import: no out", "import foreign --corpus=corpus", "--out"),
    case("import: no corpus", "import foreign --out=out", "--corpus"),
    case("import: corpus that is not there", "import foreign --out=out --corpus=none", "none"),
    case(
        "import: out that is a run",
        "import foreign --out=pretrained --corpus=corpus",
        "out",
        "pretrained",
    ),
    case("import: out that is a file", "import foreign --out=runs.csv --corpus=corpus", "runs.csv"),
    case("import: rows of one token", f"{IMPORT} --seq-len=1", "seq_len"),
    case("import: unknown field", f"{IMPORT} --training.steps=5", "--training.steps"),
]

CASES = [*FOLDERS, *CONFIGS, *WEIGHTS, *IMPORTS]
