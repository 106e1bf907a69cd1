"""The sections of the page that are words and tables: each a function from run to HTML.

Every string that comes from a file passes through `escaped`.
"""

import html
import json
import math

from report import formatting
from report.compare import ComparisonRow, budget_seconds, comparison_rows
from report.headline import device_name, headline_tiles
from report.read import Record, RunRecord, entries, lookup, number, text

_STATUS_CLASSES = {"complete": "good", "failed": "bad"}
_VERDICT_CLASSES = {"within": "good", "outside": "bad", "unfinished": "wait", "unjudged": "wait"}
MAX_EVENTS = 200


def escaped(value: object) -> str:
    """Text for HTML, in elements and attributes; None is a dash, what is no string its JSON."""
    if value is None:
        return formatting.MISSING
    return html.escape(value if isinstance(value, str) else _json(value), quote=True)


def header_section(run: RunRecord) -> str:
    """Name, status, device, versions, and what could not be read."""
    status_class = _STATUS_CLASSES.get(run.status, "wait")
    facts = [device_name(run)]
    if run.run.get("created") is not None:
        facts.append(f"created {run.run['created']}")
    if run.run.get("isoflop_version") is not None:
        facts.append(f"isoflop {run.run['isoflop_version']}")
    versions = lookup(run.fingerprint, "versions")
    if isinstance(versions, dict):
        facts += [f"{name} {version}" for name, version in versions.items() if name != "isoflop"]
    problems = "".join(f'<p class="problem">{escaped(problem)}</p>' for problem in run.problems)
    return (
        '<header><div class="brand">isoflop run report</div>'
        f'<div class="title"><h1>{escaped(run.name)}</h1>'
        f'<span class="chip {status_class}">{escaped(run.status)}</span></div>'
        f'<div class="facts">{"".join(f"<span>{escaped(fact)}</span>" for fact in facts)}</div>'
        f"</header>{problems}"
    )


def headline_section(run: RunRecord) -> str:
    tiles = "".join(
        f'<div class="tile"><div class="caption">{escaped(tile.label)}</div>'
        f'<div class="value">{escaped(tile.value)}</div>'
        f'<div class="caption">{escaped(tile.note)}</div></div>'
        for tile in headline_tiles(run)
    )
    return f'<section class="tiles">{tiles}</section>'


def comparison_section(run: RunRecord) -> str:
    rows = comparison_rows(run)
    if not rows:
        return ""
    missing = ""
    if run.plan is None:
        missing = '<p class="muted">This run has no plan: the measured side stands alone.</p>'
    return (
        f"<h2>Plan against actual</h2>{missing}"
        '<div class="scroll"><table class="wide"><thead><tr><th>Quantity</th>'
        '<th class="number">Plan</th><th class="number">Actual</th>'
        '<th class="number">Difference</th><th>Verdict</th>'
        f"<th>What is counted</th></tr></thead><tbody>{''.join(map(_comparison_row, rows))}"
        "</tbody></table></div>"
    )


def _comparison_row(row: ComparisonRow) -> str:
    verdict = ""
    if row.verdict_text:
        verdict = f'<span class="chip {_VERDICT_CLASSES[row.verdict]}">{row.verdict_text}</span>'

    def cell(shown: str, value: float | None) -> str:
        return f'<td class="number" title="{formatting.whole(value)}">{escaped(shown)}</td>'

    in_full = row.unit in ("count", "whole", "bytes")
    return (
        f"<tr><td>{escaped(row.quantity)}</td>"
        f"{cell(row.planned_text, row.planned if in_full else None)}"
        f"{cell(row.actual_text, row.actual if in_full else None)}"
        f'<td class="number">{row.difference_text}</td><td>{verdict}</td>'
        f'<td class="note">{escaped(row.note)}</td></tr>'
    )


def provenance_section(run: RunRecord) -> str:
    """Where each number of the plan came from: budget, law, and a rule per number."""
    if run.plan is None:
        return ""
    law = []
    for label, keys in (
        ("Law", ("law", "name")),
        ("Convention", ("law", "convention")),
        ("Source", ("law", "source")),
        ("Note", ("law", "note")),
        ("Hardware figures", ("hardware", "source")),
    ):
        if text(run.plan, *keys):
            law.append((label, escaped(text(run.plan, *keys))))
    in_range = lookup(run.plan, "law", "in_range")
    if isinstance(in_range, bool):
        shown = (
            "inside the range the law was fitted on"
            if in_range
            else ("outside the range the law was fitted on")
        )
        law.append(("Range", shown))
    budget = _budget(run.plan)
    if budget:
        law.insert(0, ("Budget", escaped(budget)))
    rules = "".join(
        f"<tr><td>{escaped(rule.get('field'))}</td>"
        f'<td class="number">{_rule_value(rule.get("value"))}</td>'
        f'<td class="note">{escaped(rule.get("rule"))}</td></tr>'
        for rule in entries(run.plan, "rules")
    )
    table = ""
    if rules:
        table = (
            '<div class="scroll"><table><thead><tr><th>Number</th><th class="number">Value</th>'
            f"<th>Rule</th></tr></thead><tbody>{rules}</tbody></table></div>"
        )
    return f"<h2>Where each number came from</h2>{_pairs(law)}{table}"


