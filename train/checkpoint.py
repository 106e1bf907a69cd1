"""Checkpoints: Orbax writes them, a manifest of checksums guards them.

A save holds training up only while the arrays are copied to the host. What is left runs behind it:
Orbax writes `saving-STEP`, process 0 adds the manifest, and a rename to `STEP` is the commit. So a
committed step always has its manifest, and a killed save leaves no half step. Orbax keeps no
checksums of array data, and a flipped bit would load as a wrong weight: every file is checked
before a step is restored, and the arrays after it. A step that fails is moved aside, and the one
before it is used.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental.multihost_utils import broadcast_one_to_all

from configs.errors import InputError
from train.agreement import first_of_any_process
from train.checkpoint_arrays import (
    HostArray,
    manifest_entries,
    named,
    require_same_arrays,
    unaliased,
)
from train.checkpoint_folder import (
    clear_leftovers,
    clear_saving,
    commit,
    committed_steps,
    kept_steps,
    put_aside,
    read_scores,
    remove_step,
    saving_folder,
)
from train.checkpoint_reading import read_checked
from train.manifest import Manifest, set_score, write_manifest
from train.state import TrainState

_SAVE_SECONDS = 24 * 3600  # Orbax gives a save up after 20 minutes, however slow the storage
_FILE_BYTES = 128 * 2**20  # of a file of values, so that every thread has something to read


class Restored(NamedTuple):
    """A checkpoint read back: the state, and the progress saved beside it."""

    state: TrainState
    progress: dict[str, Any]


class SaveError(Exception):
    """A checkpoint could not be saved; the steps saved before are as they were.

    is_of_one_process: the others do not know of it, and wait.
    """

    def __init__(self, problem: str, *, is_of_one_process: bool = False):
        super().__init__(problem)
        self.is_of_one_process = is_of_one_process


class Checkpoints:
    """The checkpoints folder of one run. With several processes, all of them call every method.

    Args:
      folder: holds one sub-folder a step. What saves that were cut short left is removed.
      keep: how many of the newest steps stay.
      keep_every: steps that are a multiple of it stay too; 0 keeps none for that reason.
      keep_best: so many of the steps with the lowest score stay too.
      on_event: told (event, detail) of saves, damage and removals; by process 0 alone, of saves
        in a thread of its own.
      writes: whether this process commits, removes and tells; None: process 0 does.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int = 2,
        keep_every: int = 0,
        keep_best: int = 0,
        on_event: Callable[[str, str], None] = lambda event, detail: None,
        writes: bool | None = None,
    ):
        self._folder = folder.resolve()
        self._keep = {"keep": keep, "keep_every": keep_every, "keep_best": keep_best}
        self._on_event = on_event
        self._writes = jax.process_index() == 0 if writes is None else writes
        self._running: _Save | None = None
        if self._writes:
            self._folder.mkdir(parents=True, exist_ok=True)
            for step in clear_leftovers(self._folder):
                on_event("checkpoint_incomplete", f"step {step}: its save was cut short")
        self._checkpointer = ocp.AsyncCheckpointer(
            _handler(), async_options=ocp.options.AsyncOptions(timeout_secs=_SAVE_SECONDS)
        )

    def save(
        self,
        state: TrainState,
        progress: dict[str, Any],
        *,
        score: float | None = None,
        wait: bool = False,
    ) -> None:
        """Saves a step; returns once the state is on the host and may be donated.

        Waits for the save before it; where that failed, this one is waited for too, in its place.
        A step of the same number gives way at the commit.

        Args:
          progress: JSON-serialisable; what resuming needs besides the arrays.
          score: held-out loss, lower is better; None or not finite: not known.
          wait: return after the commit.

        Raises:
          SaveError: this save could not be begun, or it failed where it was waited for.
        """
        begun = time.perf_counter()
        step = int(state.step)
        try:
            self.wait()
        except SaveError as error:
            if error.is_of_one_process:
                raise
            self._tell("save_failed", f"{error}; step {step} is saved instead")
            wait = True
        self._tell("saving", f"step {step}")
        arrays = _saved_tree(unaliased(state))
        try:
            self._checkpointer.save(
                saving_folder(self._folder, step),
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(arrays, ocdbt_target_data_file_size=_FILE_BYTES),
                    progress=ocp.args.JsonSave(progress),
                ),
                force=True,
            )
        except Exception as error:
            self._give_up(step)
            raise SaveError(_failure(step, error)) from error
        score = score if score is not None and np.isfinite(score) else None
        on_host = {name: HostArray.of(leaf) for name, leaf in named(arrays).items()}
        blocked = None if wait else time.perf_counter() - begun
        self._running = _Save(step, score, begun, blocked)
        self._running.thread = threading.Thread(
            target=self._finish, args=(self._running, on_host), name=f"save of step {step}"
        )
        self._running.thread.start()
        if wait:
            self.wait()

    def has_failed(self) -> bool:
        """Whether the save under way has failed already; False where other processes would have to
        be asked."""
        save = self._running
        if save is None or save.thread.is_alive() or jax.process_count() > 1:
            return False
        return bool(save.write_error or save.problem)

    def wait(self) -> None:
        """Waits until the save under way, if there is one, is committed by process 0.

        Raises:
          SaveError: it failed; what it wrote is removed.
        """
        save = self._joined()
        if save and (problem := first_of_any_process(save.problem)):
            raise SaveError(problem) from save.commit_error

    def close(self) -> None:
        """Waits for this process' part of the save under way and ends the threads.

        It asks nothing of other processes, which need not be at the same place after a failure.

        Raises:
          SaveError: this process' part failed.
        """
        try:
            save = self._joined()
            if save and save.problem:
                raise SaveError(save.problem) from save.commit_error
        finally:
            self._checkpointer.close()

    def steps(self) -> list[int]:
        """Committed steps, oldest first."""
        return committed_steps(self._folder)

    def rescore(self, step: int, score: float) -> None:
        """Gives a committed step the held-out loss that was measured after its save."""
        if self._writes and np.isfinite(score) and step in self.steps():
            set_score(self._folder / str(step), score)

    def restore_latest(self, abstract: TrainState) -> Restored | None:
        """The newest intact checkpoint onto the shardings of `abstract`; None if there is none.

        A step that is not as it was written is moved to `quarantine/` and the one before it tried.

        Raises:
          InputError: the step is intact, but holds other arrays than `abstract`, all are named; or
            no step is intact: the last of them stays where it is.
        """
        self.wait()
        return self._restore_newest(abstract, None)

    def restore_before(self, abstract: TrainState, step: int) -> Restored | None:
        """As `restore_latest`, of the steps up to and with `step`, to train on from there.

        Newer steps belong to a course that is given up: once the state is restored, they are
        removed, so that no later start goes on from one of them.
        """
        self.wait()
        restored = self._restore_newest(abstract, step)
        if restored is not None and self._writes:
            first = int(restored.state.step)
            for newer in [number for number in self.steps() if number > first]:
                remove_step(self._folder, newer)
                self._tell("checkpoint_discarded", f"step {newer}: training went back to {first}")
        return restored

    def _joined(self) -> "_Save | None":
        """The save that was under way, once its thread has ended."""
        save = self._running
        if save is None:
            return None
        save.thread.join()
        self._running = None
        if save.write_error:  # at once: the others wait for this process, and must see it end
            raise SaveError(
                _failure(save.step, save.write_error), is_of_one_process=jax.process_count() > 1
            ) from save.write_error
        return save

    def _restore_newest(self, abstract: TrainState, last: int | None) -> Restored | None:
        while (step := self._newest(last)) is not None:
            restored, problem = self._restore(step, abstract)
            if restored is not None:
                return restored
            if self._newest(step - 1) is None:
                raise InputError(
                    f"checkpoints: got {self._folder / str(step)}, which is damaged ({problem}), "
                    "and none before it, expected one that is intact; to train from step 0, start "
                    "a run of its own"
                )
            if self._writes:
                put_aside(self._folder, step)
            self._tell("checkpoint_quarantined", f"step {step}: {problem}")
        return None

    def _newest(self, last: int | None) -> int | None:
        """The newest step up to `last`, as process 0 sees the folder."""
        steps = [step for step in self.steps() if last is None or step <= last]
        newest = steps[-1] if steps else -1
        if jax.process_count() > 1:
            newest = int(broadcast_one_to_all(np.int32(newest)))
        return None if newest < 0 else newest

    def _restore(self, step: int, abstract: TrainState) -> tuple[Restored | None, str | None]:
        """A step, or what is wrong with it; the same on all processes."""
        target, path = _saved_tree(abstract), self._folder / str(step)
        if not path.exists():  # process 0 sees it
            raise InputError(
                f"checkpoints: got no {path} in process {jax.process_index()}, expected a run "
                "directory on storage that all processes share"
            )

        def read(folder: Path, manifest: Manifest) -> tuple[dict[str, Any], Any]:
            require_same_arrays(folder, manifest, target)
            loaded: Any = self._checkpointer.restore(
                folder,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(
                        target, restore_args=ocp.checkpoint_utils.construct_restore_args(target)
                    ),
                    progress=ocp.args.JsonRestore(),
                ),
            )
            return loaded.state, loaded.progress

        loaded, problem = read_checked(path, read)
        if loaded is None:
            return None, problem
        fields, progress = loaded
        return Restored(abstract._replace(**fields), progress), None

    def _finish(self, save: "_Save", on_host: Mapping[str, HostArray]) -> None:
        """The part of a save that runs behind training, in a thread of its own."""
        try:
            self._checkpointer.wait_until_finished()
        except Exception as error:
            save.write_error = error
            self._give_up(save.step)
            return
        if not self._writes:
            return
        try:
            manifest = self._commit(save, on_host)
        except Exception as error:
            save.commit_error, save.problem = error, _failure(save.step, error)
            self._give_up(save.step)
            return
        seconds = time.perf_counter() - save.begun
        blocked = seconds if save.blocked is None else save.blocked
        size = f"{manifest.num_bytes / 1e6:.1f} MB"
        try:
            self._tell(
                "saved",
                f"step {save.step}: {seconds:.1f} s, {blocked:.1f} s of them in the way, {size}",
            )
            self._prune()
        except OSError as error:
            save.commit_error = error
            save.problem = f"step {save.step} is saved, but telling or pruning failed: {error}"

    def _commit(self, save: "_Save", on_host: Mapping[str, HostArray]) -> Manifest:
        manifest = write_manifest(
            saving_folder(self._folder, save.step),
            step=save.step,
            score=save.score,
            saved=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            arrays=manifest_entries(on_host),
        )
        commit(self._folder, save.step)
        return manifest

    def _prune(self) -> None:
        steps = self.steps()
        scores = read_scores(self._folder, steps) if self._keep["keep_best"] else {}
        for step in set(steps) - kept_steps(steps, scores, **self._keep):
            remove_step(self._folder, step)

    def _give_up(self, step: int) -> None:
        if self._writes:
            clear_saving(self._folder, step)

    def _tell(self, event: str, detail: str) -> None:
        if self._writes:
            self._on_event(event, detail)


class _Save:
    """A save under way: its thread, and what went wrong in it."""

    thread: threading.Thread
    write_error: Exception | None = None
    commit_error: Exception | None = None
    problem: str | None = None

    def __init__(self, step: int, score: float | None, begun: float, blocked: float | None):
        self.step, self.score, self.begun, self.blocked = step, score, begun, blocked


def _handler() -> ocp.CompositeCheckpointHandler:
    # Weights compress by a twelfth, and compressed ones take twice as long to restore
    # (benchmarks/checkpoint_verify.py).
    return ocp.CompositeCheckpointHandler(
        state=ocp.PyTreeCheckpointHandler(use_zarr3=True, use_compression=False),
        progress=ocp.JsonCheckpointHandler(),
    )


def _saved_tree(state: TrainState) -> dict[str, Any]:
    """The fields of a state that hold any array."""
    return {name: part for name, part in state._asdict().items() if jax.tree.leaves(part)}


def _failure(step: int, error: Exception) -> str:
    return f"step {step} could not be saved: {' '.join(str(error).split())}"
