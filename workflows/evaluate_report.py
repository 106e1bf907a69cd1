"""What `isoflop evaluate` found: as JSON, as text and as curves."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from inference.few_shot import TaskScores
from inference.few_shot_loss import PlaceLoss, RepeatedLoss
from report.pictures.repeats import Repeated
from report.pictures.shots import Curve

_WITH_ERROR = ("first", "second", "after_other", "gain")


def record_of(
    scores: Sequence[TaskScores], repeats: Sequence[RepeatedLoss], place: PlaceLoss | None
) -> dict[str, Any]:
    """As plain JSON values: tasks, repeated, by_place (null where not measured)."""
    tasks = []
    for one in scores:
        points = []
        for point in one.points:
            estimates = {name: e._asdict() for name, e in point.estimates.items()}
            points.append(asdict(point) | {"estimates": estimates})
        tasks.append(asdict(one) | {"points": points})
    return {
        "tasks": tasks,
        "repeated": [_with_errors(one, *_WITH_ERROR) for one in repeats],
        "by_place": None if place is None else _with_errors(place, "score"),
    }


def curve_of(scores: TaskScores) -> Curve:
    """A task's own score for the picture."""
    estimates = [point.estimates[scores.measure] for point in scores.points]
    return Curve(
        name=scores.task,
        measure=scores.measure,
        shots=[point.num_shots for point in scores.points],
        mean_shots=[point.mean_shots for point in scores.points],
        scores=[estimate.value for estimate in estimates],
        errors=[estimate.standard_error for estimate in estimates],
        chances=[estimate.chance for estimate in estimates],
    )


def panel_of(loss: RepeatedLoss) -> Repeated:
    """A kind of repeated sequence for the picture."""
    return Repeated(name=loss.kind, by_place=loss.by_place, other_by_place=loss.other_by_place)


def describe_task(scores: TaskScores) -> str:
    """A table: a row for each measure, a column for each number of shots."""
    points = scores.points
    lines = [
        f"{scores.task}: {scores.description} ({points[0].num_examples} examples)",
        f"  {'shots':24}"
        + "".join(f"{point.num_shots:>16}" for point in points)
        + f"{'chance':>10}",
    ]
    if any(point.num_cut for point in points):
        cells = "".join(f"{point.mean_shots:>16.1f}" for point in points)
        lines.append(f"  {'that fit, on average':24}{cells}")
        cells = "".join(f"{point.num_cut:>16}" for point in points)
        lines.append(f"  {'examples with fewer':24}{cells}")
    for measure in points[0].estimates:
        found = [point.estimates[measure] for point in points]
        cells = "".join(f"{f'{e.value:.3f} ± {e.standard_error:.3f}':>16}" for e in found)
        chance = found[0].chance
        shown = "" if chance is None else f"{chance:.3f}"
        lines.append(f"  {measure:24}{cells}{shown:>10}")
    return "\n".join([*lines, ""])


def describe_repeats(repeats: Sequence[RepeatedLoss], place: PlaceLoss | None) -> list[str]:
    """A table of the repeats and a line on the loss by place; nothing where not measured."""
    if place is None:
        return []
    titles = ("first copy", "second copy", "after another", "gain")
    lines = [
        "repeated sequences: nats a token",
        f"  {'':16}" + "".join(f"{title:>18}" for title in titles),
    ]
    for one in repeats:
        found = [getattr(one, name) for name in _WITH_ERROR]
        cells = [f"{value:.3f} ± {error:.3f}" for value, error in found]
        lines.append(f"  {one.kind:16}" + "".join(f"{cell:>18}" for cell in cells))
    value, error = place.score
    return [
        *lines,
        "",
        f"by place in running text: {place.early:.3f} nats at 10% of the context, {place.late:.3f} "
        f"at 98%: {value:+.3f} ± {error:.3f}",
        "",
    ]


def _with_errors(loss: RepeatedLoss | PlaceLoss, *pairs: str) -> dict[str, Any]:
    """As JSON, (value, standard error) by their names."""
    named = ("value", "standard_error")
    return asdict(loss) | {
        pair: dict(zip(named, getattr(loss, pair), strict=True)) for pair in pairs
    }
