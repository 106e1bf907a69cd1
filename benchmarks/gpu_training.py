"""Training on one GPU, ours and PyTorch's in the same run: tokens/s, causal MFU, peak memory.

    .venv/bin/python -m benchmarks.gpu_training --out gpu_training.json
    .venv/bin/python -m benchmarks.gpu_training --time-budget 480 --only 1b-2048 7b-2048
    .venv/bin/python -m benchmarks.gpu_training --smoke          # tiny cases, on a CPU too

Needs the extra cuda for us; PyTorch with CUDA and transformers for the peer, here or in the
environment of --peer-python. No network. Every measurement is a process of its own, one after
another, so that each has the whole GPU. What is done is written to the JSON file at once, and a
second call goes on from there: with little time, measure a part. The table goes to
stdout, and beside the JSON file as Markdown.

Cases are benchmarks/gpu_cases.py's: bf16 products, fp32 parameters, gradients and moments, the same
rows, tokens and optimizer on both sides. The peer's best variant counts (benchmarks/gpu_peer.py).
Ours carries segment ids for packed documents, the peer no mask.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_cases import SMOKE_CASES, TIMED_CASES, TimedCase, peer_settings
from benchmarks.gpu_peer import VARIANTS
from configs.errors import InputError, require
from configs.serialize import did_you_mean, write_json
from planner.flops import training_flops_per_row
from planner.hardware import chip_of_device

ROOT = Path(__file__).resolve().parents[1]
_SHORTEST_SECONDS = 30.0  # with less time left nothing is begun
_LONGEST_SECONDS = 420.0  # of one measurement, compilation included
_FINAL = ("measured", "does not fit")  # not tried again
_NOTES = (
    "tokens/s: places of a batch (encoder's and decoder's) over the median of timed steps; "
    "MFU: model FLOPs, causal attention halved, over the vendor's dense bf16 peak; GB = 1e9 bytes; "
    "peak: the allocator's high-water mark."
)


def main(args: Sequence[str]) -> int:
    """Measures what is missing, prints the table; 0 if nothing failed, 1 otherwise."""
    options = _options(args)
    cases = {case.name: case for case in (SMOKE_CASES if options.smoke else TIMED_CASES)}
    for name in options.only or ():
        require(name in cases, "only", name, ", ".join(cases) + did_you_mean(name, cases))
    for variant in options.variants:
        require(variant in VARIANTS, "variants", variant, ", ".join(VARIANTS))
    chosen = [cases[name] for name in options.only or cases]
    record = _read(options.out)
    session = _Session(options, record)
    if not options.no_attention:
        session.attention()
    for case in chosen:
        session.ours(case)
        if not options.no_peer:
            session.peer(case)
    text = table(record, chosen)
    print(text)
    options.out.with_suffix(".md").write_text(text + "\n")
    return 1 if session.num_failed else 0


def _options(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu_training", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu_training.json"))
    parser.add_argument("--only", nargs="+", metavar="CASE", help="cases; all by default")
    parser.add_argument(
        "--time-budget", type=float, default=0.0, metavar="SECONDS", help="0: no limit"
    )
    parser.add_argument("--steps", type=int, default=20, help="timed in each measurement")
    parser.add_argument("--seconds", type=float, default=30.0, help="or until they take so long")
    parser.add_argument("--variants", nargs="+", default=["compile", "eager"], help="of PyTorch")
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--no-peer", action="store_true", help="leave PyTorch out")
    parser.add_argument("--no-attention", action="store_true", help="leave the kernel check out")
    parser.add_argument("--again", action="store_true", help="repeat what the JSON file has")
    parser.add_argument("--smoke", action="store_true", help="tiny cases, wherever this is")
    options = parser.parse_args(args)
    require(options.steps >= 1, "steps", options.steps, "1 or more")
    require(options.time_budget >= 0, "time-budget", options.time_budget, "seconds, or 0")
    return options


def _read(path: Path) -> dict[str, Any]:
    record = {"schema_version": 1, "attention": {}, "ours": {}, "peer": {}}
    if not path.exists():
        return record
    found = json.loads(path.read_text())
    require(found.get("schema_version") == 1, "out", str(path), "a file of this benchmark")
    return record | found


class _Session:
    """Measurements of one call, within its time."""

    def __init__(self, options: argparse.Namespace, record: dict[str, Any]):
        self.options, self.record, self.num_failed = options, record, 0
        self.start = time.monotonic()

    def attention(self) -> None:
        smoke = ["--smoke"] if self.options.smoke else []
        self._measure(
            "attention kernel against the reference",
            self.record["attention"],
            "cudnn",
            lambda out: [sys.executable, "-m", "benchmarks.gpu_attention", str(out), *smoke],
        )

    def ours(self, case: TimedCase) -> None:
        self._measure(
            f"{case.name}, ours",
            self.record["ours"],
            case.name,
            lambda out: [
                sys.executable, "-m", "benchmarks.gpu_ours", case.name, str(out), *self._limits(),
            ],
        )  # fmt: skip

    def peer(self, case: TimedCase) -> None:
        """Its variants: with layers kept where that fits, else computed again."""
        records = self.record["peer"].setdefault(case.name, {})
        for variant in self.options.variants:
            # Where we recompute whole layers, keeping them has no chance to fit.
            modes = (
                ["checkpointing"] if case.config().model.remat == "full" else ["", "checkpointing"]
            )
            for mode in modes:
                key = " ".join(filter(None, (variant, mode)))
                with tempfile.TemporaryDirectory() as folder:
                    settings = Path(folder) / "settings.json"
                    settings.write_text(json.dumps(peer_settings(case)))
                    self._measure(
                        f"{case.name}, PyTorch {key}",
                        records,
                        key,
                        lambda out: [
                            str(self.options.peer_python), str(ROOT / "benchmarks/gpu_peer.py"),
                            str(settings), str(out), "--variant", variant,  # noqa: B023
                            *[f"--{mode}"] * bool(mode), *self._limits(),  # noqa: B023
                        ],
                    )  # fmt: skip
                if records.get(key, {}).get("status") != "does not fit":
                    break

    def _limits(self) -> list[str]:
        return ["--steps", str(self.options.steps), "--seconds", str(self.options.seconds)]

    def _measure(self, what: str, records: dict[str, Any], key: str, command: Any) -> None:
        """Runs a command that writes a record to a file; keeps the record, or why there is none."""
        if records.get(key, {}).get("status") in _FINAL and not self.options.again:
            return
        left = self._seconds_left()
        if left < _SHORTEST_SECONDS:
            _say(f"{what}: left out, {max(left, 0):.0f} s of the time budget are left")
            return
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "record.json"
            error = _run(command(out), min(left, _LONGEST_SECONDS))
            found = json.loads(out.read_text()) if out.exists() else None
        if found is None:
            found = {"status": "failed", "error": error}
        if error:
            self.num_failed += 1
        records[key] = found | {"wall_seconds": time.monotonic() - begun}
        write_json(self.options.out, self.record)
        _say(f"{what}: {_summary(records[key])}")

    def _seconds_left(self) -> float:
        budget = self.options.time_budget
        return budget - (time.monotonic() - self.start) if budget else _LONGEST_SECONDS


def _run(command: list[str], timeout_seconds: float) -> str:
    """Runs to the end; '' or, in a line, why it failed."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_seconds
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {timeout_seconds:.0f} s"
    except OSError as error:
        return f"{command[0]}: {error}"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines() or ["no output"]
    error = next((line for line in reversed(lines) if "Error" in line), lines[-1])
    return f"exit {done.returncode}: {error[:300]}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _summary(record: Mapping[str, Any]) -> str:
    if record["status"] == "failed":
        return f"failed: {record['error']}"
    if record["status"] == "does not fit":
        return "does not fit"
    if "seconds" not in record:
        return f"{len(record['checks'])} cases, {'all' if record['ok'] else 'NOT all'} equal"
    return (
        f"{record['seconds'] * 1e3:,.1f} ms a step, loss {record['losses'][0]:.3f} → "
        f"{record['losses'][1]:.3f}, {record['wall_seconds']:.0f} s in all"
    )


