"""Scores are those of the plain forward pass."""

import math
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.errors import InputError
from configs.model_config import MaskedLMHeadConfig, NoHeadConfig
from configs.position_config import LearnedPositionConfig
from inference import score_rows
from inference.scoring import Score, Scorer
from model.build import build_model, forward
from tests.inference.conftest import Sample
from tests.model.samples import QUICK_COMPILE, random_params, tiny_model

TEXT = "def add(x, y):\n    return x + y  # é漢🎉\n"


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly():
    """Compiles the programs in half the time."""
    with pytest.MonkeyPatch.context() as patch:
        compiled: Any = score_rows._score_tokens
        quick = jax.jit(compiled.__wrapped__, static_argnums=0, compiler_options=QUICK_COMPILE)
        patch.setattr(score_rows, "_score_tokens", quick)
        yield


def log_likelihood(sample: Sample, tokens: list[int], start: int) -> float:
    """Of tokens after the token `start`, in double precision."""
    inputs = [start, *tokens[:-1]]
    logits = sample.logits(inputs).astype(np.float64)
    normaliser = np.log(np.exp(logits).sum(-1))
    return float((logits[np.arange(len(tokens)), tokens] - normaliser).sum())


def scorer(sample: Sample, seq_len: int = 64, **options: Any) -> Scorer:
    config, params, tokenizer = sample
    return Scorer(config, params, tokenizer, seq_len=seq_len, **options)


def test_one_window_is_the_forward_pass(sample):
    tokens = sample.tokenizer.encode(TEXT)
    result = scorer(sample).score(TEXT)
    expected = log_likelihood(sample, tokens, sample.tokenizer.bos_id)
    assert result.log_likelihood == pytest.approx(expected, rel=1e-5)
    assert result.tokens == len(tokens)
    assert result.bytes == len(TEXT.encode()) > len(TEXT)


def test_a_long_text_is_scored_window_by_window(sample):
    text, seq_len = TEXT * 20, 33
    tokens = sample.tokenizer.encode(text)
    result = scorer(sample, seq_len).score(text)
    expected, start = 0.0, sample.tokenizer.bos_id
    for begin in range(0, len(tokens), seq_len):
        window = tokens[begin : begin + seq_len]
        expected += log_likelihood(sample, window, start)
        start = window[-1]  # the next window sees the last token of this one, and no more
    assert len(tokens) > 8 * seq_len and len(tokens) % seq_len  # several batches, the last partial
    assert result.tokens == len(tokens)
    assert result.log_likelihood == pytest.approx(expected, rel=1e-5)


def test_perplexity_and_bits_per_byte_follow_from_the_log_likelihood():
    result = Score(log_likelihood=-12 * math.log(2), tokens=4, bytes=6, window=8, stride=8)
    assert result.perplexity == pytest.approx(2**3)
    assert result.bits_per_byte == pytest.approx(2)


def test_a_uniform_model_is_as_perplexed_as_its_vocabulary_is_large(sample):
    zeros = jax.tree.map(jnp.zeros_like, sample.params)
    result = scorer(sample._replace(params=zeros)).score(TEXT)
    assert result.perplexity == pytest.approx(sample.config.vocab_size, rel=1e-4)
    bits = result.tokens * math.log2(sample.config.vocab_size) / len(TEXT.encode())
    assert result.bits_per_byte == pytest.approx(bits, rel=1e-5)


def test_no_text_is_refused(sample):
    with pytest.raises(InputError, match="^text: "):
        scorer(sample).score("")


