"""Text, corpora, tokenizers and labelled records that are damaged or are another's."""

import gzip

from tests.bad_input.case import (
    case,
    copy,
    cut,
    drop,
    edit,
    flip,
    make_folder,
    remove,
    write,
    write_records,
)

PREPARE = "prepare {} --out=out --vocab-size=265"
TRAIN = "train config.json --run=out"
WEIGHTED = f"{TRAIN} --data.mixture.kind=weighted"
ADAPT = "adapt encoder --out=out --kind=classification --data=bad.jsonl"
_TRAIN_FILE = "corpus/token_chunks/*/*-train.array_record-*"
_HELD_OUT_FILE = "corpus/token_chunks/*/*-held_out.array_record-*"
_INFO = "corpus/token_chunks/*/dataset_info.json"
_CARD = "corpus/corpus.json"
_TOKENIZER = "corpus/tokenizer.model"
_TEXT = ("def add(x, y):\n    return x + y\n" * 40).encode()

SOURCES = [
    case("source: not there", PREPARE.format("none.txt"), "source", "none.txt"),
    case("source: glob of nothing", PREPARE.format("'*.rst'"), "source", "*.rst"),
    case("source: empty folder", PREPARE.format("empty"), "source", damage=make_folder("empty")),
    case("source: empty file", PREPARE.format("a.txt"), "source", damage=write("a.txt", "")),
    case("source: blank text", PREPARE.format("a.txt"), "source", damage=write("a.txt", " \n\n")),
    case(
        "source: not UTF-8",
        PREPARE.format("a.txt"),
        "a.txt",
        damage=write("a.txt", b"ab\xffcd" * 99),
    ),
    case(
        "source: unknown dataset", PREPARE.format("tfds:nonesuch_dataset"), "tfds:nonesuch_dataset"
    ),
    case("source: dataset without a name", PREPARE.format("tfds:"), "source"),
    case("source: twice", PREPARE.format("stdlib,stdlib"), "source"),
    case(
        "source: gzip cut short",
        PREPARE.format("a.txt.gz"),
        "a.txt.gz",
        damage=write("a.txt.gz", gzip.compress(_TEXT)[:-9]),
    ),
    case(
        "source: gzip in name only",
        PREPARE.format("a.txt.gz"),
        "a.txt.gz",
        damage=write("a.txt.gz", _TEXT),
    ),
    case(
        "source: zstd in name only",
        PREPARE.format("a.txt.zst"),
        "a.txt.zst",
        damage=write("a.txt.zst", _TEXT),
    ),
    case(
        "source: parquet in name only",
        PREPARE.format("a.parquet"),
        "a.parquet",
        damage=write("a.parquet", _TEXT),
    ),
    case(
        "source: JSON lines cut short",
        PREPARE.format("a.jsonl"),
        "a.jsonl",
        damage=write("a.jsonl", '{"text": "abc"}\n{"te'),
    ),
    case(
        "source: JSON lines without text",
        PREPARE.format("a.jsonl"),
        "a.jsonl",
        "text",
        damage=write_records("a.jsonl", {"body": "abc"}),
    ),
    case(
        "source: JSON lines with a number",
        PREPARE.format("a.jsonl"),
        "a.jsonl",
        "text",
        damage=write_records("a.jsonl", {"text": 3}),
    ),
    case(
        "source: JSON lines that are lists",
        PREPARE.format("a.jsonl"),
        "a.jsonl",
        damage=write_records("a.jsonl", ["abc"]),
    ),
]

