"""The few numbers a reader wants first."""

from dataclasses import dataclass

from report import formatting
from report.compare import held_out, measured
from report.read import RunRecord, number, text


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A label, its value as written, and a line that says what it means."""

    label: str
    value: str
    note: str = ""


def headline_tiles(run: RunRecord) -> list[Tile]:
    """The held-out loss and what it is worth against baselines, tokens, MFU, training time."""
    so_far = "" if run.is_trained else "so far, "
    mfu_palm = measured(run, "mfu_palm", "mfu_palm")
    params = measured(run, "params") or number(run.plan, "model", "params")
    return [
        *_loss_tiles(run),
        *_count_tiles(run),
        Tile(
            label="Tokens trained on",
            value=formatting.count(measured(run, "tokens", "tokens")),
            note=f"{so_far}by {formatting.count(params)} parameters",
        ),
        Tile(
            label="MFU",
            value=formatting.percent(measured(run, "mfu", "mfu")),
            note=f"causal attention halved; {formatting.percent(mfu_palm)} counted as PaLM does",
        ),
        Tile(
            label="Training time",
            value=formatting.duration(measured(run, "train_seconds", "train_seconds")),
            note=f"{so_far}{device_name(run)}",
        ),
    ]


def held_out_metrics(run: RunRecord) -> dict[str, float]:
    """What else the objective counts on held-out text, by name; of the last evaluation."""
    source = run.summary if run.summary and "metrics" in run.summary else None
    if source is None:
        source = run.evaluations[-1] if run.evaluations else {}
    metrics = source.get("metrics")
    return metrics if isinstance(metrics, dict) else {}


def _loss_tiles(run: RunRecord) -> list[Tile]:
    """Bits per byte against xz where every byte has a probability, else the loss and accuracy."""
    bits, nats = held_out(run, "bits_per_byte"), held_out(run, "nats_per_token")
    if bits is None and nats is not None:
        tiles = [
            Tile(
                label="Held-out loss",
                value=formatting.significant(nats, 4),
                note="nats per target; bits per byte are not defined for this objective",
            )
        ]
    else:
        tiles = [
            Tile(
                label="Held-out bits per byte",
                value=formatting.significant(bits, 4),
                note=f"{formatting.significant(nats, 4)} nats per token",
            ),
            _against("xz −9e", bits, number(run.summary, "baselines", "xz_bits_per_byte"), ""),
            _against(
                "xz primed",
                bits,
                number(run.summary, "baselines", "xz_primed_bits_per_byte"),
                ", having read the training text",
            ),
        ]
    return tiles + [
        Tile(
            label=name.replace("_", " ").capitalize(),
            value=formatting.percent(value),
            note="of the held-out documents, by the likeliest token",
        )
        for name, value in held_out_metrics(run).items()
    ]


def _count_tiles(run: RunRecord) -> list[Tile]:
    """How many nats the model is below what counts of tokens reach on the same targets."""
    nats = held_out(run, "nats_per_token")
    tiles = []
    for name, key in (("unigram", "unigram_nats"), ("bigram", "bigram_nats")):
        baseline = number(run.summary, "baselines", key)
        if nats is None or baseline is None:
            continue
        tiles.append(
            Tile(
                label=f"Against {name}s",
                value=f"{nats - baseline:+.2f} nats".replace("-", "−"),
                note=f"{name} counts of the training rows reach "
                f"{formatting.significant(baseline, 4)} nats per target",
            )
        )
    return tiles


def device_name(run: RunRecord) -> str:
    """The device and how many of it, from the plan, else from the fingerprint."""
    name = text(run.plan, "hardware", "device")
    devices = run.fingerprint.get("devices") if run.fingerprint else None
    num_devices = number(run.plan, "hardware", "num_devices")
    if isinstance(devices, list) and devices:
        name = name or str(devices[0])
        num_devices = num_devices or len(devices)
    if name is None:
        return "device unknown"
    return name if not num_devices or num_devices == 1 else f"{num_devices:.0f} × {name}"


def _against(name: str, bits: float | None, baseline: float | None, note: str) -> Tile:
    label = f"Against {name}"
    if bits is None or not baseline:
        return Tile(label=label, value=formatting.MISSING, note="not measured yet")
    return Tile(
        label=label,
        value=f"{formatting.significant(bits / baseline)}×",
        note=f"{name} takes {formatting.significant(baseline, 4)} bits per byte{note}",
    )
