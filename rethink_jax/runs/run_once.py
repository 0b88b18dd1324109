"""Runs of experiments that compute their result in one go, in one process, without resuming."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import data
from rethink_jax.errors import UserError
from rethink_jax.runs import display, files, identity, opening

logger = logging.getLogger(__name__)


def run_once(
    config: ConfigDict,
    workdir: epath.PathLike | None,
    name: str,
    load: Callable[[], data.Dataset | None],
    compute: Callable[[data.Dataset | None], tuple[dict[str, Any], int]],
    table: Callable[[dict[str, Any]], display.Rows],
    leave: Callable[[dict[str, Any], epath.Path], None] | None = None,
) -> dict[str, Any]:
    """Computes a result unless its directory has it already, writes it there and shows it.

    Args:
      config: resolved.
      workdir: the run's directory; by default `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.
      load: returns the data set; None where the config alone makes the data.
      compute: of the data set; returns the content of `summary.json` and the number of training examples.
      table: of a summary, in words.
      leave: writes further files of a summary into the directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a directory that cannot be used, or was made from other data, and in several processes.
    """
    if jax.process_count() > 1:
        raise UserError(f"config.experiment is {config.experiment!r}; it runs in one process")
    load = functools.cache(load)

    def fingerprint() -> str:
        dataset = load()
        return dataset.fingerprint if dataset is not None else ""

    path = identity.path_of(workdir, config, fingerprint, name, config.data.name)
    opening.check_new(path, config)
    summary, is_same = opening.find_summary(path, config, fingerprint)
    if summary is not None:
        if not is_same:
            _check_is_older(path)
        logger.info("%s is finished", path)
    else:
        summary, num_train = compute(load())
        noted = {"num_train": num_train, "data_fingerprint": fingerprint()}
        with opening.open_described(path, config, **noted):
            if leave is not None:
                leave(summary, path)
            files.write_summary(path, summary)
        logger.info("run directory: %s", path)
    display.print_rows(*table(summary))
    return summary


def _check_is_older(path: epath.Path) -> None:
    """Raises `UserError` unless an older version made the run, which noted nothing of its data."""
    if "num_train" not in files.read_environment(path):
        raise identity.unnoted(path)
    logger.info("an older version made %s and noted nothing of its data: not compared", path)
