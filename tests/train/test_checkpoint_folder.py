"""Which steps stay, and how steps leave the folder."""

import pytest

from train.checkpoint_folder import committed_steps, kept_steps, put_aside, remove_step

STEPS = [0, 5, 10, 15, 20]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"keep": 2}, {15, 20}),
        ({"keep": 9}, {0, 5, 10, 15, 20}),
        ({"keep": 0}, set()),
        ({"keep": 1, "keep_every": 10}, {0, 10, 20}),
        ({"keep": 1, "keep_best": 1}, {10, 20}),
        ({"keep": 1, "keep_best": 2}, {5, 10, 20}),
        ({"keep": 0, "keep_best": 9}, {5, 10, 15}),
    ],
)
def test_the_keep_rules(rules, expected):
    scores = {5: 3.0, 10: 3.0, 15: 4.0}
    assert kept_steps(STEPS, scores, **rules) == expected


def test_only_numbers_as_we_write_them_are_steps(tmp_path):
    for name in ("0", "12", "7", "007", "saving-3", "quarantine", "²", "1.orbax-checkpoint-tmp"):
        (tmp_path / name).mkdir()
    assert committed_steps(tmp_path) == [0, 7, 12]
    assert committed_steps(tmp_path / "none") == []


def test_what_is_put_aside_takes_a_free_name(tmp_path):
    for _ in range(3):
        (tmp_path / "4").mkdir()
        put_aside(tmp_path, 4)
    assert committed_steps(tmp_path) == []
    assert {path.name for path in (tmp_path / "quarantine").iterdir()} == {"4", "4.1", "4.2"}


def test_a_removed_step_leaves_nothing(tmp_path):
    (tmp_path / "4" / "state").mkdir(parents=True)
    remove_step(tmp_path, 4)
    assert list(tmp_path.iterdir()) == []
