import lzma

import numpy as np
import pytest

from configs.errors import InputError
from data.held_out import compression_baselines, document_windows, held_out_windows


def test_windows_of_a_document_literally():
    first, second = document_windows(np.array([7, 8, 9], np.int32), 2)
    assert [f.tolist() for f in first] == [[2, 7], [7, 8], [1, 1], [0, 1], [1, 1]]
    assert [f.tolist() for f in second] == [[8, 0], [9, 0], [1, 0], [0, 0], [1, 0]]


def test_a_document_that_fills_its_windows_gets_no_empty_one():
    assert len(list(document_windows(np.arange(10, 18, dtype=np.int32), 4))) == 2


@pytest.mark.parametrize("seq_len", [1, 5, 64, 100_000])
def test_every_held_out_token_is_scored_once_and_bytes_add_up(corpus, seq_len):
    windows = held_out_windows(corpus, seq_len)
    documents = list(corpus.documents("held_out"))
    scored = windows.batch.targets[windows.batch.loss_weights > 0]
    np.testing.assert_array_equal(scored, np.concatenate([d.tokens for d in documents]))
    assert corpus.tokenizer.eos_id not in scored and corpus.tokenizer.bos_id not in scored
    assert windows.num_tokens == len(scored) == windows.batch.loss_weights.sum()
    assert windows.num_bytes == corpus.splits["held_out"].bytes == len(corpus.text("held_out"))
    assert windows.num_documents == corpus.splits["held_out"].documents
    assert all(field.shape == (len(windows.batch.inputs), seq_len) for field in windows.batch)


def test_each_document_is_read_after_bos_and_sees_no_other(corpus):
    windows = held_out_windows(corpus, 16).batch
    opens = windows.inputs == corpus.tokenizer.bos_id
    assert not opens[:, 1:].any()
    assert opens[:, 0].sum() == corpus.splits["held_out"].documents
    assert set(np.unique(windows.segment_ids)) == {0, 1}
    assert (windows.inputs[windows.segment_ids == 0] == corpus.tokenizer.pad_id).all()


def test_a_token_cap_takes_the_first_whole_documents(corpus):
    documents = list(corpus.documents("held_out"))
    cap = len(documents[0].tokens) + len(documents[1].tokens)
    for max_tokens, count in [(1, 1), (cap - 1, 1), (cap, 2), (10**9, len(documents))]:
        windows = held_out_windows(corpus, 32, max_tokens=max_tokens)
        assert windows.num_documents == count
        assert windows.num_bytes == sum(d.num_bytes for d in documents[:count])
        assert windows.num_tokens == sum(len(d.tokens) for d in documents[:count])


def test_wrong_lengths_name_the_field(corpus):
    with pytest.raises(InputError, match="^data.seq_len"):
        held_out_windows(corpus, 0)
    with pytest.raises(InputError, match="^training.eval_tokens"):
        held_out_windows(corpus, 8, max_tokens=-1)


def test_baselines_are_xz_9e_alone_and_after_the_training_text():
    rng = np.random.default_rng(0)
    held_out = rng.integers(97, 123, 4000, dtype=np.uint8).tobytes()
    baselines = compression_baselines(held_out + b"and more", held_out)
    size = len(lzma.compress(held_out, preset=9 | lzma.PRESET_EXTREME))
    assert baselines.xz_bits_per_byte == 8 * size / 4000
    assert baselines.xz_primed_bits_per_byte < 0.1 * baselines.xz_bits_per_byte
    with pytest.raises(InputError, match="^data.corpus"):
        compression_baselines(b"text", b"")
