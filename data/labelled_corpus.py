"""Labelled records as a corpus: documents `<s> text </s> answer </s>` that objectives can read.

Such a corpus is one like any other (corpus.py): it is packed, mixed, counted and resumed from in
the same way. Beside it lie labels.json, the names of the classes, and held_out.jsonl, the records
that a task is judged by. All records are held in memory: labels are written by people.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.errors import require
from configs.labelled_config import LABELLED_SPECIALS, LabelledConfig, SequenceToSequenceConfig
from configs.serialize import read_json, write_json, write_text
from data.corpus import TOKENIZER_NAME, Corpus, intact_corpus, open_corpus
from data.corpus_card import CARD_NAME, SPLITS, SplitTotals, write_card
from data.labelled import Kind, Record
from data.objectives.labelled import FIRST_LABEL_ID
from data.prepare import OtherCorpusError, locked, write_bytes
from data.spool import Duplicates
from data.token_chunks import TokenChunks, cut_chunks, token_dtype
from data.token_spans import token_labels
from data.tokenizer import BOS_ID, EOS_ID, Tokenizer

LABELS_NAME = "labels.json"
HELD_OUT_NAME = "held_out.jsonl"
CUT_SHORT = "records cut short to fit a row"
_VERSION = 1


class LabelledRecords(NamedTuple):
    """A task's records.

    labels: names of the classes by number; none where answers are texts. source: what the corpus
    card says of where they are from.
    """

    kind: Kind
    labels: tuple[str, ...]
    train: Sequence[Record]
    held_out: Sequence[Record]
    source: dict[str, str]


class TokenLimits(NamedTuple):
    """How many tokens a document's text and answer may have: in all, and the answer alone."""

    total: int
    answer: int


def token_limits(objective: LabelledConfig, seq_len: int) -> TokenLimits:
    """What fits a row of the objective with <s> and both </s>."""
    total = objective.lengths(seq_len).tokens - LABELLED_SPECIALS
    if isinstance(objective, SequenceToSequenceConfig):
        return TokenLimits(total, min(objective.target_tokens - 1, total))
    return TokenLimits(total, total)


def write_labelled_corpus(
    out: Path,
    records: LabelledRecords,
    tokenizer: Tokenizer,
    limits: TokenLimits,
    *,
    seed: int = 0,
) -> Corpus:
    """Writes the records of a task as a corpus, in an order shuffled by the seed.

    A record too long for a row is cut short; the card's source says how many were. A folder that
    holds this very corpus already is opened as it is.

    Raises:
        OtherCorpusError: the folder holds another corpus.
        InputError: no records for training or to hold out, or more classes than the tokenizer has
            ids for.
    """
    for split in SPLITS:
        require(bool(getattr(records, split)), f"data ({split})", "no record", "one or more")
    most = tokenizer.vocab_size - FIRST_LABEL_ID
    require(len(records.labels) <= most, "data", f"{len(records.labels)} classes", f"{most}")
    recipe = _recipe(records, tokenizer, limits, seed)
    with locked(out):
        if (corpus := intact_corpus(out)) is not None:
            if corpus.card["recipe"] == recipe:
                return corpus
            raise OtherCorpusError(
                f"out: got {os.fspath(out)!r}, which holds a corpus of other records, tokenizer or "
                "lengths; expected another folder, or remove it"
            )
        shutil.rmtree(out / TokenChunks.name, ignore_errors=True)
        write_bytes(out / TOKENIZER_NAME, tokenizer.model_bytes)
        _write(out, records, tokenizer, limits, recipe)
    return open_corpus(out)


def read_labels(folder: Path) -> tuple[Kind, tuple[str, ...]]:
    """What labels.json of a corpus or a run says: the kind of task, and its classes by number."""
    record = read_json(folder / LABELS_NAME)
    return record["kind"], tuple(record["labels"])


def write_labels(folder: Path, kind: Kind, labels: Sequence[str]) -> None:
    """Writes labels.json."""
    write_json(
        folder / LABELS_NAME, {"schema_version": _VERSION, "kind": kind, "labels": list(labels)}
    )


