"""How every experiment starts in its directory: what is refused, what is finished, and opening the rest."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from rethink_jax.data import DatasetInfo
from rethink_jax.runs import effects, identity, run_directory


def check_new(path: epath.Path, config: ConfigDict, info: DatasetInfo | None = None) -> None:
    """Refuses a run in a sweep's folder, and a new run with settings that change nothing; writes nothing.

    Args:
      path: the run's directory.
      config: resolved, where it is a training run's.
      info: of a training run's data set.

    Raises:
      UserError: with the folder, or the field.
    """
    run_directory.check_no_sweep(path)
    effects.refuse(path, config, info)


def find_summary(
    path: epath.Path,
    config: ConfigDict,
    fingerprint: Callable[[], str],
    older: Callable[[], str] | None = None,
) -> tuple[dict[str, Any] | None, bool]:
    """Returns `summary.json` of a run that has one, and whether the run is known to be of these data.

    Args:
      path: the run's directory.
      config: of the run.
      fingerprint: returns that of the data; called once the directory is known to be usable.
      older: returns what an older version has noted as `fingerprint`.

    Raises:
      UserError: the directory is in use, or holds something else, or a run of another config or of other data.
    """
    summary = run_directory.summary_of(path, config)
    return summary, identity.check_same_data(path, config, fingerprint(), older)


@contextlib.contextmanager
def open_described(path: epath.Path, config: ConfigDict, **metadata: Any) -> Iterator[None]:
    """Opens a run directory as `run_directory.open_run`, and writes `config.json` and `run.json` into it.

    For runs without checkpoints. With checkpoints, `training.recorder` writes them once it has restored one.
    """
    with run_directory.open_run(path, config):
        run_directory.write_metadata(path, config, **metadata)
        yield
