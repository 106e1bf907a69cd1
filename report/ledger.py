"""The token ledger as a section of the page: where every token went."""

import math

from report import formatting
from report.read import RunRecord, number


def ledger_section(run: RunRecord) -> str:
    """Places in the rows by what was in them, and tokens that never reached a row."""
    if run.ledger is None:
        return ""
    read, trained_on = _tokens(run, "read"), _tokens(run, "trained_on")
    padded, dropped, truncated = (
        _tokens(run, "padded"),
        _tokens(run, "dropped"),
        _tokens(run, "truncated"),
    )
    in_rows = [
        ("Trained on", trained_on, "b1", "carried loss"),
        ("Read without loss", read - trained_on, "b2", "nobody's target, as a document's opening"),
        ("Padding", padded, "b3", "no token"),
    ]
    places = read + padded
    bar = "".join(
        f'<span class="{color}" style="flex: {amount / places:.6f}"></span>'
        for _, amount, color, _ in in_rows
        if places > 0 and amount > 0
    )
    lines = [
        _row(f'<span class="swatch {color}"></span>{label}', amount, places, "places", meaning)
        for label, amount, color, meaning in in_rows
    ]
    met = read + dropped + truncated
    lines += [
        _row("Read", read, met, "tokens met", "from the corpus, repeated epochs counted again"),
        _row("Dropped", dropped, met, "tokens met", "left over where an epoch ended"),
        _row("Truncated", truncated, met, "tokens met", "of documents longer than they may be"),
    ]
    rows, epochs = number(run.ledger, "rows"), number(run.ledger, "epochs")
    return (
        f'<h2>Token ledger</h2><div class="bar">{bar}</div>'
        '<div class="scroll"><table><thead><tr><th>Tokens</th><th class="number">Number</th>'
        '<th class="number">Share</th><th>Meaning</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        f'<p class="note after">{_conservation(run)} {formatting.whole(rows)} rows, '
        f"{formatting.significant(epochs)} epochs.</p>"
    )


def unaccounted(run: RunRecord) -> float | None:
    """Places in rows that the ledger does not explain; 0 if it balances.

    Every place of a row holds a token that was read, or padding: rows × seq_len = read + padded.
    And what carried loss was read. None where the ledger or the configuration does not say.
    """
    rows, seq_len = number(run.ledger, "rows"), number(run.config, "data", "seq_len")
    if rows is None or seq_len is None:
        return None
    missing = rows * seq_len - _tokens(run, "read") - _tokens(run, "padded")
    excess = max(0.0, _tokens(run, "trained_on") - _tokens(run, "read"))
    return abs(missing) + excess


def _tokens(run: RunRecord, name: str) -> float:
    value = number(run.ledger, f"tokens_{name}")
    return value if value is not None and math.isfinite(value) else 0.0


def _conservation(run: RunRecord) -> str:
    missing = unaccounted(run)
    if missing is None:
        return ""
    if missing:
        verdict = f'<span class="chip bad">off by {formatting.whole(missing)}</span>'
    else:
        verdict = '<span class="chip good">conserved</span>'
    return f"{verdict} Rows × row length = read + padding."


def _row(label: str, amount: float, total: float, of: str, meaning: str) -> str:
    share = f"{formatting.percent(amount / total, 2)} of {of}" if total else formatting.MISSING
    return (
        f'<tr><td>{label}</td><td class="number">{formatting.whole(amount)}</td>'
        f'<td class="number">{share}</td><td class="note">{meaning}</td></tr>'
    )
