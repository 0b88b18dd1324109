"""How many examples an MLP of each width fits, found by bisection, with random and with true labels.

Nakkiran et al. 2020 (arXiv 1912.02292) call it effective model complexity: the largest number of examples on
which training ends without an error (here none at all; they allow 10 %). Shwartz-Ziv et al. 2024 (arXiv
2406.11463) measure it as here. What training fits is less than what the network could hold: beside it stand
constructions.
"""

import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, data
from rethink_jax.config.base import COMPILATION_CACHE, DATA, EXPERIMENT, GRACE_SECONDS
from rethink_jax.config.fields import (
    FLOAT32,
    POSITIVE,
    SEED,
    Allowed,
    Field,
    Fields,
    within,
)
from rethink_jax.distributed import jax_settings, parallel, processes
from rethink_jax.pipeline import inputs
from rethink_jax.runs import display, files, opening
from rethink_jax.runs.own_files import CURVES, POINTS
from rethink_jax.runs.resolve import resolve
from rethink_jax.runs.run_in_parts import Show, run_in_parts
from rethink_jax.runs.writers import write_figure
from rethink_jax.theory import capacity_report, fitting, subsets
from rethink_jax.theory.bisection import Bracket, next_number
from rethink_jax.theory.rademacher import RANDOM, TRUE

_WIDTHS = (
    Allowed(
        "one or more rising whole numbers in [1, 2**20]",
        lambda widths: (
            len(widths) > 0
            and all(type(width) is int and 1 <= width <= 2**20 for width in widths)
            and list(widths) == sorted({*widths})
        ),
    ),
)

FIELDS: Fields = {
    "experiment": EXPERIMENT._replace(default="capacity"),
    "seed": Field(
        0, "Seed of initial weights, of which examples come first, and of labels.", SEED
    )._replace(in_report=False),
    **DATA,
    "capacity.widths": Field(
        (1, 2, 4, 8, 16, 32, 64, 128, 256), "Hidden units of the networks.", _WIDTHS
    ),
    "capacity.draws": Field(
        3,
        "Searches at each width for each kind of labels, each with examples of its own.",
        within(1, 100),
    ),
    "capacity.steps": Field(
        10_000, "Steps in which a network is to fit its examples.", within(1, 10**8)
    ),
    "capacity.batch_size": Field(
        128, "Examples of a step; fewer where a network has fewer.", within(1, 2**20)
    ),
    "capacity.learning_rate": Field(
        0.02,
        "Rate of SGD at the first step, whose momentum is 0.9; it falls along a cosine.",
        POSITIVE + FLOAT32,
    ),
    "capacity.precision": Field(
        0.05,
        "By what share the smallest number that is not fitted may exceed the largest that is.",
        (Allowed("in (0, 1]", lambda value: 0 < value <= 1),),
    ),
    "grace_seconds": GRACE_SECONDS,
    "compilation_cache": COMPILATION_CACHE,
}

KINDS = (RANDOM, TRUE)
# Narrow networks try several times, as many as have so many units together: one dead unit decides less.
_UNITS = 32


class _Search(NamedTuple):
    """One network's search.

    Attributes:
      kind: of its labels, one of `KINDS`.
      draw: its number among those of its kind.
      bracket: what is known.
      guess: where the search begins.
    """

    kind: str
    draw: int
    bracket: Bracket
    guess: int


class _Session(NamedTuple):
    """A run underway.

    Attributes:
      config, path: of the run.
      info: of its data set.
      settings: the config of a training run for each width, resolved.
      trainer: has the training images.
      orders: of each draw, int32 [draws, n].
      seeds: of each draw's networks, uint32 [draws, tries].
      labels: of each kind, int32 [draws, n].
      show: is told what is done and how much of it; raises `Stopped` after a signal.
    """

    config: ConfigDict
    path: epath.Path
    info: data.DatasetInfo
    settings: dict[int, ConfigDict]
    trainer: fitting.Trainer
    orders: np.ndarray
    seeds: np.ndarray
    labels: dict[str, np.ndarray]
    show: Show


@jax_settings.pin_settings()
def run(
    config: ConfigDict, workdir: epath.PathLike | None = None, name: str = "capacity"
) -> dict[str, Any]:
    """Searches for the largest number of examples that each network fits.

    Args:
      config: as `rethink_jax.config.experiment("capacity", …)` returns it, changed at will.
      workdir: the run's directory; by default `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run, and in several processes.
      RunFailed: a loss is not finite, or a file cannot be written.
      Stopped: when a signal came; the searches go on from the last networks that are finished.
    """
    config, _ = resolve(config)
    processes.check_one_process(config)
    with parallel.use_cpu_devices_for(len(KINDS) * config.capacity.draws):
        summary = run_in_parts(
            config, workdir, name, functools.partial(_compute, config), "finished networks are"
        )
    display.print_rows(*capacity_report.short_table(summary))
    return summary