def _budget(plan: Record) -> str:
    kind, value = text(plan, "budget", "kind"), number(plan, "budget", "value")
    if kind is None:
        return ""
    parts = [kind]
    if value is not None:
        unit = text(plan, "budget", "unit") or ""
        seconds = budget_seconds(plan)
        shown = formatting.count(value) if abs(value) < 1e15 else formatting.significant(value)
        shown = f"{shown} {unit}".strip() if seconds is None else formatting.duration(seconds)
        parts.append(shown)
    if number(plan, "budget", "flops") is not None and kind != "flops":
        parts.append(f"that is {formatting.flops(number(plan, 'budget', 'flops'))}")
    return ", ".join(parts)


def _rule_value(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return escaped(value)
    as_number = number({"value": value}, "value")
    if as_number is None or not math.isfinite(as_number):
        return escaped(value)
    if isinstance(value, int) and abs(value) < 1e12:
        return formatting.whole(as_number)
    return f"{as_number:.4g}"


def samples_section(run: RunRecord) -> str:
    """The samples of the last sampled step in view, earlier ones folded away."""
    if not run.samples:
        return ""
    last_step = number(run.samples[-1], "step")
    latest = [sample for sample in run.samples if number(sample, "step") == last_step]
    earlier = [sample for sample in run.samples if number(sample, "step") != last_step]
    folded = ""
    if earlier:
        folded = (
            f"<details><summary>Earlier samples: {len(earlier)}</summary>"
            f"{''.join(map(_sample, earlier))}</details>"
        )
    return f"<h2>Samples</h2>{''.join(map(_sample, latest))}{folded}"


def _sample(sample: Record) -> str:
    settings = sample.get("sampling")
    how = ""
    if isinstance(settings, dict):
        how = ", " + ", ".join(f"{name} {value}" for name, value in settings.items())
    expected = ""
    if text(sample, "expected") is not None:
        expected = (
            '<p class="note">How the document really goes on</p>'
            f'<pre><span class="prompt">{_kept(sample, "prompt")}</span>'
            f"{_kept(sample, 'expected')}</pre>"
        )
    step = formatting.whole(number(sample, "step"))
    return (
        f'<div class="sample"><p class="note">Step {step}{escaped(how)}: '
        '<span class="prompt">prompt</span>, then <span class="generated">generated</span></p>'
        f'<pre><span class="prompt">{_kept(sample, "prompt")}</span>'
        f'<span class="generated">{_kept(sample, "text")}</span></pre>{expected}</div>'
    )


def _kept(sample: Record, key: str) -> str:
    # A parser drops a newline right after <pre>; the <span> in between keeps it.
    return escaped(text(sample, key) or "")


def events_section(run: RunRecord) -> str:
    if not run.events:
        return ""
    shown = run.events[-MAX_EVENTS:]
    rows = []
    for event in shown:
        rest = {name: value for name, value in event.items() if name not in ("time", "event")}
        detail = rest.get("detail") if list(rest) == ["detail"] else rest or ""
        rows.append(
            f'<tr><td class="small mono">{escaped(event.get("time"))}</td>'
            f"<td>{escaped(event.get('event'))}</td>"
            f'<td class="note">{escaped(detail)}</td></tr>'
        )
    left_out = ""
    if len(shown) < len(run.events):
        left_out = f'<p class="muted">The last {len(shown)} of {len(run.events)}.</p>'
    return (
        f'<h2>Events</h2>{left_out}<div class="scroll"><table><thead><tr><th>Time</th>'
        f"<th>Event</th><th>Detail</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def export_section(run: RunRecord) -> str:
    if not isinstance(lookup(run.summary, "export"), dict):
        return ""
    pairs = [
        ("Folder", f'<span class="mono">{escaped(text(run.summary, "export", "path"))}</span>'),
        ("Reloaded and compared with", escaped(text(run.summary, "export", "verified_against"))),
        (
            "Largest difference of a logit",
            formatting.significant(number(run.summary, "export", "max_abs_logit_difference")),
        ),
    ]
    return f"<h2>Export</h2>{_pairs(pairs)}"


def config_section(run: RunRecord) -> str:
    files = [("config.json", run.config), ("fingerprint.json", run.fingerprint)]
    details = "".join(
        f"<details><summary>{name}</summary><pre>{escaped(_json(value, indent=2))}</pre></details>"
        for name, value in files
        if value is not None
    )
    return f"<h2>Configuration</h2>{details}" if details else ""


def _pairs(pairs: list[tuple[str, str]]) -> str:
    """Label and HTML, a line each."""
    if not pairs:
        return ""
    rows = "".join(
        f'<tr><td class="muted">{label}</td><td>{value}</td></tr>' for label, value in pairs
    )
    return f'<table class="pairs"><tbody>{rows}</tbody></table>'


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False)
