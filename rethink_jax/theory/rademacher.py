"""Rademacher complexity, measured by training: sup over h of (1/n) Σ σ_i h(x_i) for random σ_i (section 2.2).

Training looks for the h with the greatest sum; the one it finds bounds the supremum from below. The same
network on true labels has the same complexity, and so the same bound on its test error.
"""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, data
from rethink_jax.config import sweep_entry
from rethink_jax.config.base import EXPERIMENT, TRAIN
from rethink_jax.config.fields import Field, Fields, with_defaults, within
from rethink_jax.distributed import jax_settings, processes
from rethink_jax.runs import display, files, identity, opening, run_directory
from rethink_jax.runs.resolve import resolve
from rethink_jax.sweeps import sweep
from rethink_jax.sweeps.estimates import estimate
from rethink_jax.training import train

logger = logging.getLogger(__name__)

# Section 2.2 looks at one hidden layer.
OF_MLP1 = with_defaults(TRAIN, model__name="mlp", model__depth=1)

FIELDS: Fields = {
    **OF_MLP1,
    "experiment": EXPERIMENT._replace(default="rademacher"),
    "rademacher.draws": Field(5, "Draws of random ±1 labels.", within(1, 1000)),
}

RUNS = "runs"
TRUE, RANDOM = "true_labels", "random_labels"

# The bounds hold with at least this probability.
CONFIDENCE = 0.95


@jax_settings.pin_settings()
def run(
    config: ConfigDict, workdir: epath.PathLike | None = None, name: str = "rademacher"
) -> dict[str, Any]:
    """Trains on draws of random ±1 labels and on true labels, and says what the complexity tells of each.

    Args:
      config: as `rethink_jax.config.experiment("rademacher", …)` returns it, changed at will.
      workdir: the directory, with a sweep of the runs in it; by default
        `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run, before any data is loaded.
      RunFailed: where a run has failed.
      Stopped: when a signal came; the state is saved.
    """
    path, settings, dataset = begin(config, "rademacher", workdir, name)
    planned = train_both(settings, path / RUNS, dataset, config.rademacher.draws)

    def record() -> dict[str, Any]:
        summary = summarize_runs(planned, dataset.info.num_train)
        files.write_summary(path, summary)
        return summary

    summary = processes.on_primary(record)
    display.print_rows(*table(summary))
    return summary


def table(summary: dict[str, Any]) -> display.Rows:
    """Returns errors and bounds on both kinds of labels, in words."""
    title = (
        "Rademacher complexity of {model} on {points:,} points: "
        "{mean:.4f} found, so at least {at_least:.4f}"
    )
    rows = []
    for kind, network in summary["networks"].items():
        bound = display.percent(network["bound"]) + (
            " (says nothing)" if network["bound"] >= 1 else ""
        )
        errors = [display.percent(network[f"{split}_error"]["mean"]) for split in ("train", "test")]
        rows.append((kind.replace("_", " "), *errors, bound))
    columns = ("", "training error", "test error", "bound on the test error")
    return title.format(mean=summary["complexity"]["mean"], **summary), columns, rows


def begin(
    config: ConfigDict,
    group: str,
    workdir: epath.PathLike | None,
    name: str,
    sweep_of: Callable[[ConfigDict, data.Dataset], ConfigDict] | None = None,
    in_two_classes: bool = True,
) -> tuple[epath.Path, ConfigDict, data.Dataset]:
    """Checks an experiment that trains several networks, and writes its `config.json` and `run.json`.

    Args:
      config: a training config with one more group of fields, the experiment's own.
      group: the name of that group.
      workdir: the experiment's directory, if it is named.
      name: of the config file, for the default directory.
      sweep_of: returns the sweep of its networks from their config and the data set; by default the first ones
        on random and on true labels.
      in_two_classes: whether the classes of the data set are halved.

    Returns:
      The directory, the config of the training runs in it, and the data set.

    Raises:
      UserError: for a config or a directory that cannot be run, before any data is loaded.
    """
    resolved, info = processes.all_or_fail(lambda: resolve(config))
    settings = ConfigDict(config.to_dict())
    del settings[group]

    @functools.cache
    def load() -> data.Dataset:
        loaded = processes.all_or_fail(lambda: data.load(config.data))
        return two_classes(loaded) if in_two_classes else loaded

    path = identity.path_of(workdir, config, lambda: load().fingerprint, name, config.data.name)
    processes.on_primary(lambda: opening.check_new(path, resolved, info))
    processes.on_primary(lambda: run_directory.check_usable(path, config))
    dataset = load()
    networks = sweep_of(settings, dataset) if sweep_of is not None else _both(settings, 1)
    planned = processes.all_or_fail(lambda: sweep.plan(networks, path / RUNS, dataset))

    def check() -> None:
        identity.check_same_data(path, config, dataset.fingerprint)
        for run in planned:
            run_directory.check_same_run(run.path, run.config)
            train.check_same_data(run.path, run.config, dataset)

    def write() -> None:
        path.mkdir(parents=True, exist_ok=True)
        run_directory.write_metadata(
            path,
            config,
            num_train=dataset.info.num_train,
            data_fingerprint=dataset.fingerprint,
        )

    processes.on_primary(check)
    processes.on_primary(write)
    return path, settings, dataset