def _compute(
    config: ConfigDict, path: epath.Path, dataset: data.Dataset, show: Show
) -> dict[str, Any]:
    """Ends the searches that the directory has not ended, and writes the summary."""
    noted = {"num_train": dataset.info.num_train, "data_fingerprint": dataset.fingerprint}
    with opening.open_described(path, config, **noted):
        session = _session(config, path, dataset, show)
        saved = files.read_json(path / POINTS) if (path / POINTS).exists() else {}
        probes, seconds = list(saved.get("probes", ())), float(saved.get("seconds", 0.0))
        started, found = time.monotonic() - seconds, []
        guesses: dict[tuple[str, int], tuple[int, int]] = {}
        for width in config.capacity.widths:
            searches = _search(session, width, guesses, probes, started)
            for one in searches:
                guesses[one.kind, one.draw] = width, one.bracket.low
            found.append(_describe(session, width, searches))
        summary = {
            "status": "finished",
            "examples": dataset.info.num_train,
            "dimension": _inputs(session),
            "classes": dataset.info.num_classes,
            "steps": config.capacity.steps,
            "widths": found,
            **capacity_report.conclude(found),
            "probes": len(probes),
            "seconds": time.monotonic() - started,
        }
        write_figure(path / CURVES, (6, 4.5), lambda figure: capacity_report.draw(figure, summary))
        files.write_summary(path, summary)
    return summary


def _session(config: ConfigDict, path: epath.Path, dataset: data.Dataset, show: Show) -> _Session:
    settings = {width: _training_config(config, width, dataset) for width in config.capacity.widths}
    prepared = inputs.prepare(next(iter(settings.values())), dataset)
    draws = [*range(config.capacity.draws)]
    n, true = dataset.info.num_train, dataset.train.labels
    seeds = subsets.member_seeds(config.seed, range(_UNITS * len(draws))).reshape(-1, _UNITS)
    random = [inputs.labels_by(RANDOM, true, dataset.info, int(own[0]), 1.0) for own in seeds]
    order = np.argsort(subsets.draws(config.seed, draws, n), axis=1, kind="stable")
    return _Session(
        *(config, path, dataset.info, settings),
        trainer=fitting.Trainer(dataset.info, prepared.train),
        orders=order.astype(np.int32),
        seeds=seeds,
        labels={RANDOM: np.stack(random), TRUE: np.stack([true] * len(draws))},
        show=show,
    )


def _training_config(config: ConfigDict, width: int, dataset: data.Dataset) -> ConfigDict:
    """Returns the resolved config of a training run with a network of this width."""
    fields = config.capacity
    settings = config_lib.base()
    settings.update_from_flattened_dict(
        {
            **{f"data.{name}": value for name, value in config.data.items()},
            "model.name": "mlp",
            "model.width": width,
            # A network is on one device, and its batch need not be divided.
            "batch_size": len(parallel.devices()),
            "steps": fields.steps,
            "optimizer.learning_rate": fields.learning_rate,
            "optimizer.schedule": "cosine",
        }
    )
    resolved = resolve(settings, dataset)[0]
    resolved.batch_size = fields.batch_size
    return resolved


def _search(
    session: _Session,
    width: int,
    guesses: dict[tuple[str, int], tuple[int, int]],
    probes: list[dict[str, Any]],
    started: float,
) -> list[_Search]:
    """Returns the ended searches of a width; what is tried joins the probes and the directory.

    Args:
      session: of the run.
      width: of the networks.
      guesses: by kind and draw the width before this one and what it fitted; numbers grow with widths.
      probes: of all widths so far; those of this one are not tried again.
      started: when the run's seconds began.
    """
    limit, precision = session.info.num_train, session.config.capacity.precision
    searches = []
    for kind in KINDS:
        for draw in range(session.config.capacity.draws):
            narrower, fitted = guesses.get((kind, draw), (1, session.info.num_classes))
            bracket = Bracket()
            for probe in probes:
                if (probe["width"], probe["kind"], probe["draw"]) == (width, kind, draw):
                    bracket = bracket.update(probe["examples"], probe["wrong"] == 0)
            searches.append(_Search(kind, draw, bracket, max(1, fitted * width // narrower)))
    while True:
        numbers = [next_number(one.bracket, one.guess, limit, precision) for one in searches]
        tried = [i for i, number in enumerate(numbers) if number is not None]
        if not tried:
            return searches
        tasks = [_task(session, width, searches[i], numbers[i] or 0) for i in tried]
        words = ", ".join(f"{task.size:,}" for task in tasks)
        show = functools.partial(session.show, f"width {width}: {words} examples")
        show(0.0)
        fits = session.trainer.fit(session.settings[width], tasks, show)
        for i, task, fit in zip(tried, tasks, fits, strict=True):
            one = searches[i]
            searches[i] = one._replace(bracket=one.bracket.update(task.size, fit.wrong == 0))
            place = {"width": width, "kind": one.kind, "draw": one.draw}
            probes.append({**place, "examples": task.size, **fit._asdict()})
        saved = {"probes": probes, "seconds": time.monotonic() - started}
        files.write_json(session.path / POINTS, saved)


def _task(session: _Session, width: int, search: _Search, size: int) -> fitting.Task:
    draw, tries = search.draw, max(1, _UNITS // width)
    return fitting.Task(
        session.seeds[draw, :tries].tolist(),
        session.orders[draw],
        session.labels[search.kind][draw],
        size,
    )


def _inputs(session: _Session) -> int:
    """Returns how many numbers an image is for a network."""
    side = next(iter(session.settings.values())).data.size
    return int(side * side * session.info.image_shape[-1])


def _describe(session: _Session, width: int, searches: Sequence[_Search]) -> dict[str, Any]:
    """Returns what a width has fitted, beside what constructions of this width fit."""
    limit = session.info.num_train
    return capacity_report.describe(
        width,
        _inputs(session),
        session.info.num_classes,
        {
            kind: [
                (one.bracket.low, one.bracket.low >= limit) for one in searches if one.kind == kind
            ]
            for kind in KINDS
        },
    )
