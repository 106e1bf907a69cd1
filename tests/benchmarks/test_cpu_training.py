"""What the comparison with PyTorch compares: the same parameters, arrays and steps."""

from dataclasses import replace

import pytest

from benchmarks.cpu_training import (
    Side,
    check_same_model,
    make_sides,
    paired_ratios,
    record_of,
    run_rounds,
    table_of,
)
from benchmarks.cpu_training_cases import CASES, IGNORED, PEERS, TrainingCase
from planner.accounting import total_params

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_sides_have_the_same_parameters(case: TrainingCase):
    with torch.device("meta"):
        theirs = sum(p.numel() for p in case.peer().parameters())
    assert theirs == total_params(case.config.model)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_sides_read_the_same_places(case: TrainingCase):
    batch, inputs = case.batch(), case.peer_inputs(case.batch())
    labels = inputs.pop("labels")
    assert sum(array.size for array in inputs.values()) == case.places
    assert ((labels != IGNORED) == (batch.loss_weights > 0)).all()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_small_case_runs_and_learns_on_every_side(case: TrainingCase):
    m = case.config.model
    model = replace(m, num_layers=1, num_encoder_layers=min(m.num_encoder_layers, 1))
    config = replace(
        case.config,
        model=model,
        data=replace(case.config.data, seq_len=32),
        training=replace(case.config.training, batch_size=2),
    )
    small = replace(case, config=config, peer=lambda: PEERS[m.architecture](config))
    sides = make_sides(small, with_compiled=False)
    run_rounds(sides, 3)
    check_same_model(small, sides)
    record = record_of(small, sides)
    assert set(record["ratios"]) == {"theirs float32", "theirs bfloat16"}
    assert table_of([record], with_compiled=False).row_count == 2


def test_every_side_has_a_turn_a_round_and_none_always_follows_the_same():
    order: list[str] = []

    def side(name: str) -> Side:
        def step() -> float:
            order.append(name)
            return 0.0

        return Side(name, step, 1, 0.0, [], [])

    sides = [side(name) for name in "abc"]
    run_rounds(sides, 3)
    assert order == list("abcbcacab")
    assert [len(side.seconds) for side in sides] == [3, 3, 3]


def test_a_ratio_is_of_steps_of_the_same_round():
    # The second round was slow for both, and says nothing.
    assert paired_ratios([1.0, 10.0, 1.0], [2.0, 20.0, 3.0]) == (2.0, 2.0, 3.0)


def test_sides_that_differ_or_do_not_learn_are_refused():
    def side(num_params: int, losses: list[float]) -> Side:
        return Side("one", lambda: 0.0, num_params, 0.0, losses, [])

    with pytest.raises(ValueError, match=r"\['one: 1', 'one: 2'\] parameters"):
        check_same_model(CASES[0], [side(1, [2.0, 1.0]), side(2, [2.0, 1.0])])
    with pytest.raises(ValueError, match="get cheaper"):
        check_same_model(CASES[0], [side(1, [2.0, 2.0])])
