"""What a trace says."""

import gzip
import json
from pathlib import Path


def traced_steps(folder: Path) -> list[int]:
    """Numbers of the training steps that the trace in a run's profile folder names."""
    [file] = folder.glob("plugins/profile/*/perfetto_trace.json.gz")
    assert list(file.parent.glob("*.xplane.pb")), "what XProf reads"
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    steps = [event["args"] for event in events if event.get("name", "").startswith("train")]
    return sorted({int(args["step_num"]) for args in steps if "step_num" in args})
