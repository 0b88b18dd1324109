"""One run among those that train together, and its open files."""

import contextlib
import dataclasses

from etils import epath

from rethink_jax import data
from rethink_jax.distributed import parallel, preemption
from rethink_jax.runs import display
from rethink_jax.training.ensemble import Ensemble
from rethink_jax.training.recorder import Recorder
from rethink_jax.training.train_state import TrainState


@dataclasses.dataclass
class Member:
    """A run that trains with others.

    Attributes:
      index: its place in the ensemble.
      path: of its run directory.
      recorder: its open files.
      state: that it starts from, of NumPy arrays.
      files: closes the recorder.
      seconds: its share of the time, which its members divide among them.
      saved_step: of its newest checkpoint since it was opened.
      is_open: whether it has neither finished nor failed.
      error: what ended it early.
    """

    index: int
    path: epath.Path
    recorder: Recorder
    state: TrainState
    files: contextlib.ExitStack
    seconds: float = 0.0
    saved_step: int = -1
    is_open: bool = True
    error: Exception | None = None

    def close(self) -> None:
        """Closes its files; others may train on."""
        self.is_open = False
        self.files.close()


def open_member(
    stack: contextlib.ExitStack,
    ensemble: Ensemble,
    index: int,
    path: epath.Path,
    total: int,
    stop_request: preemption.StopRequest,
    dataset: data.Dataset,
) -> Member:
    """Opens a run directory and restores the newest checkpoint; the stack closes what is left open.

    Raises:
      UserError, RunFailed: as `Recorder` does.
    """
    recorder = Recorder(
        path,
        ensemble.configs[index],
        ensemble.fingerprints[index],
        ensemble.dataset_info,
        stop_request,
        dataset.fingerprint,
    )
    with contextlib.ExitStack() as own:
        own.enter_context(recorder)
        # By itself, a member resumes on one device.
        one = parallel.most_cpu_devices() is not None
        with parallel.use_cpu_devices(1) if one else contextlib.nullcontext():
            state = recorder.restore(ensemble.initial_states[index], total, display.hidden())
        open_files = stack.enter_context(own.pop_all())
    seconds = recorder.history[-1]["seconds"] if recorder.history else 0.0
    return Member(index, path, recorder, state, open_files, seconds)


def progress(member: Member) -> tuple[int, int]:
    """Returns the step that a member is at and that of its last evaluation."""
    history = member.recorder.history
    return int(member.state.step), history[-1]["step"] if history else 0