def best_peer(records: Mapping[str, Mapping[str, Any]]) -> tuple[str, Mapping[str, Any]] | None:
    """The fastest measured variant and its name; None without any."""
    measured = {name: r for name, r in records.items() if r["status"] == "measured"}
    if not measured:
        return None
    name = min(measured, key=lambda name: measured[name]["seconds"])
    return name, measured[name]


def table(record: Mapping[str, Any], cases: Sequence[TimedCase]) -> str:
    """Markdown for benchmarks/RESULTS.md: a line for each side of a case, and the kernel check."""
    lines = [
        *_attention_lines(record["attention"]),
        "| case | side | rows × tokens | ms a step | tokens/s | MFU | peak GB | compiled GB "
        "| planned GB | loss | ours over theirs |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        ours = record["ours"].get(case.name)
        peers = record["peer"].get(case.name, {})
        best = best_peer(peers)
        ratio = ""
        if ours and ours["status"] == "measured" and best:
            ratio = f"{best[1]['seconds'] / ours['seconds']:.2f}"
        if ours:
            kernel = "cuDNN" if any(ours.get("cudnn_calls", {}).values()) else "no cuDNN"
            lines.append(_line(case, f"isoflop, {kernel}", ours, ratio))
        if best:
            lines.append(_line(case, f"PyTorch, {best[0]}", best[1], ""))
        elif peers:
            name, found = next(iter(peers.items()))
            lines.append(_line(case, f"PyTorch, {name}", found, ""))
    return "\n".join([*lines, "", _NOTES, *_machine_lines(record)])


def _line(case: TimedCase, side: str, record: Mapping[str, Any], ratio: str) -> str:
    c = case.config()
    lengths = "+".join(f"{n:,}" for n in (c.lengths.encoder_length, c.lengths.length) if n)
    shape = f"{c.training.batch_size} × {lengths}"
    if record["status"] != "measured":
        why = record.get("error") or f"compiled {_gb(record.get('compiled_bytes'))} GB"
        return f"| {case.name} | {side} | {shape} | {record['status']}: {why} | | | | | | | |"
    seconds, losses = record["seconds"], record["losses"]
    chip = chip_of_device(record["device"])
    mfu = "–"
    if chip is not None:
        flops = training_flops_per_row(c.model, c.lengths).total * c.training.batch_size
        mfu = f"{flops / seconds / chip.bf16_flops:.1%}"
    return (
        f"| {case.name} | {side} | {shape} | {seconds * 1e3:,.1f} "
        f"| {c.batch_tokens / seconds:,.0f} | {mfu} | {_gb(record['peak_bytes'])} "
        f"| {_gb(record.get('compiled_bytes'))} | {_gb(record.get('planned_bytes'))} "
        f"| {losses[0]:.3f} → {losses[1]:.3f} | {ratio} |"
    )


def _attention_lines(attention: Mapping[str, Any]) -> list[str]:
    found = attention.get("cudnn")
    if found is None:
        return []
    if found["status"] == "failed":
        return [f"Attention kernel: failed: {found['error']}", ""]
    lines = [
        f"cuDNN's attention against the reference in float32 ({found['device']}; relative error of "
        f"norms, at most {found['tolerance']:g}; in brackets the reference in bfloat16):",
        "",
    ]
    for check in found["checks"]:
        errors = ", ".join(
            f"{name} {error:.1e} ({check['reference'][name]:.1e})"
            for name, error in check["kernel"].items()
        )
        lines.append(f"- {check['name']}: {errors}: {'equal' if check['ok'] else 'NOT equal'}")
    return [*lines, ""]


def _machine_lines(record: Mapping[str, Any]) -> list[str]:
    """Devices and versions of both sides, each once."""
    measured = [*record["ours"].values(), *(r for v in record["peer"].values() for r in v.values())]
    lines = []
    for found in measured:
        if "versions" in found:
            named = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
            lines.append(f"{found['device']}: {named}.")
    return list(dict.fromkeys(lines))


def _gb(size: float | None) -> str:
    return "–" if size is None else f"{size / 1e9:.2f}"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        print(f"gpu_training: {error}", file=sys.stderr)
        sys.exit(2)
