"""Classes and spans of texts by a model with a head for them: batches, long texts, refusals."""

import numpy as np
import pytest

from configs.errors import InputError
from configs.model_config import SequenceClassificationHeadConfig, TokenClassificationHeadConfig
from data.token_spans import spans_of
from inference.classify import classify, tag
from tests.model.samples import Rows, logits_of, random_params, tiny_model

TEXTS = ["def add(x, y):", "class Point:\n    pass", "x", "return x + y " * 20]
LABELS = ("a", "b", "c")
TAGS = ("O", "B-X", "I-X", "B-Y", "I-Y")
SEQ_LEN = 32


def model(tokenizer, head, architecture="encoder_only"):
    config = tiny_model(
        architecture=architecture, head=head, num_layers=1, vocab_size=tokenizer.vocab_size
    )
    return config, random_params(config)


def logits(config, params, tokens):
    """Of one piece on its own in a padded row, so that one shape is compiled: [its length, G]."""
    row = np.zeros((1, SEQ_LEN), np.int32)
    row[0, : len(tokens)] = tokens
    places = np.arange(SEQ_LEN, dtype=np.int32)[None]
    segments = (places < len(tokens)).astype(np.int32)
    return logits_of(config, params, Rows(row, places, segments))[0, : len(tokens)]


@pytest.mark.parametrize(("architecture", "place"), [("encoder_only", 0), ("decoder_only", -1)])
def test_a_text_has_the_class_it_has_alone(tokenizer, architecture, place):
    head = SequenceClassificationHeadConfig(num_labels=3)
    config, params = model(tokenizer, head, architecture)
    found = classify(config, params, tokenizer, TEXTS, LABELS, seq_len=SEQ_LEN)
    for text, one in zip(TEXTS, found, strict=True):
        tokens = tokenizer.encode(text)[: SEQ_LEN - 2]
        alone = logits(config, params, [2, *tokens, 3])[place].astype(np.float64)
        probabilities = np.exp(alone) / np.exp(alone).sum()
        # fp32 sums over padded rows come in another order.
        np.testing.assert_allclose([*one.probabilities.values()], probabilities, atol=1e-5)
        assert one.label == LABELS[int(probabilities.argmax())]
        assert tuple(one.probabilities) == LABELS
    assert [one.is_truncated for one in found] == [False, False, False, True]
    assert len({tuple(one.probabilities.values()) for one in found}) == len(TEXTS)


def test_spans_of_long_texts_are_those_of_their_windows(tokenizer):
    config, params = model(tokenizer, TokenClassificationHeadConfig(num_labels=5))
    found = tag(config, params, tokenizer, TEXTS, TAGS, seq_len=SEQ_LEN)
    assert sum(len(one.spans) for one in found) > 5
    for text, one in zip(TEXTS, found, strict=True):
        tokens, tags = tokenizer.encode(text), []
        for start in range(0, len(tokens), SEQ_LEN - 2):
            window = tokens[start : start + SEQ_LEN - 2]
            classes = logits(config, params, [2, *window, 3])[1:-1].argmax(-1)
            tags += [TAGS[number] for number in classes]
        assert one.spans == spans_of(text, tags, np.array(tokens), tokenizer.piece_bytes)


def test_what_does_not_fit_is_refused_before_anything_is_computed(tokenizer):
    config, params = model(tokenizer, SequenceClassificationHeadConfig(num_labels=3))
    with pytest.raises(InputError, match="labels: got 2, expected the head's 3 names"):
        classify(config, params, tokenizer, ["x"], LABELS[:2], seq_len=SEQ_LEN)
    with pytest.raises(InputError, match="text: got ' '"):
        classify(config, params, tokenizer, [" "], LABELS, seq_len=SEQ_LEN)
    with pytest.raises(InputError, match=r"model.head.kind: got 'sequence_classification'"):
        tag(config, params, tokenizer, ["x"], TAGS, seq_len=SEQ_LEN)