PREPARATIONS = [
    case("prepare: vocabulary of nothing", "prepare text --out=out --vocab-size=0", "vocab_size"),
    case(
        "prepare: vocabulary too large", "prepare text --out=out --vocab-size=90000", "vocab_size"
    ),
    case("prepare: workers below zero", "prepare text --out=out --workers=-1", "workers"),
    case(
        "prepare: unknown symbols", "prepare text --out=out --symbols=smileys", "symbols", "smileys"
    ),
    case("prepare: unknown runner", "prepare text --out=out --runner=bicycle", "runner", "bicycle"),
    case(
        "prepare: Beam's options without Beam",
        "prepare text --out=out --beam-options a=1",
        "beam_options",
    ),
    case(
        "prepare: tokenizer that is not there",
        "prepare text --out=out --tokenizer=none",
        "tokenizer",
        "none",
    ),
    case(
        "prepare: tokenizer that is no model",
        "prepare text --out=out --tokenizer=runs.csv",
        "tokenizer",
        "runs.csv",
    ),
    case(
        "prepare: out that is a file",
        "prepare text --out=runs.csv --vocab-size=400",
        "out",
        "runs.csv",
    ),
    case(
        "prepare: out below a file",
        "prepare text --out=runs.csv/a --vocab-size=400",
        "out",
        "runs.csv",
    ),
    case(
        "prepare: out with another corpus", "prepare text --out=corpus --vocab-size=350", "corpus"
    ),
    case(
        "prepare: out with something else",
        "prepare text --out=pretrained --vocab-size=400",
        "out",
        "pretrained",
    ),
]

CORPORA = [
    case("corpus: not there", f"{TRAIN} --corpus=none", "data.corpus", "none"),
    case("corpus: no card", TRAIN, "corpus", damage=remove(_CARD)),
    case("corpus: card cut short", TRAIN, "corpus.json", damage=cut(_CARD, 99)),
    case(
        "corpus: card from the future",
        TRAIN,
        "schema_version",
        damage=edit(_CARD, "schema_version", 99),
    ),
    case("corpus: card without splits", TRAIN, "splits", damage=drop(_CARD, "splits")),
    case("corpus: card without a split", TRAIN, "held_out", damage=drop(_CARD, "splits.held_out")),
    case(
        "corpus: card with words for a number",
        TRAIN,
        "tokens",
        damage=edit(_CARD, "splits.train.tokens", "many"),
    ),
    case(
        "corpus: card with fewer tokens",
        TRAIN,
        "corpus",
        damage=edit(_CARD, "splits.train.tokens", 7),
    ),
    case("corpus: card without files", TRAIN, "data.corpus", damage=edit(_CARD, "files", {})),
    case(
        "corpus: card with a file outside",
        TRAIN,
        "../runs.csv",
        damage=edit(_CARD, "files", {"../runs.csv": {"bytes": 1, "xxh3": "", "footer_xxh3": ""}}),
    ),
    case("corpus: training file missing", TRAIN, "train.array_record", damage=remove(_TRAIN_FILE)),
    case(
        "corpus: held-out file missing",
        TRAIN,
        "held_out.array_record",
        damage=remove(_HELD_OUT_FILE),
    ),
    case(
        "corpus: training file cut short",
        TRAIN,
        "train.array_record",
        damage=cut(_TRAIN_FILE, 2000),
    ),
    case("corpus: training file empty", TRAIN, "train.array_record", damage=cut(_TRAIN_FILE, 0)),
    case(
        "corpus: training file with a flipped bit",
        TRAIN,
        "train.array_record",
        damage=flip(_TRAIN_FILE),
    ),
    case(
        "corpus: held-out file with a flipped bit",
        TRAIN,
        "held_out.array_record",
        damage=flip(_HELD_OUT_FILE),
    ),
    case(
        "corpus: training file of another",
        TRAIN,
        "train.array_record",
        damage=copy("other_corpus/token_chunks/*/*-train*", _TRAIN_FILE),
    ),
    case("corpus: files swapped", TRAIN, "array_record", damage=copy(_HELD_OUT_FILE, _TRAIN_FILE)),
    case("corpus: dataset_info altered", TRAIN, "dataset_info.json", damage=flip(_INFO)),
    case("corpus: dataset_info missing", TRAIN, "dataset_info.json", damage=remove(_INFO)),
    case(
        "corpus: inspected in full",
        "inspect corpus --verify=full",
        "train.array_record",
        damage=flip(_TRAIN_FILE),
    ),
    case(
        "corpus: swept",
        "sweep --corpus=corpus --budgets 1e12 --out=out",
        "tokenizer",
        damage=remove(_TOKENIZER),
    ),
    case("tokenizer file: missing", TRAIN, "tokenizer.model", damage=remove(_TOKENIZER)),
    case("tokenizer file: empty", TRAIN, "tokenizer.model", damage=write(_TOKENIZER, "")),
    case("tokenizer file: cut short", TRAIN, "tokenizer.model", damage=cut(_TOKENIZER, 100)),
    case("tokenizer file: a flipped bit", TRAIN, "tokenizer", damage=flip(_TOKENIZER)),
    case(
        "tokenizer file: another's",
        TRAIN,
        "tokenizer_sha",
        damage=copy("other_corpus/tokenizer.model", _TOKENIZER),
    ),
    case(
        "mixture: corpora of two tokenizers",
        f"{WEIGHTED} --data.mixture.corpora corpus other_corpus --data.mixture.weights 1 1",
        "data.mixture.corpora",
    ),
    case(
        "mixture: a corpus that is not there",
        f"{TRAIN} --data.mixture.kind=proportional --data.mixture.corpora corpus none",
        "none",
    ),
    case(
        "mixture: weights of another number",
        f"{WEIGHTED} --data.mixture.corpora corpus corpus --data.mixture.weights 1",
        "data.mixture.weights",
    ),
]

