"""Plan against actual: what was promised before step 0, and what the run measured."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from report import formatting
from report.read import Record, RunRecord, number, text

# Time, FLOPs, tokens and memory must come within a fifth of the plan. Counts that the planner
# computes exactly (parameters, steps) must be equal.
TOLERANCE = 0.2

Verdict = Literal["within", "outside", "unfinished", "unjudged"]

_FORMATS: dict[str, Callable[[float | None], str]] = {
    "count": formatting.count,
    "whole": formatting.whole,
    "flops": formatting.flops,
    "bytes": formatting.byte_size,
    "seconds": formatting.duration,
    "nats": lambda value: formatting.significant(value, 4),
}


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One quantity, planned and measured.

    Attributes:
        quantity: what it is, with its definition where there are several.
        unit: how the two numbers are written (a key of the table of formats).
        planned: the plan's number, or None.
        actual: the run's number (so far, while it trains), or None.
        difference: (actual - planned) / planned, or None where one of them is missing.
        tolerance: the largest |difference| that counts as within, or None: not judged.
        verdict: within or outside the tolerance, or a promised interval; unfinished: a total still
            growing; unjudged.
        planned_text, actual_text: the numbers as written.
        note: where the numbers come from, or what the difference is taken against.
    """

    quantity: str
    unit: str
    planned: float | None
    actual: float | None
    difference: float | None
    tolerance: float | None
    verdict: Verdict
    planned_text: str
    actual_text: str
    note: str = ""

    @property
    def difference_text(self) -> str:
        return formatting.signed_percent(self.difference)

    @property
    def verdict_text(self) -> str:
        if self.verdict == "unjudged":
            return ""
        if self.verdict == "unfinished":
            return "so far"
        if self.tolerance is None:
            return f"{self.verdict} the interval"
        if self.tolerance == 0:
            return "exact" if self.verdict == "within" else "not equal"
        return f"{self.verdict} {formatting.percent(self.tolerance, 0)}"


def comparison_rows(run: RunRecord) -> list[ComparisonRow]:
    """The rows of the table plan against actual; a row with neither number is left out."""
    rows = [*_size_rows(run), *_work_rows(run), *_time_rows(run), *_memory_rows(run)]
    rows.append(_loss_row(run))
    return [row for row in rows if row.planned is not None or row.actual is not None]


def measured(run: RunRecord, summary_key: str, metrics_key: str | None = None) -> float | None:
    """A total of the run: from summary.json, else the last logged step's (a run still going)."""
    value = number(run.summary, summary_key)
    if value is None and metrics_key is not None and run.metrics:
        value = number(run.metrics[-1], metrics_key)
    return value


def measured_step_seconds(run: RunRecord) -> float | None:
    """Seconds per step: from summary.json, else the median over the logged steps."""
    value = number(run.summary, "step_seconds")
    if value is not None:
        return value
    logged = [number(record, "step_seconds") for record in run.metrics]
    finite = [seconds for seconds in logged if seconds is not None and math.isfinite(seconds)]
    return statistics.median(finite) if finite else None


def held_out(run: RunRecord, key: str) -> float | None:
    """`nats_per_token` or `bits_per_byte`: from summary.json, else the last evaluation's."""
    value = number(run.summary, key)
    if value is None and run.evaluations:
        value = number(run.evaluations[-1], key)
    return value


def _size_rows(run: RunRecord) -> list[ComparisonRow]:
    law_params = number(run.plan, "optimum", "params")
    matmul_params = number(run.plan, "model", "matmul_params")
    shape_params = number(run.plan, "model", "params_by_law") or matmul_params
    convention = text(run.plan, "law", "convention") or ""
    law = _row("N the law asks for", "count", law_params, None, None, note=convention)
    # The shape is a row of the plan alone: its difference is taken against the law's N.
    difference = relative_difference(law_params, shape_params)
    shape = _row(
        "N of the chosen shape",
        "count",
        shape_params,
        None,
        TOLERANCE,
        note="counted from the dimensions as the law counts; difference against the law's N",
        difference=difference,
    )
    built = _row(
        "N counted in the built model",
        "count",
        matmul_params,
        number(run.summary, "matmul_params"),
        0.0,
        note="matmul parameters, output head included; against the shape's N",
    )
    total = _row(
        "Parameters, all",
        "count",
        number(run.plan, "model", "params"),
        number(run.summary, "params"),
        0.0,
        note="embedding table and norms included",
    )
    return [law, shape, built, total]


