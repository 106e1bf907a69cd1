"""Each way in which a run fails, done to a small one: how it ends, and that it goes on.

    .venv/bin/python -m benchmarks.reliability.failures --out failures.json   # all; disks need root
    .venv/bin/python -m benchmarks.reliability.failures --only full_disk sigterm_in_save

Every case ends with the last good checkpoint checked against its manifest, and with the same
command, which has to come to the parameters, losses and ledger of a run that was left alone.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.reliability import failing_peers, failing_signals, failing_storage
from benchmarks.reliability.processes import clean_up_when_told_to_stop
from benchmarks.reliability.promises import Promise, conclude
from benchmarks.reliability.scene import Scene

Case = Callable[[Scene], list[Promise]]


def cases() -> dict[str, Case]:
    """Every case by its name, those of one process first."""
    storage: list[Case] = [
        failing_storage.full_disk,
        failing_storage.no_room_for_checkpoints,
        failing_storage.read_only_new,
        failing_storage.read_only_later,
        failing_storage.two_jobs,
    ]
    peers: list[Case] = [
        failing_peers.coordinator_killed,
        failing_peers.worker_killed,
        failing_peers.peer_never_arrives,
        failing_peers.hang,
        failing_peers.supervisor_killed,
        failing_peers.launch_terminated,
    ]
    signals: dict[str, Case] = {
        f"{number.name.lower()}_in_{phase}": partial(
            failing_signals.signalled, phase=phase, number=number
        )
        for number in (signal.SIGTERM, signal.SIGINT)
        for phase in failing_signals.PHASES
    }
    pretrain: dict[str, Case] = {
        f"sigterm_in_pretrain_{phase}": partial(failing_signals.pretrain_signalled, phase=phase)
        for phase in failing_signals.PRETRAIN_PHASES
    }
    return {
        **{case.__name__: case for case in storage},
        **signals,
        "second_signal": failing_signals.second_signal,
        **pretrain,
        **{case.__name__: case for case in peers},
    }


def happened(name: str, case: Case, scene: Scene) -> list[Promise]:
    """What a case found; one broken promise where it could not be tried."""
    try:
        return case(scene)
    except RuntimeError as error:
        return [Promise(name, "to be tried", f"not tried: {error}", False)]


def main() -> int:
    """Runs the cases and says what held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=cases(), default=list(cases()), metavar="CASE")
    parser.add_argument("--folder", type=Path, help="for the runs, kept; a temporary one if absent")
    parser.add_argument("--out", type=Path, help="JSON record")
    options = parser.parse_args()
    clean_up_when_told_to_stop()
    promises, seconds = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        scene = Scene(options.folder or Path(temporary))
        for name in options.only:
            start = time.monotonic()
            found = happened(name, cases()[name], scene)
            seconds[name] = round(time.monotonic() - start, 1)
            promises += found
            for promise in found:
                print(f"{'kept  ' if promise.kept else 'BROKEN'} {promise.what}: {promise.seen}")
            sys.stdout.flush()
    return conclude(promises, {"seconds": seconds}, options.out)


if __name__ == "__main__":
    sys.exit(main())