def train_both(
    settings: ConfigDict, path: epath.Path, dataset: data.Dataset, seeds: int
) -> list[sweep.PlannedRun]:
    """Trains on random and on true labels, as a sweep in a directory, and returns the runs."""
    both = _both(settings, seeds)
    planned = processes.all_or_fail(lambda: sweep.plan(both, path, dataset))
    sweep.run(both, path, dataset)
    return planned


def _both(settings: ConfigDict, seeds: int) -> ConfigDict:
    both = ConfigDict(settings.to_dict())
    runs = tuple(sweep_entry(kind, {"corruption.name": kind}) for kind in (RANDOM, TRUE))
    config_lib.as_sweep(both, "rademacher", "full", runs)
    both.sweep.seeds = seeds
    return both


def two_classes(dataset: data.Dataset) -> data.Dataset:
    """Returns the data set with the first half of its classes as one and the others as another."""
    half = dataset.info.num_classes // 2

    def split(examples: data.Examples) -> data.Examples:
        return examples._replace(labels=(examples.labels >= half).astype(examples.labels.dtype))

    info = dataclasses.replace(dataset.info, num_classes=2)
    return dataclasses.replace(
        dataset, info=info, train=split(dataset.train), test=split(dataset.test)
    )


def summarize_runs(runs: list[sweep.PlannedRun], n: int) -> dict[str, Any]:
    """Returns `summary.json` from runs on n examples, as `train_both` returns them."""
    summaries = [(run.name, files.read_summary(run.path) or {}) for run in runs]
    return summarize(summaries, runs[0].config.model.name, n)


def summarize(summaries: list[tuple[str, dict[str, Any]]], model: str, n: int) -> dict[str, Any]:
    """Returns `summary.json` from the name and the summary of each run of a model on n examples.

    One sign moves the supremum by 2/n at most, so the complexity is at least the mean over m draws less
    √(2 ln(1/δ) / nm), with probability 1 − δ (McDiarmid). The bound on the test error (Mohri, Rostamizadeh,
    Talwalkar, theorem 3.5) is training error + complexity + 3 √(ln(2/δ) / 2n); here it is the least that it can
    be. Test errors are against labels drawn as the training labels are: true, or random signs.
    """
    sums = [2 * summary["train_accuracy"] - 1 for name, summary in summaries if name == RANDOM]
    complexity, delta = estimate(sums), 1 - CONFIDENCE
    at_least = complexity.mean - math.sqrt(2 * math.log(1 / delta) / (n * len(sums)))
    slack = 3 * math.sqrt(math.log(2 / delta) / (2 * n))
    networks: dict[str, dict[str, Any]] = {}
    for kind, test in ((TRUE, "test_accuracy"), (RANDOM, "test_accuracy_corrupted")):
        errors = {
            split: estimate([1 - s[field] for name, s in summaries if name == kind])
            for split, field in (("train", "train_accuracy"), ("test", test))
        }
        networks[kind] = {f"{split}_error": error._asdict() for split, error in errors.items()}
        networks[kind]["bound"] = errors["train"].mean + at_least + slack
    return {
        "status": "finished",
        "model": model,
        "points": n,
        "parameters": summaries[0][1]["parameters"],
        "complexity": complexity._asdict(),
        "at_least": at_least,
        "draws": sums,
        "networks": networks,
        "seconds": sum(summary["seconds"] for _, summary in summaries),
    }