def _work_rows(run: RunRecord) -> list[ComparisonRow]:
    unfinished = not run.is_trained
    law_tokens = number(run.plan, "optimum", "tokens")
    epochs = number(run.plan, "data", "epochs")
    notes = []
    if law_tokens is not None:
        notes.append(f"the law asks for {formatting.count(law_tokens)}")
    if epochs is not None:
        notes.append(f"{formatting.significant(epochs)} epochs planned")
    return [
        _row(
            "Training tokens",
            "count",
            number(run.plan, "data", "tokens"),
            measured(run, "tokens", "tokens"),
            TOLERANCE,
            note="; ".join(notes),
            unfinished=unfinished,
        ),
        _row(
            "Training FLOPs",
            "flops",
            number(run.plan, "predicted", "flops"),
            number(run.summary, "flops"),
            TOLERANCE,
            note="model FLOPs, causal attention halved, recomputation not counted",
            unfinished=unfinished,
        ),
        _row(
            "Steps",
            "whole",
            number(run.plan, "training", "num_steps"),
            measured(run, "num_steps", "step"),
            0.0,
            note="fixed before step 0",
            unfinished=unfinished,
        ),
    ]


def _time_rows(run: RunRecord) -> list[ComparisonRow]:
    budget = budget_seconds(run.plan)
    note = "steps, evaluation and saves; compiling not included"
    if budget is not None:
        note = f"budget {formatting.duration(budget)}: {note}"
    return [
        _row(
            "Training time",
            "seconds",
            number(run.plan, "predicted", "train_seconds"),
            measured(run, "train_seconds", "train_seconds"),
            TOLERANCE,
            note=note,
            unfinished=not run.is_trained,
        ),
        _row(
            "Time per step",
            "seconds",
            number(run.plan, "predicted", "step_seconds"),
            measured_step_seconds(run),
            TOLERANCE,
        ),
        _row("Compile time", "seconds", None, number(run.summary, "compile_seconds"), None),
        _row(
            "Preparation time",
            "seconds",
            None,
            number(run.summary, "prepare_seconds"),
            None,
            note="tokenizer, corpus, time trial",
        ),
    ]


def _memory_rows(run: RunRecord) -> list[ComparisonRow]:
    return [
        _row(
            "Peak memory",
            "bytes",
            number(run.plan, "predicted", "peak_bytes"),
            number(run.summary, "peak_bytes"),
            TOLERANCE,
            note="the compiler's count for one train step: arguments and temporaries",
        ),
        _row(
            "Peak resident memory",
            "bytes",
            None,
            number(run.summary, "peak_rss_bytes"),
            None,
            note="of the whole process, as the operating system saw it",
        ),
    ]


def _loss_row(run: RunRecord) -> ComparisonRow:
    predicted = number(run.plan, "predicted", "loss")
    low, high = (number(run.plan, "predicted", f"loss_{end}") for end in ("low", "high"))
    actual = held_out(run, "nats_per_token")
    notes = [text(run.plan, "predicted", "loss_note") or ""]
    row = _row(
        "Held-out loss, nats per token",
        "nats",
        predicted,
        actual,
        TOLERANCE,
        unfinished=not run.is_trained,
        planned_text="unfitted" if run.plan is not None and predicted is None else None,
    )
    if low is not None and high is not None:
        interval = f"{_FORMATS['nats'](low)} to {_FORMATS['nats'](high)}"
        if predicted is not None:
            notes.append(f"interval {interval}")
        else:
            verdict: Verdict = "unjudged"
            if actual is not None:
                verdict = "within" if low <= actual <= high else "outside"
                verdict = verdict if run.is_trained else "unfinished"
            row = replace(row, planned_text=interval, tolerance=None, verdict=verdict)
    return replace(row, note="; ".join(note for note in notes if note))


def budget_seconds(plan: Record | None) -> float | None:
    """The budget in seconds, where it is one of time."""
    return number(plan, "budget", "value") if text(plan, "budget", "kind") == "time" else None


def relative_difference(planned: float | None, actual: float | None) -> float | None:
    """(actual - planned) / planned, or None where it has no finite value."""
    if planned is None or actual is None or not planned:
        return None
    difference = (actual - planned) / planned
    return difference if math.isfinite(difference) else None


def _row(
    quantity: str,
    unit: str,
    planned: float | None,
    actual: float | None,
    tolerance: float | None,
    *,
    note: str = "",
    unfinished: bool = False,
    difference: float | None = None,
    planned_text: str | None = None,
) -> ComparisonRow:
    if difference is None:
        difference = relative_difference(planned, actual)
    verdict: Verdict = "unjudged"
    if tolerance is not None and difference is not None:
        verdict = "within" if abs(difference) <= tolerance else "outside"
        if unfinished:
            verdict = "unfinished"
    return ComparisonRow(
        quantity=quantity,
        unit=unit,
        planned=planned,
        actual=actual,
        difference=difference,
        tolerance=tolerance,
        verdict=verdict,
        planned_text=planned_text or _FORMATS[unit](planned),
        actual_text=_FORMATS[unit](actual),
        note=note,
    )
