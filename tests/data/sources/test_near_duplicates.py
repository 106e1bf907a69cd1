import random

from data.sources.near_duplicates import draw_held_out, near_duplicate_groups, near_duplicate_pairs


def _text(seed: int, words: int = 400) -> str:
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(10_000)}" for _ in range(words))


def test_containment_finds_a_copy_inside_a_longer_document():
    short = _text(1, words=50)
    texts = {"short": short, "long": _text(2) + " " + short + " " + _text(3), "other": _text(4)}
    [(pair, containment)] = near_duplicate_pairs(texts).items()
    assert pair == ("long", "short") and containment == 1.0


def test_groups_chain_and_keep_strangers_apart():
    a, b, c = _text(1), _text(2), _text(3)
    texts = {"1": a + " " + b, "2": b + " " + c, "3": c, "4": _text(9)}
    assert near_duplicate_groups(texts, near_duplicate_pairs(texts)) == [["1", "2", "3"], ["4"]]


def test_text_shared_by_many_documents_makes_no_duplicates():
    licence = _text(0, words=100)
    texts = {str(i): licence + " " + _text(i + 1, words=40) for i in range(30)}
    assert near_duplicate_pairs(texts) == {}


def test_the_draw_keeps_groups_whole_and_reaches_the_share():
    groups = [[f"{g}/{i}" for i in range(1 + g % 3)] for g in range(300)]
    sizes = {name: 100 + hash(name) % 50 for group in groups for name in group}
    held_out = set(draw_held_out(groups, sizes, fraction=0.05, seed=0))
    assert all(set(group) <= held_out or not set(group) & held_out for group in groups)
    assert 0.045 <= len(held_out) / len(sizes) <= 0.055
    assert held_out == set(draw_held_out(groups, sizes, fraction=0.05, seed=0))
    assert held_out != set(draw_held_out(groups, sizes, fraction=0.05, seed=1))
