"""How an adapted model does its task on records it has not been trained on."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from configs.labelled_config import LABELLED_SPECIALS
from data.labelled import Kind, Record
from data.token_spans import Span
from inference.classify import classify, tag
from inference.generate import TextGenerator
from inference.sampling import Sampling
from inference.task_metrics import (
    accuracy,
    entity_scores,
    entity_scores_by_label,
    macro_f1,
    majority_accuracy,
)
from inference.text_metrics import bleu, exact_match, rouge_l
from workflows.load import Loaded

_ANSWER_TOKENS = 64
_BATCH = 32
_GREEDY = Sampling(temperature=0.0)


class TaskResult(NamedTuple):
    """metrics: by name, from 0 to 1 but BLEU, from 0 to 100. answers: one a record, as JSON."""

    metrics: dict[str, Any]
    answers: list[Any]


def evaluate_task(
    loaded: Loaded, kind: Kind, labels: Sequence[str], records: Sequence[Record]
) -> TaskResult:
    """Answers every record, and compares with what the records say.

    Args:
      records: one or more.
    """
    return _EVALUATIONS[kind](loaded, labels, records)


def _classes(loaded: Loaded, labels: Sequence[str], records: Sequence[Record]) -> TaskResult:
    texts = [record["text"] for record in records]
    model = loaded.config, loaded.params, loaded.tokenizer
    found = classify(*model, texts, labels, seq_len=loaded.seq_len)
    predicted = [one.label for one in found]
    expected = [record["label"] for record in records]
    metrics = {
        "accuracy": accuracy(predicted, expected),
        "macro_f1": macro_f1(predicted, expected),
        "majority_accuracy": majority_accuracy(expected),
        "records": len(records),
    }
    return TaskResult(metrics, predicted)


def _entities(loaded: Loaded, labels: Sequence[str], records: Sequence[Record]) -> TaskResult:
    texts = [record["text"] for record in records]
    model = loaded.config, loaded.params, loaded.tokenizer
    found = tag(*model, texts, labels, seq_len=loaded.seq_len)
    predicted = [one.spans for one in found]
    expected = [[Span(s["start"], s["end"], s["label"]) for s in r["spans"]] for r in records]
    scores = entity_scores(predicted, expected)
    by_label = entity_scores_by_label(predicted, expected)
    metrics = {
        "entity_f1": scores.f1,
        "entity_precision": scores.precision,
        "entity_recall": scores.recall,
        "entity_f1_by_label": {label: one.f1 for label, one in by_label.items()},
        "records": len(records),
    }
    return TaskResult(metrics, [[span._asdict() for span in spans] for spans in predicted])


def _texts(loaded: Loaded, labels: Sequence[str], records: Sequence[Record]) -> TaskResult:
    del labels
    prompts = [_fitting(loaded, record["input"]) for record in records]
    generator = TextGenerator(loaded.config, loaded.params, loaded.tokenizer)
    predicted: list[str] = []
    for first in range(0, len(records), _BATCH):
        batch = prompts[first : first + _BATCH]
        answers = generator.generate(batch, max_tokens=_ANSWER_TOKENS, sampling=_GREEDY)
        predicted += [one.text for one in answers]
    expected = [record["target"] for record in records]
    metrics = {
        "rouge_l": float(rouge_l(predicted, expected).mean()),
        "bleu": bleu(predicted, expected),
        "exact_match": float(exact_match(predicted, expected).mean()),
        "records": len(records),
        "records_cut_short": sum(p != r["input"] for p, r in zip(prompts, records, strict=True)),
    }
    return TaskResult(metrics, predicted)


def _fitting(loaded: Loaded, prompt: str) -> str:
    """A prompt cut to what the model was trained on: an encoder reads its begin, a decoder its end
    and has room for the answer."""
    tokens, decode = loaded.tokenizer.encode(prompt), loaded.tokenizer.decode
    if loaded.config.architecture == "encoder_decoder":
        room = loaded.seq_len - LABELLED_SPECIALS
        return prompt if len(tokens) <= room else decode(tokens[:room])
    room = max(1, loaded.seq_len - _ANSWER_TOKENS - 1)
    return prompt if len(tokens) <= room else decode(tokens[-room:])


_EVALUATIONS: dict[Kind, Callable[[Loaded, Sequence[str], Sequence[Record]], TaskResult]] = {
    "classification": _classes,
    "token_classification": _entities,
    "sequence_to_sequence": _texts,
    "instruction": _texts,
}
