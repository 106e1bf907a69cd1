"""A generator's samples, beams, ends, log-probabilities and candidates; that it compiles once; and
what it refuses."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from configs.errors import InputError
from configs.position_config import LearnedPositionConfig
from inference import beam
from inference import generate as module
from inference.generate import TextGenerator
from inference.generation import Beams
from inference.sampling import Sampling
from tests.inference.conftest import Sample, assert_alike
from tests.model.samples import random_params

GREEDY = Sampling(temperature=0.0)
PROMPTS = ["def add(", "x"]


@pytest.fixture(scope="module")
def sample(sample) -> Sample:
    """One layer: what several do is compared elsewhere."""
    config = replace(sample.config, num_layers=1)
    return Sample(config, random_params(config), sample.tokenizer)


@pytest.fixture(scope="module")
def generator(sample) -> TextGenerator:
    return TextGenerator(*sample)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    x = logits.astype(np.float64)
    return x - np.log(np.exp(x - x.max()).sum(-1, keepdims=True)) - x.max()


def test_log_probabilities_are_the_models_own_whatever_the_sampling(sample, generator):
    hot = Sampling(temperature=1.7, top_k=40, repetition_penalty=1.3, seed=2)
    (one,) = generator.generate(PROMPTS[:1], max_tokens=10, sampling=hot)
    read = [sample.tokenizer.bos_id, *sample.tokenizer.encode(PROMPTS[0])]
    for number, (token, given) in enumerate(zip(one.tokens, one.log_probabilities, strict=True)):
        logits = sample.logits([*read, *one.tokens[:number]])[-1]
        # Cached and whole, fp32 sums in another order: 1e-5 at logits of a few units.
        assert given == pytest.approx(log_softmax(logits)[token], abs=1e-5)
    assert one.score == pytest.approx(sum(one.log_probabilities), abs=1e-5)


def test_samples_of_a_prompt_differ_and_do_not_depend_on_the_batch(generator):
    warm = Sampling(temperature=1.0, seed=3)
    found = generator.generate(PROMPTS, max_tokens=8, sampling=warm, num_samples=3)
    assert [one.prompt for one in found] == [p for p in PROMPTS for _ in range(3)]
    assert len({one.tokens for one in found[:3]}) == 3
    assert_alike(found[0], generator.generate(PROMPTS[:1], max_tokens=8, sampling=warm)[0])
    more = generator.generate([*PROMPTS, "y = "], max_tokens=8, sampling=warm, num_samples=3)
    for one, other in zip(found, more, strict=False):
        assert_alike(one, other)


def best_texts(sample: Sample, prompt: list[int], length: int, width: int) -> list[list[int]]:
    """Beams without an end, one by one, over the plain forward pass."""
    beams = [(0.0, list[int]())]
    for _ in range(length):
        longer = []
        for total, text in beams:
            log_p = log_softmax(sample.logits([*prompt, *text])[-1])
            likely = np.argsort(-log_p)[:width]
            longer += [(total + log_p[token], [*text, int(token)]) for token in likely]
        beams = sorted(longer, reverse=True)[:width]
    return [text for _, text in beams]


def test_beams_are_the_best_of_all_continuations(sample, generator):
    prompt = [sample.tokenizer.bos_id, *sample.tokenizer.encode("x")]
    expected = best_texts(sample, prompt, 4, 3)
    found = generator.generate_tokens(
        [prompt], max_tokens=4, num_samples=3, beams=Beams(number=3, length_penalty=0.0)
    )
    assert [list(one.tokens) for one in found] == expected
    assert found[0].score >= found[1].score >= found[2].score
    for one in found:
        assert one.score == pytest.approx(sum(one.log_probabilities), abs=1e-4)


def test_one_beam_is_greedy(generator):
    found = generator.generate(PROMPTS, max_tokens=8, beams=Beams(number=1, length_penalty=0.0))
    greedy = generator.generate(PROMPTS, max_tokens=8, sampling=GREEDY)
    for one, other in zip(found, greedy, strict=True):
        assert_alike(one, other)


@pytest.mark.parametrize(
    "options",
    [{"sampling": GREEDY}, pytest.param({"beams": Beams(number=2)}, marks=pytest.mark.slow)],
    ids=["greedy", "beams"],
)
def test_caches_grow_without_changing_the_text(generator, monkeypatch, options):
    expected = generator.generate(PROMPTS, max_tokens=24, **options)
    for user in (module, beam):  # a cache of few slots, that grows by 16
        monkeypatch.setattr(user, "cache_slots", lambda length: -(-length // 16) * 16)
    found = generator.generate(PROMPTS, max_tokens=24, **options)
    for one, other in zip(found, expected, strict=True):
        assert_alike(one, other)


def test_a_stop_string_ends_a_row_and_leaves_the_others_going(generator):
    whole = generator.generate(PROMPTS, max_tokens=24, sampling=GREEDY)
    stop = whole[0].text[6:9]
    cut, other = generator.generate(PROMPTS, max_tokens=24, sampling=GREEDY, stop=(stop,))
    assert cut.text == whole[0].text[: whole[0].text.index(stop)] and cut.finished
    assert cut.tokens == whole[0].tokens[: len(cut.tokens)] and len(cut.tokens) < 24
    assert len(cut.log_probabilities) == len(cut.tokens)
    if stop not in whole[1].text:
        assert_alike(other, whole[1])


def test_several_rows_stream_their_own_text(generator):
    pieces: dict[int, str] = {}

    def on_text(row: int, text: str) -> None:
        pieces[row] = pieces.get(row, "") + text

    warm = Sampling(temperature=1.0)
    found = generator.generate(
        PROMPTS, max_tokens=12, sampling=warm, num_samples=2, on_text=on_text
    )
    assert [pieces.get(row, "") for row in range(4)] == [one.text for one in found]


def test_candidates_are_the_distribution_before_and_after_each_stage(sample, generator):
    sampling = Sampling(temperature=0.5, top_k=3, seed=1)
    (one,) = generator.generate(["x"], max_tokens=5, sampling=sampling, num_candidates=6)
    read = [sample.tokenizer.bos_id, *sample.tokenizer.encode("x")]
    assert len(one.steps) == 5
    for number, step in enumerate(one.steps):
        log_p = log_softmax(sample.logits([*read, *one.tokens[:number]])[-1])
        squared = np.exp(2 * log_p) / np.exp(2 * log_p).sum()
        best = np.argsort(-log_p)
        top = squared[best[:3]].sum()
        assert [c.token for c in step.candidates[:6]] == best[:6].tolist()
        assert step.chosen.token == one.tokens[number]
        for rank, c in enumerate(step.candidates[:6]):
            assert c.model == pytest.approx(np.exp(log_p[c.token]), rel=1e-4)
            assert c.scaled == pytest.approx(squared[c.token], rel=1e-4)
            assert c.kept == pytest.approx(squared[c.token] / top if rank < 3 else 0, rel=1e-4)
        assert step.others == pytest.approx(1 - np.exp(log_p[best[:6]]).sum(), abs=1e-5)


def test_greedy_is_shown_as_certain(generator):
    (one,) = generator.generate(["x"], max_tokens=3, sampling=GREEDY, num_candidates=2)
    for step in one.steps:
        assert [c.kept for c in step.candidates] == [1.0, 0.0]
        assert step.candidates[0].is_chosen


def compilations(call: Any) -> list[str]:
    """Names of what is compiled while `call` runs."""
    compiled: list[str] = []

    def listen(event: str, duration_secs: float, **details: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(details.get("fun_name", event))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        call()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return compiled


def test_a_second_call_compiles_nothing_whatever_its_settings_and_lengths(sample):
    def call(prompts: list[str], max_tokens: int, *, beams: int, **settings: Any) -> None:
        generator = TextGenerator(*sample)
        sampling = Sampling(**settings)
        generator.generate(prompts, max_tokens=max_tokens, sampling=sampling, num_samples=2)
        generator.generate(
            prompts,
            max_tokens=max_tokens,
            beams=Beams(number=beams, length_penalty=settings["top_p"]),
        )

    call(["x", "def f("], 11, beams=2, temperature=1.0, top_p=0.7, seed=1)
    again = compilations(
        lambda: call(["class Point:", "yz"], 13, beams=2, temperature=0.4, top_p=0.9, seed=9)
    )
    assert again == []
    other = compilations(lambda: call(["x", "y"], 11, beams=3, temperature=1.0, top_p=0.7))
    assert len(other) > 0  # the listener hears what is compiled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": [""]}, "^prompt: got '', expected some text"),
        ({"prompts": ["x", ""]}, "^prompt: got ''"),
        ({"sampling": Sampling(top_k=301)}, "^top_k: got 301, expected at most 300"),
        ({"num_samples": 0}, "^num_samples: got 0"),
        ({"num_samples": 2, "sampling": GREEDY}, "^num_samples: got 2, expected 1 at temp"),
        ({"num_samples": 3, "beams": Beams(number=2)}, "^num_samples: got 3, expected at most the"),
        ({"beams": Beams(number=2), "sampling": Sampling(temperature=0.5)}, "^temperature: got"),
        ({"beams": Beams(number=301)}, "^beams: got 301"),
        ({"num_candidates": 301}, "^show_probabilities: got 301"),
        ({"num_candidates": -1}, "^show_probabilities: got -1"),
        ({"num_candidates": 1, "beams": Beams(number=2)}, "^show_probabilities: got 1"),
        ({"stop": ("",)}, "^stop: got ''"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_compiled(generator, options, message):
    def call() -> None:
        with pytest.raises(InputError, match=message):
            generator.generate(**({"prompts": ["x"], "max_tokens": 3} | options))

    assert compilations(call) == []


@pytest.mark.parametrize("field", ["number", "length_penalty"])
def test_bad_beams_name_the_field(field):
    with pytest.raises(InputError, match="^(beams|length_penalty): got"):
        Beams(**{field: {"number": 0, "length_penalty": float("nan")}[field]})


def test_prompts_longer_than_the_context_are_refused(sample):
    bounded = TextGenerator(*sample, context=4)
    with pytest.raises(InputError, match="^prompt: got '[0-9]+ tokens', expected 4 at most"):
        bounded.generate(["漢" * 3], max_tokens=1)
    position = LearnedPositionConfig(num_positions=3)
    config = replace(sample.config, position=position, num_layers=1)
    learned = TextGenerator(config, random_params(config), sample.tokenizer, context=64)
    with pytest.raises(InputError, match="^prompt: got '[0-9]+ tokens', expected 3 at most"):
        learned.generate(["漢"], max_tokens=1)


def test_ids_are_taken_as_they_are(sample, generator):
    t = sample.tokenizer
    (text,) = generator.generate(["x"], max_tokens=6, sampling=GREEDY)
    ids = [t.bos_id, *t.encode("x")]
    (tokens,) = generator.generate_tokens([ids], max_tokens=6, sampling=GREEDY)
    assert tokens.tokens == text.tokens and tokens.prompt == tuple(ids)
    assert len(generator.generate_tokens([[t.bos_id]], max_tokens=2, sampling=GREEDY)) == 1
    for bad, message in (([], "at least one token"), ([300], "ids from 0 to 299"), ([-1], "ids")):
        with pytest.raises(InputError, match=f"^prompt: got .*{message}"):
            generator.generate_tokens([bad], max_tokens=2)