def test_windows_that_overlap_give_each_token_its_longest_context(sample):
    text, window, stride = TEXT * 6, 24, 9
    tokens = sample.tokenizer.encode(text)
    sequence = [sample.tokenizer.bos_id, *tokens]
    expected = 0.0
    for place in range(1, len(sequence)):
        begin = max(0, -(-(place - window) // stride) * stride)  # of the first window that has it
        assert begin == 0 or place - begin > window - stride
        logits_V = sample.logits(sequence[begin:place])[-1].astype(np.float64)
        expected += logits_V[sequence[place]] - np.log(np.exp(logits_V).sum())
    result = scorer(sample).score(text, window=window, stride=stride)
    assert (result.window, result.stride, result.tokens) == (window, stride, len(tokens))
    assert len(tokens) > 4 * window
    assert result.log_likelihood == pytest.approx(expected, rel=1e-5)
    disjoint = scorer(sample).score(text, window=window)
    assert abs(disjoint.log_likelihood - expected) > 0.1


def test_texts_scored_together_score_as_alone(sample):
    texts = ["x", TEXT * 9, TEXT, "class Point:\n"]
    together = scorer(sample, 32).scores(texts, stride=11)
    for text, result in zip(texts, together, strict=True):
        alone = scorer(sample, 32).score(text, stride=11)
        assert result.log_likelihood == pytest.approx(alone.log_likelihood, rel=1e-5)
        assert (result.tokens, result.bytes) == (alone.tokens, alone.bytes)


PAIRS = [
    ("def add(x, y): ", "pass"),
    ("", "class Point:"),
    ("class", " Point"),
]


def test_a_continuation_is_scored_after_its_context(sample):
    t = sample.tokenizer
    results = scorer(sample).log_likelihoods(PAIRS)
    for (context, continuation), result in zip(PAIRS, results, strict=True):
        moved = context[len(context.rstrip()) :] + continuation
        head, tail = t.encode(context.rstrip()), t.encode(moved)
        assert t.encode(context + continuation) == head + tail  # no token spans the two here
        both = log_likelihood(sample, head + tail, t.bos_id)
        expected = both - (log_likelihood(sample, head, t.bos_id) if head else 0.0)
        assert result.log_likelihood == pytest.approx(expected, abs=1e-4)
        assert (result.tokens, result.bytes) == (len(tail), len(continuation.encode()))


def test_a_token_that_spans_context_and_continuation_is_cut(sample):
    t = sample.tokenizer
    head, tail = t.encode("def add(x, y):"), t.encode("\n    return x")
    assert t.encode("def add(x, y):\n    return x") != head + tail  # `):` and a line's end are one
    (result,) = scorer(sample).log_likelihoods([("def add(x, y):", "\n    return x")])
    both = log_likelihood(sample, head + tail, t.bos_id)
    expected = both - log_likelihood(sample, head, t.bos_id)
    assert result.log_likelihood == pytest.approx(expected, abs=1e-4)


def test_greedy_continuations_are_told_from_others(sample):
    t = sample.tokenizer
    context = [t.bos_id, *t.encode("def add(x")]
    written = list(context)
    for _ in range(4):
        written.append(int(sample.logits(written)[-1].argmax()))
    greedy = written[len(context) :]
    other = [*greedy[:2], (greedy[2] + 1) % t.vocab_size, greedy[3]]
    scored = scorer(sample).score_tokens([(context, greedy), (context, other)])
    assert [score.is_greedy for score in scored] == [True, False]
    assert scored[0].log_likelihood > scored[1].log_likelihood


def test_a_context_too_long_loses_its_begin(sample):
    t, seq_len = sample.tokenizer, 32
    context, continuation = t.encode(TEXT * 4), t.encode(" return x")
    (score,) = scorer(sample, seq_len).score_tokens([([t.bos_id, *context], continuation)])
    kept = context[len(continuation) - seq_len - 1 :]
    assert len(kept) < len(context)
    both = log_likelihood(sample, [*kept[1:], *continuation], kept[0])
    expected = both - log_likelihood(sample, kept[1:], kept[0])
    assert score.log_likelihood == pytest.approx(expected, rel=1e-4)


def test_a_prefix_lm_reads_the_context_both_ways(sample):
    t = sample.tokenizer
    head, tail = [t.bos_id, *t.encode("def add(x, y):")], t.encode("return x")
    inputs = [*head, *tail][:-1]
    prefix = jnp.arange(len(inputs))[None] < len(head)
    log_p_LV = log_probabilities(sample, inputs, prefix=prefix.astype(jnp.int32))
    expected = log_p_LV[len(head) - 1 + np.arange(len(tail)), tail].sum()
    (both_ways,) = scorer(sample, prompt_is_prefix=True).score_tokens([(head, tail)])
    assert both_ways.log_likelihood == pytest.approx(expected, rel=1e-5)
    (one_way,) = scorer(sample).score_tokens([(head, tail)])
    assert abs(one_way.log_likelihood - expected) > 0.01


def places(length: int, side: str = "") -> dict[str, jax.Array]:
    index = jnp.arange(length)[None]
    return {f"{side}positions": index, f"{side}segment_ids": jnp.ones_like(index)}


def log_probabilities(sample: Sample, tokens: list[int], **fields: jax.Array) -> np.ndarray:
    """[L, V] of one row by the plain forward pass."""
    run = jax.jit(partial(forward, build_model(sample.config)), compiler_options=QUICK_COMPILE)
    logits_BLV = run(sample.params, jnp.asarray([tokens]), **places(len(tokens)), **fields)
    return np.asarray(jax.nn.log_softmax(logits_BLV))[0]


@pytest.fixture(scope="module")
def encoder_decoder(symbols_tokenizer) -> Sample:
    config = tiny_model(
        architecture="encoder_decoder",
        vocab_size=symbols_tokenizer.vocab_size,
        num_layers=1,
        num_encoder_layers=1,
    )
    return Sample(config, random_params(config), symbols_tokenizer)


def test_an_encoder_reads_the_context_and_its_decoder_the_continuation(encoder_decoder):
    t = encoder_decoder.tokenizer
    context, answer = "import <extra_id_0>", "<extra_id_0> os"
    (result,) = scorer(encoder_decoder).log_likelihoods([(context, answer)])
    read = [*t.encode("import "), t.symbols.id_of("<extra_id_0>"), t.eos_id]
    written = [t.symbols.id_of("<extra_id_0>"), *t.encode(" os")]
    encoder = {"encoder_tokens": jnp.asarray([read]), **places(len(read), "encoder_")}
    log_p_LV = log_probabilities(encoder_decoder, [t.bos_id, *written[:-1]], **encoder)
    expected = log_p_LV[np.arange(len(written)), written].sum()
    assert result.log_likelihood == pytest.approx(expected, rel=1e-5)
    assert result.tokens == len(written)


def test_an_encoder_decoder_gives_no_probability_without_a_context(encoder_decoder):
    with pytest.raises(InputError, match="^model.architecture: got 'encoder_decoder'"):
        scorer(encoder_decoder).score(TEXT)


@pytest.fixture(scope="module")
def encoder(symbols_tokenizer) -> Sample:
    config = tiny_model(
        architecture="encoder_only",
        vocab_size=symbols_tokenizer.vocab_size,
        num_layers=1,
        head=MaskedLMHeadConfig(),
    )
    return Sample(config, random_params(config), symbols_tokenizer)


@pytest.mark.parametrize("seq_len", [64, 13])
def test_an_encoders_pseudo_log_likelihood_masks_one_token_at_a_time(encoder, seq_len):
    t, text = encoder.tokenizer, "def add(x, y):\n    return x"
    tokens, mask = t.encode(text), t.symbols.id_of("<mask>")
    room, expected = seq_len - 2, 0.0  # <s> and </s> stand around every window
    for begin in range(0, len(tokens), room):
        window = tokens[begin : begin + room]
        for place, token in enumerate(window):
            row = [t.bos_id, *window[:place], mask, *window[place + 1 :], t.eos_id]
            logits_V = encoder.logits(row)[place + 1].astype(np.float64)
            expected += logits_V[token] - np.log(np.exp(logits_V).sum())
    assert (len(tokens) > room) == (seq_len == 13)
    result = scorer(encoder, seq_len).score(text)
    assert result.measure == "pseudo_log_likelihood"
    assert result.tokens == len(tokens)
    assert result.log_likelihood == pytest.approx(expected, rel=1e-5)


def test_an_encoders_overlapping_windows_count_every_token_once(encoder):
    text = "def add(x, y):\n    return x" * 3
    counted = []
    advance = lambda done, of: counted.append((done, of))  # noqa: E731
    (result,) = scorer(encoder, 16).scores([text], stride=5, advance=advance)
    assert sum(done for done, _ in counted) == result.tokens == counted[0][1]


def test_an_encoder_continues_nothing(encoder):
    with pytest.raises(InputError, match="^model.architecture: got 'encoder_only'"):
        scorer(encoder).log_likelihoods([("a", "b")])


def test_a_model_without_logits_scores_nothing(sample):
    config = tiny_model(head=NoHeadConfig(), vocab_size=sample.config.vocab_size)
    with pytest.raises(InputError, match="^model.head.kind: got 'none'"):
        scorer(sample._replace(config=config))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": -1}, "^window: got -1, expected 1 or more"),
        ({"stride": 65}, "^stride: got 65, expected 1 to 64"),
        ({"window": 8, "stride": -2}, "^stride: got -2, expected 1 to 8"),
    ],
)
def test_windows_out_of_range_are_refused(sample, options, message):
    with pytest.raises(InputError, match=message):
        scorer(sample).score(TEXT, **options)


def test_a_window_ends_where_a_table_of_positions_does(sample):
    config = tiny_model(
        vocab_size=sample.config.vocab_size,
        num_layers=1,
        position=LearnedPositionConfig(num_positions=48),
    )
    limited = scorer(Sample(config, random_params(config), sample.tokenizer), 64)
    assert limited.score(TEXT * 4).window == 48
    with pytest.raises(InputError, match="^window: got 49, expected .* 48 at most"):
        limited.score(TEXT, window=49)


def test_continuations_without_a_token_or_longer_than_a_row_are_refused(sample):
    with pytest.raises(InputError, match="^continuation: "):
        scorer(sample).log_likelihoods([("a", "")])
    with pytest.raises(InputError, match="^continuation: got .* expected 64 at most"):
        scorer(sample).log_likelihoods([("a", TEXT * 9)])


def test_rows_of_about_one_shape_share_a_program(sample):
    first, program = scorer(sample), cast(Any, score_rows._score_tokens)
    first.scores([TEXT, TEXT[:20]])
    programs = program._cache_size()
    assert programs > 0
    scorer(sample).scores([TEXT[5:], TEXT[:30]])
    first.log_likelihoods([(TEXT[:9], TEXT[9:40])] * 2)
    assert program._cache_size() == programs
