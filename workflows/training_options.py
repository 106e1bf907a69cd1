"""The options of every command that trains."""

from dataclasses import dataclass

from configs.errors import require_at_least_zero
from train.loop import Watch
from workflows.runtime import RuntimeOptions


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(RuntimeOptions):
    """What a training process does about itself."""

    hang_multiple: float = 20.0
    """A step that takes this many times as long as usual is a hang: the process says what its
    threads were doing and exits with 42, to be started again; 0: wait for ever."""
    hang_seconds: float = 300.0
    """No step is called a hang before it took so many seconds."""

    def __post_init__(self):
        require_at_least_zero(
            "options", hang_multiple=self.hang_multiple, hang_seconds=self.hang_seconds
        )

    @property
    def watch(self) -> Watch:
        """The options as training takes them."""
        return Watch(multiple=self.hang_multiple, floor_seconds=self.hang_seconds)