RECORDS = [
    case("records: not there", ADAPT, "data", "bad.jsonl"),
    case("records: empty", ADAPT, "data", "bad.jsonl", damage=write("bad.jsonl", "")),
    case("records: no JSON", ADAPT, "bad.jsonl:1", damage=write("bad.jsonl", "text\n")),
    case("records: a list", ADAPT, "bad.jsonl:1", damage=write_records("bad.jsonl", ["a"])),
    case(
        "records: no label",
        ADAPT,
        "bad.jsonl:1: label",
        damage=write_records("bad.jsonl", {"text": "a"}),
    ),
    case(
        "records: label that is a number",
        ADAPT,
        "label",
        damage=write_records("bad.jsonl", {"text": "a", "label": 1}),
    ),
    case(
        "records: blank text",
        ADAPT,
        "text",
        damage=write_records("bad.jsonl", {"text": " ", "label": "a"}),
    ),
    case(
        "records: one class",
        ADAPT,
        "1 classes",
        damage=write_records("bad.jsonl", *({"text": f"a{i}", "label": "a"} for i in range(9))),
    ),
    case(
        "records: one record",
        ADAPT,
        "data",
        damage=write_records("bad.jsonl", {"text": "a", "label": "a"}),
    ),
    case(
        "records: spans beyond the text",
        "adapt encoder --out=out --kind=token_classification --data=bad.jsonl",
        "spans",
        damage=write_records(
            "bad.jsonl", {"text": "abc", "spans": [{"start": 1, "end": 9, "label": "A"}]}
        ),
    ),
    case(
        "records: spans without an end",
        "adapt encoder --out=out --kind=token_classification --data=bad.jsonl",
        "spans",
        damage=write_records("bad.jsonl", {"text": "abc", "spans": [{"start": 1}]}),
    ),
    case(
        "records: held-out label that training lacks",
        "adapt encoder --out=out --kind=classification --data=records.jsonl --held-out=bad.jsonl",
        "held_out",
        damage=write_records("bad.jsonl", {"text": "a", "label": "z"}),
    ),
    case(
        "records: kind of another architecture",
        "adapt encoder --out=out --kind=sequence_to_sequence --data=bad.jsonl",
        "kind",
        damage=write_records("bad.jsonl", {"input": "a", "target": "b"}),
    ),
    case(
        "records: unknown kind",
        "adapt encoder --out=out --kind=haiku --data=records.jsonl",
        "kind",
        "haiku",
    ),
]

CASES = [*SOURCES, *PREPARATIONS, *CORPORA, *RECORDS]
