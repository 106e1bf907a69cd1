"""Near-duplicate groups by shingle containment, and a held-out draw that keeps groups whole.

A shingle is a run of `SHINGLE_WORDS` consecutive words (`\\w+`) of a document. The containment of
two documents is the fraction of the smaller one's distinct shingles that the larger one has too
(Broder 1997, "On the resemblance and containment of documents"). Two documents whose containment
reaches `CONTAINMENT` are near duplicates; groups are the connected components. A document that is
held out while a near duplicate is trained on would be scored for memory, not for prediction.

Shingles common to more than `MAX_SHARED` documents (licence headers, idioms) count for nobody.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

SHINGLE_WORDS = 6
CONTAINMENT = 0.2
MAX_SHARED = 20

_WORD = re.compile(r"\w+")


def shingles(text: str) -> frozenset[int]:
    """The hashes of all runs of `SHINGLE_WORDS` words; empty for a shorter text.

    Hashes are of this process only (Python salts them): compare, never store.
    """
    words = _WORD.findall(text)
    runs = zip(*(words[i:] for i in range(SHINGLE_WORDS)), strict=False)
    return frozenset(map(hash, runs))


def near_duplicate_pairs(texts: Mapping[str, str]) -> dict[tuple[str, str], float]:
    """All pairs of documents whose containment reaches `CONTAINMENT`.

    Args:
        texts: document id -> text.

    Returns:
        (id, id) in sorted order -> containment, from `CONTAINMENT` to 1.
    """
    documents_of = defaultdict(list)
    for name in sorted(texts):
        for shingle in shingles(texts[name]):
            documents_of[shingle].append(name)
    sizes: Counter[str] = Counter()
    shared: Counter[tuple[str, str]] = Counter()
    for names in documents_of.values():
        if len(names) > MAX_SHARED:
            continue
        sizes.update(names)
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                shared[first, second] += 1
    pairs = {pair: count / min(sizes[pair[0]], sizes[pair[1]]) for pair, count in shared.items()}
    return {pair: value for pair, value in pairs.items() if value >= CONTAINMENT}


def near_duplicate_groups(
    names: Iterable[str], pairs: Iterable[tuple[str, str]]
) -> list[list[str]]:
    """Document ids in groups that no near-duplicate pair crosses, all sorted.

    Example: with a.py near b.py and b.py near c.py, and d.py alone,
    the groups are [["a.py", "b.py", "c.py"], ["d.py"]].
    """
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for first, second in pairs:
        parent[root(first)] = root(second)
    groups = defaultdict(list)
    for name in sorted(parent):
        groups[root(name)].append(name)
    return sorted(groups.values())


def draw_held_out(
    groups: Sequence[Sequence[str]], sizes: Mapping[str, int], *, fraction: float, seed: int
) -> list[str]:
    """Draws whole groups at random until `fraction` of the files and of the bytes is held out.

    Groups are visited in a random order; one that would take the files or the bytes more than a
    tenth over the goal is passed over, so a group larger than that stays in training.

    Args:
        groups: near-duplicate groups of document ids.
        sizes: document id -> UTF-8 bytes.
        fraction: the goal, of files and of bytes, e.g. 0.05.
        seed: decides the order.

    Returns:
        The held-out ids, sorted.
    """
    order = [list(group) for group in groups]
    random.Random(seed).shuffle(order)
    goal_files, goal_bytes = fraction * len(sizes), fraction * sum(sizes.values())
    held_out: list[str] = []
    held_bytes = 0
    for group in order:
        group_bytes = sum(sizes[name] for name in group)
        fits = (
            len(held_out) + len(group) <= 1.1 * goal_files
            and held_bytes + group_bytes <= 1.1 * goal_bytes
        )
        if fits:
            held_out += group
            held_bytes += group_bytes
        if len(held_out) >= goal_files and held_bytes >= goal_bytes:
            break
    return sorted(held_out)
