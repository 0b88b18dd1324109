"""What experiments share that are computed at once, in one process."""

import logging
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, corruptions, display, effects, run_directory
from rethink_jax.config import UserError

logger = logging.getLogger(__name__)


def check(config: ConfigDict) -> None:
    """Raises `UserError` for fields that it has not, seeds, and a corruption that is none of labels."""
    config_lib.check_fields(config)
    corruptions.check(config)
    corruptions.check_is_of_labels(config)
    config_lib.check_seeds(config)


def run(
    config: ConfigDict,
    workdir: epath.PathLike | None,
    name: str,
    compute: Callable[[], tuple[dict[str, Any], int]],
    table: Callable[[dict[str, Any]], display.Rows],
    leave: Callable[[dict[str, Any], epath.Path], None] | None = None,
) -> dict[str, Any]:
    """Computes what is not there yet, leaves it in a run directory and shows it.

    Args:
      config: checked.
      workdir: the run's directory; by default `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.
      compute: returns the content of `summary.json` and the number of training examples.
      table: of a summary, in words.
      leave: writes what else there is of a summary into the directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a directory that cannot be used, and in several processes.
    """
    if jax.process_count() > 1:
        raise UserError(f"config.experiment is {config.experiment!r}; it runs in one process")
    path = run_directory.path_of(workdir, name, config.data.name, config_lib.digest(config))
    run_directory.check_no_sweep(path)
    effects.refuse(path, config)
    summary = run_directory.summary_of(path, config)
    if summary is not None:
        logger.info("%s is finished", path)
    else:
        summary, num_train = compute()
        with run_directory.open_run(path, config):
            run_directory.describe(path, config, num_train=num_train)
            if leave is not None:
                leave(summary, path)
            run_directory.write_json(path / run_directory.SUMMARY, summary)
        logger.info("run directory: %s", path)
    display.print_rows(*table(summary))
    return summary
