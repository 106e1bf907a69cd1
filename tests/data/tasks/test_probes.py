"""Probes ask what they say: the answer follows from the words, and nothing else gives it away."""

import numpy as np
import pytest

from data.tasks import probes
from data.tasks.probes import WORDS

PROBES = [probes.copy, probes.reverse, probes.induction, probes.mapping]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
def test_equal_seeds_make_equal_examples_and_fewer_are_the_first_of_more(probe):
    records = probe(seed=4, count=20)
    assert records == probe(seed=4, count=20)
    assert records[:7] == probe(seed=4, count=7)
    assert records != probe(seed=5, count=20)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
def test_the_answers_place_among_the_choices_tells_nothing(probe):
    records = probe(count=400)
    places = np.array([record["choices"].index(record["target"]) for record in records])
    # 100 expected at each of four places, standard deviation 9.
    assert all(abs(np.sum(places == place) - 100) < 40 for place in range(4))


@pytest.mark.parametrize(
    ("probe", "rule"), [(probes.copy, lambda words: words), (probes.reverse, lambda w: w[::-1])]
)
def test_copy_and_reverse_offer_orders_of_the_words_both_rules_among_them(probe, rule):
    for record in probe(count=50):
        words = record["input"].split()
        assert len(set(words)) == 3
        assert record["target"].split() == rule(words)
        assert {" ".join(words), " ".join(words[::-1])} <= set(record["choices"])
        assert len(set(record["choices"])) == 4
        assert all(sorted(choice.split()) == sorted(words) for choice in record["choices"])


def test_induction_asks_for_what_followed_the_last_word_before():
    for record in probes.induction(count=50):
        *words, last = record["input"].split()
        assert record["target"] == words[words.index(last) + 1]
        assert sorted(record["choices"]) == sorted(words)


@pytest.mark.parametrize("probe", PROBES[:3], ids=lambda probe: probe.__name__)
def test_shots_follow_the_same_rule_with_other_words(probe):
    rules = {
        probes.copy: lambda words: words,
        probes.reverse: lambda words: words[::-1],
        probes.induction: lambda words: [words[words.index(words[-1]) + 1]],
    }
    for record in probe(count=20):
        assert len({shot["input"] for shot in record["shots"]}) > 50
        for shot in record["shots"]:
            words = shot["input"].split()
            assert shot["target"].split() == rules[probe](words)
            assert not set(words) & set(record["input"].split())


def test_mapping_is_answered_by_its_shots_and_by_nothing_else():
    records = probes.mapping(count=200, num_pairs=4)
    seen = {1: 0, 4: 0, 16: 0}
    for record in records:
        pairs = {(shot["input"], shot["target"]) for shot in record["shots"]}
        assert len(pairs) <= 4 and len(dict(pairs)) == len(pairs)  # one answer for each word
        assert dict(pairs).get(record["input"], record["target"]) == record["target"]
        assert not set(record["choices"]) & {word for word, _ in pairs}
        for count in seen:
            seen[count] += record["input"] in {s["input"] for s in record["shots"][:count]}
    for count, number in seen.items():
        expected = 200 * (1 - (3 / 4) ** count)
        assert abs(number - expected) < 35  # five standard deviations at most


def test_words_are_different():
    assert len(set(WORDS)) == len(WORDS)
