import numpy as np
import pytest

from configs.objective_config import ExampleLengths
from data.objectives import documents, noise, two_sides
from data.objectives.documents import Side, Texts
from data.objectives.symbols import Symbols
from tests.data.objectives.samples import SYMBOLS, docstring_arrays, make_row, shows


def _texts(tokens, segment_ids) -> Texts:
    return documents.texts_of(make_row(tokens, segment_ids), _nothing_special())


def _nothing_special() -> Symbols:
    return SYMBOLS._replace(is_special=np.zeros_like(SYMBOLS.is_special))


def test_content_is_what_the_docstring_shows():
    before, after = docstring_arrays(documents.texts_of)
    symbols = SYMBOLS._replace(is_special=np.arange(SYMBOLS.vocab_size) < 4)
    texts = documents.texts_of(make_row(before["tokens"], before["segment_ids"]), symbols)
    assert {name: values.tolist() for name, values in texts._asdict().items()} == after


def test_joining_is_what_the_docstring_shows():
    before, after = docstring_arrays(documents.join_last)
    texts = documents.join_last(_texts(before["tokens"], before["segment_ids"]), at_most=2)
    assert {name: values.tolist() for name, values in texts._asdict().items()} == after


def test_positions_are_what_the_docstring_shows():
    before, after = docstring_arrays(documents.positions_of)
    found = documents.positions_of(np.array(before["segment_ids"]))
    assert found.tolist() == after["positions"]


def test_insertion_is_what_the_docstring_shows():
    before, after = docstring_arrays(documents.inserted)
    arrays = {name: np.array(values) for name, values in before.items()}
    side = Side(arrays["side tokens"], arrays["side segments"])
    found = documents.inserted(side, arrays["places"], arrays["tokens"], arrays["segments"])
    assert found.tokens.tolist() == after["side tokens"]
    assert found.segment_ids.tolist() == after["side segments"]


def test_two_sides_are_what_the_docstring_shows():
    before, after = docstring_arrays(two_sides.two_sided)
    arrays = {name: np.array(values, np.int32) for name, values in before.items()}
    encoder = Side(arrays["encoder"], arrays["encoder segments"])
    targets = Side(arrays["targets"], arrays["targets' segments"])
    lengths = ExampleLengths(0, 0, length=5, encoder_length=6)
    assert shows(two_sides.two_sided(encoder, targets, np.array([1, 4]), lengths), after)


def test_split_ends_are_what_the_docstring_shows():
    before, after = docstring_arrays(two_sides.split_ends)
    texts = _texts(before["tokens"], before["segment_ids"])
    _assert_sides(two_sides.split_ends(texts, np.array(before["amounts"])), after)


def test_replaced_spans_are_what_the_docstring_shows():
    before, after = docstring_arrays(noise.replace_spans)
    texts = _texts(before["tokens"], before["segment_ids"])
    is_noise = np.array(before["is_noise"], bool)
    _assert_sides(noise.replace_spans(texts, is_noise, SYMBOLS), after)


def _assert_sides(sides: tuple[Side, Side], after: dict) -> None:
    encoder, targets = sides
    assert encoder.tokens.tolist() == after["encoder"]
    assert encoder.segment_ids.tolist() == after["encoder segments"]
    assert targets.tokens.tolist() == after["targets"]
    assert targets.segment_ids.tolist() == after["targets' segments"]


@pytest.mark.parametrize("at_most", [0, 1])
def test_all_texts_become_one(at_most):
    texts = documents.join_last(_texts([7, 8, 9], [2, 3, 4]), at_most)
    assert texts.segments.tolist() == [2] and texts.sizes.tolist() == [3]
