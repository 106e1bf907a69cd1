"""One of N processes, of one device each, that restore and save checkpoints together.

python checkpoint_process.py FOLDER RESTORED SAVED PROCESS NUM_PROCESSES PORT

Restores the newest step, which must be RESTORED (0: there is none), then saves step SAVED (0:
none). Prints what is told of on the way, a line "told: EVENT DETAIL" each.
"""

import sys
from pathlib import Path
from typing import Any

import jax

from configs.schema import MeshConfig
from tests.train.samples import mesh_of, tiny_run
from tests.train.saved_states import assert_bits_equal, state_at
from train.checkpoint import Checkpoints
from train.state import abstract_state


def main() -> None:
    folder = Path(sys.argv[1])
    restored_step, saved_step, process, num_processes, port = map(int, sys.argv[2:])
    if num_processes > 1:
        jax.distributed.initialize(f"localhost:{port}", num_processes, process)
    config = tiny_run(mesh=MeshConfig(fsdp=num_processes))

    def tell(event: str, detail: str) -> None:
        print("told:", event, detail, flush=True)

    checkpoints = Checkpoints(folder, on_event=tell)
    restored: Any = checkpoints.restore_latest(abstract_state(config, mesh_of(config)))
    if restored_step:
        assert restored.progress == {"next_row": 8 * restored_step}
        assert_bits_equal(restored.state, state_at(config, restored_step))
    else:
        assert restored is None
    if saved_step:
        checkpoints.save(state_at(config, saved_step), {"next_row": 8 * saved_step})
        checkpoints.wait()
        assert checkpoints.steps()[-1] == saved_step  # committed, whichever process asks
    checkpoints.close()


if __name__ == "__main__":
    main()
