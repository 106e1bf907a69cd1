"""How well classes and entities were found: accuracy, macro-F1, entity F1."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from data.token_spans import Span


class PrecisionRecall(NamedTuple):
    """Shares from 0 to 1; 0 where there is nothing to divide by."""

    precision: float
    recall: float
    f1: float

    @classmethod
    def of(cls, *, right: int, predicted: int, expected: int) -> "PrecisionRecall":
        """From counts; F1 is the harmonic mean, 2·right / (predicted + expected)."""
        return cls(
            right / predicted if predicted else 0.0,
            right / expected if expected else 0.0,
            2 * right / (predicted + expected) if predicted + expected else 0.0,
        )


def accuracy(predicted: Sequence[str], expected: Sequence[str]) -> float:
    """Share of the answers that are right, of one or more."""
    right = sum(one == other for one, other in zip(predicted, expected, strict=True))
    return right / len(expected)


def macro_f1(predicted: Sequence[str], expected: Sequence[str]) -> float:
    """Mean of the classes' F1, each counting alike, over the classes that occur in either.

    As scikit-learn's f1_score(average="macro") without `labels`.
    """
    classes = {*predicted, *expected}
    right = Counter(a for a, b in zip(predicted, expected, strict=True) if a == b)
    in_predicted, in_expected = Counter(predicted), Counter(expected)
    scores = [
        PrecisionRecall.of(right=right[c], predicted=in_predicted[c], expected=in_expected[c]).f1
        for c in classes
    ]
    return sum(scores) / len(scores)


def majority_accuracy(expected: Sequence[str]) -> float:
    """Accuracy of naming the most frequent class always."""
    return Counter(expected).most_common(1)[0][1] / len(expected)


def entity_scores(
    predicted: Sequence[Collection[Span]], expected: Sequence[Collection[Span]]
) -> PrecisionRecall:
    """Precision, recall and F1 of spans over all texts (micro average): right are those whose
    start, end and label all are.

    Tjong Kim Sang and De Meulder 2003, arXiv cs/0306050, section 3; what `seqeval` computes.

    Args:
        predicted, expected: the spans of each text.
    """
    right = sum(len(set(a) & set(b)) for a, b in zip(predicted, expected, strict=True))
    return PrecisionRecall.of(
        right=right,
        predicted=sum(map(len, map(set, predicted))),
        expected=sum(map(len, map(set, expected))),
    )


def entity_scores_by_label(
    predicted: Sequence[Collection[Span]], expected: Sequence[Collection[Span]]
) -> dict[str, PrecisionRecall]:
    """`entity_scores` of each label on its own."""

    def only(texts: Sequence[Collection[Span]], label: str) -> list[list[Span]]:
        return [[span for span in spans if span.label == label] for spans in texts]

    labels = sorted({span.label for spans in (*predicted, *expected) for span in spans})
    return {x: entity_scores(only(predicted, x), only(expected, x)) for x in labels}
