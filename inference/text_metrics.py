"""How close a written answer comes to the one that was wanted.

Each metric takes as many answers as targets, in order, and gives one number a pair, 0 to 1, higher
is better; `bleu` is defined on a whole set of pairs and gives one number, 0 to 100.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from configs.errors import require

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answers: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """1 where an answer is its target, spaces around both aside; float64 [pairs]."""
    pairs = _paired(answers, targets)
    return np.array([answer.strip() == target.strip() for answer, target in pairs], np.float64)


def token_f1(answers: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """Harmonic mean of precision and recall over words, float64 [pairs].

    Words are those of SQuAD's evaluation (Rajpurkar et al. 2016, arXiv 1606.05250): lower case,
    without punctuation and articles. 1 where neither side has a word, 0 where one has none.
    """
    return np.array([_word_f1(*pair) for pair in _paired(answers, targets)], np.float64)


def rouge_1(answers: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """ROUGE-1: F1 over words (Lin 2004, ACL W04-1013), as `rouge-score` counts, no stemming."""
    return _rouge("rouge1", answers, targets)


def rouge_2(answers: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """ROUGE-2: F1 over pairs of neighbouring words; 0 where a side has fewer than two."""
    return _rouge("rouge2", answers, targets)


def rouge_l(answers: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """ROUGE-L: F1 over the longest common subsequence of words, a text taken as one sentence."""
    return _rouge("rougeL", answers, targets)


def bleu(answers: Sequence[str], targets: Sequence[str]) -> float:
    """Corpus BLEU as `sacrebleu` defines it by default (Post 2018, arXiv 1804.08771), 0 to 100."""
    pairs = _paired(answers, targets)
    from sacrebleu.metrics.bleu import BLEU

    return BLEU().corpus_score([a for a, _ in pairs], [[t for _, t in pairs]]).score


Metric = Callable[[Sequence[str], Sequence[str]], np.ndarray]

# What gives one number a pair. BLEU does not: it is no mean over pairs.
METRICS: Mapping[str, Metric] = {
    "exact_match": exact_match,
    "token_f1": token_f1,
    "rouge_1": rouge_1,
    "rouge_2": rouge_2,
    "rouge_l": rouge_l,
}


def _paired(answers: Sequence[str], targets: Sequence[str]) -> list[tuple[str, str]]:
    require(len(answers) > 0, "answers", list(answers), "at least one")
    require(len(answers) == len(targets), "answers", len(answers), f"{len(targets)} as the targets")
    return list(zip(answers, targets, strict=True))


def _word_f1(answer: str, target: str) -> float:
    given, wanted = _words(answer), _words(target)
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _rouge(kind: str, answers: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    pairs = _paired(answers, targets)
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], use_stemmer=False)
    scores = [scorer.score(target, answer)[kind].fmeasure for answer, target in pairs]
    return np.array(scores, np.float64)
