"""Where the wall-clock went, as a section of the page."""

from report import formatting
from report.read import RunRecord, lookup, number

_PHASES = {
    "step": ("Steps", "that the run kept"),
    "data": ("Data", "waiting for a batch"),
    "compile": ("Compiling", "programs, or reading them from the cache"),
    "save": ("Saving", "what of it held up the steps"),
    "restore": ("Restoring", "checkpoints read back and verified"),
    "start": ("Starting", "from the process to the first program"),
    "check": ("Checking", "for silent corruption"),
    "lost": ("Lost steps", "done over again after a failure"),
    "down": ("Down", "from a failure to the next start"),
    "other": ("Other", "records, progress, the rest"),
    "evaluate": ("Evaluating", "held-out text; counted apart"),
}


def goodput_section(run: RunRecord) -> str:
    """Goodput, and the seconds of every phase over all starts of the run."""
    share = number(run.goodput, "goodput")
    if share is None or not isinstance(lookup(run.goodput, "seconds"), dict):
        return ""
    seconds = {name: number(run.goodput, "seconds", name) or 0.0 for name in _PHASES}
    total = sum(seconds.values())
    rows = "".join(
        f"<tr><td>{label}</td>"
        f'<td class="number">{formatting.duration(seconds[name])}</td>'
        f'<td class="number">{formatting.percent(seconds[name] / total)}</td>'
        f'<td class="note">{meaning}</td></tr>'
        for name, (label, meaning) in _PHASES.items()
        if total > 0 and seconds[name] > 0
    )
    starts = formatting.whole(number(run.goodput, "starts"))
    return (
        f"<h2>Goodput {formatting.percent(share)}</h2>"
        '<div class="scroll"><table><thead><tr><th>Time in</th><th class="number">Time</th>'
        '<th class="number">Share</th><th>Meaning</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        f'<p class="note after">Goodput is the time in steps that the run kept, over all time but '
        f"evaluation. Starts of the run: {starts}.</p>"
    )
