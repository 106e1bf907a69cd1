"""The token ledger as a section of the page: where every token went, by corpus and epoch."""

from report import formatting
from report.read import Record, RunRecord, entries, number, text
from report.sections import escaped

MAX_EPOCHS = 24


def ledger_section(run: RunRecord) -> str:
    """Places in the rows by what was in them, then each corpus's epochs."""
    if run.ledger is None:
        return ""
    read, trained_on = _count(run.ledger, "tokens_read"), _count(run.ledger, "tokens_trained_on")
    in_rows = [
        ("Trained on", trained_on, "b1", "carried loss"),
        ("Read without loss", read - trained_on, "b2", "nobody's target, as a document's opening"),
        ("Repeated", _count(run.ledger, "tokens_repeated"), "b2", "again where a text was cut"),
        ("Padding", _count(run.ledger, "tokens_padded"), "b3", "no token"),
    ]
    places = _count(run.ledger, "places")
    bar = "".join(
        f'<span class="{color}" style="flex: {amount / places:.6f}"></span>'
        for _, amount, color, _ in in_rows
        if places > 0 and amount > 0
    )
    lines = [
        _row(f'<span class="swatch {color}"></span>{label}', amount, places, "places", meaning)
        for label, amount, color, meaning in in_rows
    ]
    dropped = _count(run.ledger, "tokens_dropped")
    truncated = _count(run.ledger, "tokens_truncated")
    met = read + dropped + truncated
    lines += [
        _row("Read", read, met, "tokens met", "from the corpus, repeated epochs counted again"),
        _row("Dropped", dropped, met, "tokens met", "left over where an epoch ended"),
        _row("Truncated", truncated, met, "tokens met", "of documents longer than they may be"),
    ]
    cuts = formatting.whole(_count(run.ledger, "cuts"))
    rows = formatting.whole(_count(run.ledger, "rows"))
    return (
        f'<h2>Token ledger</h2><div class="bar">{bar}</div>'
        '<div class="scroll"><table><thead><tr><th>Tokens</th><th class="number">Number</th>'
        '<th class="number">Share</th><th>Meaning</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        f'<p class="note after">{_conservation(run)} {rows} rows; {cuts} segments begin inside '
        "their document.</p>"
        f"{_corpora(run)}"
    )


def unaccounted(run: RunRecord) -> float | None:
    """Tokens and places that the ledger does not explain; 0 if it balances.

    Every place of a row holds a token read, a token repeated, or padding; what carried loss was
    read; and what a finished epoch read, truncated and dropped is the corpus. None where the
    ledger does not say.
    """
    if run.ledger is None or number(run.ledger, "places") is None:
        return None
    corpora = entries(run.ledger, "corpora")
    missing = _misplaced(run.ledger)
    for corpus in corpora:
        for epoch in entries(corpus, "by_epoch"):
            missing += _misplaced(epoch)
            if number(epoch, "rows") == number(corpus, "rows_per_epoch"):
                missing += abs(_count(corpus, "tokens") - _met(epoch))
    for name in ("places", "tokens_read", "tokens_padded", "tokens_truncated", "tokens_dropped"):
        by_epoch = sum(_count(e, name) for corpus in corpora for e in entries(corpus, "by_epoch"))
        missing += abs(_count(run.ledger, name) - by_epoch)
    return missing


def _misplaced(counts: Record) -> float:
    held = sum(_count(counts, f"tokens_{name}") for name in ("read", "repeated", "padded"))
    excess = _count(counts, "tokens_trained_on") - _count(counts, "tokens_read")
    return abs(_count(counts, "places") - held) + max(0.0, excess)


def _met(epoch: Record) -> float:
    return sum(_count(epoch, f"tokens_{name}") for name in ("read", "truncated", "dropped"))


def _corpora(run: RunRecord) -> str:
    """A table of every corpus's epochs, the first and last where there are many."""
    assert run.ledger is not None
    lines = []
    for corpus in entries(run.ledger, "corpora"):
        by_epoch = entries(corpus, "by_epoch")
        left_out = len(by_epoch) - MAX_EPOCHS
        shown = by_epoch if left_out <= 0 else by_epoch[: MAX_EPOCHS // 2]
        lines += [_epoch(corpus, epoch) for epoch in shown]
        if left_out > 0:
            lines.append(f'<tr><td colspan="8" class="muted">{left_out} more epochs</td></tr>')
            lines += [_epoch(corpus, epoch) for epoch in by_epoch[-MAX_EPOCHS // 2 :]]
    headings = ("Rows", "Read", "Trained on", "Padding", "Truncated", "Dropped")
    numbers = "".join(f'<th class="number">{heading}</th>' for heading in headings)
    return (
        '<div class="scroll"><table><thead><tr><th>Corpus</th><th>Epoch</th>'
        f"{numbers}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _epoch(corpus: Record, epoch: Record) -> str:
    share = _count(epoch, "rows") / max(1.0, _count(corpus, "rows_per_epoch"))
    name = f"{formatting.whole(_count(epoch, 'epoch') + 1)}" + (
        "" if share == 1 else f" ({formatting.percent(share, 1)})"
    )
    numbers = "".join(
        f'<td class="number">{formatting.whole(_count(epoch, field))}</td>'
        for field in (
            "rows",
            "tokens_read",
            "tokens_trained_on",
            "tokens_padded",
            "tokens_truncated",
            "tokens_dropped",
        )
    )
    return f"<tr><td>{escaped(text(corpus, 'name'))}</td><td>{name}</td>{numbers}</tr>"


def _count(counts: Record | None, name: str) -> float:
    value = number(counts, name)
    return value if value is not None and abs(value) < float("inf") else 0.0


def _conservation(run: RunRecord) -> str:
    missing = unaccounted(run)
    if missing is None:
        return ""
    if missing:
        verdict = f'<span class="chip bad">off by {formatting.whole(missing)}</span>'
    else:
        verdict = '<span class="chip good">conserved</span>'
    return (
        f"{verdict} Places = read + repeated + padding; a finished epoch's read + truncated + "
        "dropped = the corpus."
    )


def _row(label: str, amount: float, total: float, of: str, meaning: str) -> str:
    share = f"{formatting.percent(amount / total, 2)} of {of}" if total else formatting.MISSING
    return (
        f'<tr><td>{label}</td><td class="number">{formatting.whole(amount)}</td>'
        f'<td class="number">{share}</td><td class="note">{meaning}</td></tr>'
    )
