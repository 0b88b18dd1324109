"""Reads a training run's directory again."""

from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from rethink_jax.errors import UserError
from rethink_jax.runs import files, run_directory
from rethink_jax.runs.own_files import CONFIG
from rethink_jax.training.checkpoints import Checkpoints
from rethink_jax.training.records import Records, read


class Run(NamedTuple):
    """A run as its directory tells it.

    Attributes:
      config: as it ran.
      metrics: one dict for each evaluation; the keys of `metrics.jsonl`.
      summary: `summary.json`, or an empty dict for a run that has not ended.
      params: the model's parameters of the newest whole checkpoint, NumPy; None where there is none.
      batch_stats: BatchNorm's running statistics likewise.
      records: what it answered to every example; None where it kept no records.
    """

    config: ConfigDict
    metrics: list[dict[str, Any]]
    summary: dict[str, Any]
    params: Any
    batch_stats: Any
    records: Records | None


def load_run(workdir: epath.PathLike) -> Run:
    """Reads a run directory.

    Args:
      workdir: the directory of a training run.

    Returns:
      Its config, metrics, summary and parameters.

    Raises:
      UserError: where there is no run in that directory.

    Example:
      >>> run = load_run("runs/mine")
      >>> run.config.corruption.name, run.summary["status"], len(run.metrics)
      ('random_labels', 'finished', 2)
      >>> sorted(run.params)
      ['Dense_0', 'Dense_1']
    """
    path = run_directory.absolute(epath.Path(workdir))
    if not (path / CONFIG).exists():
        raise UserError(f"{workdir} holds no run: {CONFIG} is missing there")
    checkpoints = Checkpoints(path, read_only=True)
    saved = checkpoints.restore_newest()
    checkpoints.close()
    state = saved.state if saved else {"params": None, "batch_stats": None}
    return Run(
        config=ConfigDict(files.with_tuples(files.read_config(path))),
        metrics=files.read_metrics(path),
        summary=files.read_summary(path) or {},
        params=state["params"],
        batch_stats=state.get("batch_stats") or {},
        records=read(path),
    )