def encode_record(
    record: Record, kind: Kind, labels: Sequence[str], tokenizer: Tokenizer, limits: TokenLimits
) -> tuple[np.ndarray, bool]:
    """A record's document, and whether it had to be cut short.

    Before (tokens of "import os" are [20, 21], labels O, B-MODULE, I-MODULE):
        {"text": "import os", "spans": [{"start": 7, "end": 9, "label": "MODULE"}]}
    After:
        [2, 20, 21, 3, 4, 5, 3]

    Returns:
        int32 [n], <s> and both </s> included.
    """
    if kind in ("classification", "token_classification"):
        text = tokenizer.encode_array(record["text"])
        if kind == "classification":
            answer = np.array([FIRST_LABEL_ID + labels.index(record["label"])], np.int32)
            kept = limits.total - 1
        else:
            answer = FIRST_LABEL_ID + token_labels(
                record["text"], record["spans"], labels, text, tokenizer.piece_bytes
            )
            kept = limits.total // 2
            answer = answer[:kept]
        is_cut = len(text) > kept
    else:
        text = tokenizer.encode_array(record["input"])
        answer = tokenizer.encode_array(record["target"])
        is_cut = len(answer) > limits.answer
        answer = answer[: limits.answer]
        kept = limits.total - len(answer)
        is_cut |= len(text) > kept
    # A prompt's end matters most: there its answer is asked for.
    text = text[max(0, len(text) - kept) :] if kind == "instruction" else text[:kept]
    return np.concatenate([[BOS_ID], text, [EOS_ID], answer, [EOS_ID]]).astype(np.int32), is_cut


def _recipe(
    records: LabelledRecords, tokenizer: Tokenizer, limits: TokenLimits, seed: int
) -> dict[str, Any]:
    content = [records.train, records.held_out]
    return {
        "version": _VERSION,
        "kind": records.kind,
        "labels": list(records.labels),
        "documents_sha": hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        "tokenizer_sha": tokenizer.sha,
        "limits": list(limits),
        "seed": seed,
        "symbols": list(tokenizer.symbols.ids),
    }


def _write(
    out: Path,
    records: LabelledRecords,
    tokenizer: Tokenizer,
    limits: TokenLimits,
    recipe: dict[str, Any],
) -> None:
    dtype = token_dtype(tokenizer.vocab_size)
    totals = {split: SplitTotals() for split in SPLITS}
    cut_short, chunks = [], {}
    for split in SPLITS:
        part: Sequence[Record] = getattr(records, split)
        encoded = [
            encode_record(record, records.kind, records.labels, tokenizer, limits)
            for record in part
        ]
        num_cut = sum(is_cut for _, is_cut in encoded)
        cut_short.append(f"{num_cut:,} of {len(part):,} {split}")
        order = np.random.default_rng(recipe["seed"]).permutation(len(part))
        documents = [encoded[number][0] for number in order]
        lengths = np.array([len(document) for document in documents], np.int64)
        num_bytes = sum(_num_bytes(record) for record in part)
        totals[split].add(lengths, num_bytes)
        chunks[split] = cut_chunks([(np.concatenate(documents).astype(dtype), lengths)])
    paths = TokenChunks(chunks, dtype=dtype, data_dir=out).write()
    shutil.rmtree(out / "downloads", ignore_errors=True)
    write_labels(out, records.kind, records.labels)
    lines = (json.dumps(record) + "\n" for record in records.held_out)
    write_text(out / HELD_OUT_NAME, "".join(lines))
    (out / CARD_NAME).unlink(missing_ok=True)
    write_card(
        out,
        source=records.source | {"kind": records.kind, CUT_SHORT: ", ".join(cut_short)},
        recipe=recipe,
        tokenizer=tokenizer,
        totals=totals,
        duplicates=Duplicates(0, 0),
        skipped={},
        paths=paths,
    )


def _num_bytes(record: Record) -> int:
    texts = (record.get(name, "") for name in ("text", "input", "target"))
    return sum(len(text.encode()) for text in texts)
