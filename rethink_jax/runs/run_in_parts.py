"""Runs of experiments that keep what is done, in one process, and resume after a signal or a kill."""

import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from rethink_jax import data
from rethink_jax.distributed import preemption
from rethink_jax.runs import display, identity, opening

logger = logging.getLogger(__name__)

# Is told in words what is computed and the part of it that is done; raises `Stopped` after a signal.
Show = Callable[[str, float], None]


def run_in_parts(
    config: ConfigDict,
    workdir: epath.PathLike | None,
    name: str,
    compute: Callable[[epath.Path, data.Dataset, Show], dict[str, Any]],
    kept: str,
    *,
    info: data.DatasetInfo | None = None,
    check: Callable[[epath.Path], None] | None = None,
    is_done: Callable[[dict[str, Any]], bool] = lambda summary: True,
    older: Callable[[data.Dataset], str] | None = None,
    defer: bool = True,
) -> dict[str, Any]:
    """Computes what a directory does not have yet, unless it is finished, and returns its summary.

    Args:
      config: resolved, of a run in one process.
      workdir: the run's directory; by default `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.
      compute: opens the directory, computes, writes the summary there and returns it.
      kept: in words, what a stopped run keeps: "finished members are".
      info: of the data set, where the config has the fields of a training run.
      check: of the directory; raises `UserError` for settings that a new run ignores.
      is_done: whether a summary leaves nothing to compute.
      older: returns of the data what a version without `data_fingerprint` has noted.
      defer: whether a signal waits until `compute` shows something; else it interrupts at once.

    Raises:
      UserError: for a directory that cannot be used, or was made from other data.
      Stopped: when a signal came.
    """
    load = functools.cache(lambda: data.load(config.data))
    path = identity.path_of(workdir, config, lambda: load().fingerprint, name, config.data.name)
    with contextlib.ExitStack() as stack:
        stop_request = stack.enter_context(preemption.stop_on_signals())
        stop_request.grace_seconds = config.grace_seconds
        opening.check_new(path, config, info)
        if check is not None:
            check(path)
        of_older = None if older is None else lambda: older(load())
        summary, is_same = opening.find_summary(path, config, lambda: load().fingerprint, of_older)
        if summary is not None and not is_same:
            raise identity.unnoted(path)
        if summary is not None and is_done(summary):
            logger.info("%s is finished", path)
            return summary
        dataset = load()
        if defer:
            stack.enter_context(stop_request.defer())
        stop_request.saved = f"stopped; {kept} saved in {path}; run the same command again"
        show = stack.enter_context(display.show_parts())

        def show_or_stop(part: str, fraction: float) -> None:
            stop_request.raise_if_stopped()
            show(part, fraction)

        return compute(path, dataset, show_or_stop)
