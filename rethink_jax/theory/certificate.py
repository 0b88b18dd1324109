"""A certificate from random labels: networks trained on some of them bound their own test error.

Garg et al. 2021 (RATT, arXiv 2105.00303) in two classes; `ratt` has the bound. Each network is a training run
with records, which tell what it has wrong after each epoch.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, corruptions, data
from rethink_jax.config import sweep_entry
from rethink_jax.config.base import EXPERIMENT
from rethink_jax.config.fields import COUNT, Allowed, Field, Fields, with_defaults, within
from rethink_jax.distributed import jax_settings, processes
from rethink_jax.errors import require
from rethink_jax.pipeline import inputs
from rethink_jax.runs import display, files
from rethink_jax.runs.own_files import CURVES
from rethink_jax.runs.writers import write_figure
from rethink_jax.sweeps import sweep
from rethink_jax.sweeps.estimates import estimate
from rethink_jax.theory import ratt
from rethink_jax.theory.rademacher import OF_MLP1, RANDOM, RUNS, TRUE, begin
from rethink_jax.training import records

# Our choice: the first epochs leave the random labels alone, and the last ones fit them.
_RECIPE = with_defaults(
    OF_MLP1,
    epochs=60,
    stop_when_fitted=False,
    optimizer__learning_rate=0.05,
    optimizer__schedule="cosine",
)
# δ is divided among the evaluations of a run, whose number must not change once it has begun.
_FIXED = ("epochs", "steps", "evaluate.every_epochs")

FIELDS: Fields = {
    **_RECIPE,
    **{name: _RECIPE[name]._replace(may_change=False) for name in _FIXED},
    "experiment": EXPERIMENT._replace(default="certificate"),
    "certificate.random_examples": Field(
        10_000,
        "Training examples whose labels are fair coins; the others have the labels of `config.corruption`.",
        COUNT,
    ),
    "certificate.draws": Field(
        10,
        "Networks, each with random labels, initial weights and order of its own.",
        within(1, 1000),
    ),
    "certificate.delta": Field(
        0.05,
        "Probability that a network's certificate fails at any of its evaluations.",
        (Allowed("in (0, 1)", lambda value: 0 < value < 1),),
    ),
}

# Test errors, and shares of the training examples known by heart, for which coverage is simulated.
_SIMULATED = ((0.03, 0.0), (0.3, 0.0), (0.5, 0.0), (0.03, 0.5))


class History(NamedTuple):
    """A network's errors and certificates after k evaluations; float64 [k] but for the numbers.

    Attributes:
      epochs: at which it was evaluated.
      labelled: its error on the labelled training examples.
      random: its error on the randomly labelled ones, by their labels.
      certificate: of its test error.
      test: its test error.
      wrong: its error on the randomly labelled examples whose label is wrong; on all of them where the others'
        labels are random, too, and any half may count as wrong.
      slack: what the assumption allows that error to be above the error on new wrong labels.
      n, m: how many examples are labelled and randomly labelled.
    """

    epochs: np.ndarray
    labelled: np.ndarray
    random: np.ndarray
    certificate: np.ndarray
    test: np.ndarray
    wrong: np.ndarray
    slack: float
    n: int
    m: int

    @property
    def excess(self) -> np.ndarray:
        """By how much the error on wrong labels exceeds that on new ones, 1 less the test error."""
        return self.wrong - (1 - self.test)


@jax_settings.pin_settings()
def run(
    config: ConfigDict, workdir: epath.PathLike | None = None, name: str = "certificate"
) -> dict[str, Any]:
    """Trains on labelled and randomly labelled examples, and bounds the test error after every epoch.

    Args:
      config: as `rethink_jax.config.experiment("certificate", …)` returns it, changed at will.
      workdir: the directory, with a sweep of the runs in it; by default
        `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run.
      RunFailed: where a run has failed.
      Stopped: when a signal came; the state is saved.
    """
    processes.check_one_process(config)
    check(config)
    sweep_of = functools.partial(_sweep, config)
    path, settings, dataset = begin(config, "certificate", workdir, name, sweep_of)
    networks = sweep_of(settings, dataset)
    planned = sweep.plan(networks, path / RUNS, dataset)
    sweep.run(networks, path / RUNS, dataset)
    histories = [history_of(config, one, dataset) for one in planned]
    seconds = sum((files.read_summary(one.path) or {})["seconds"] for one in planned)
    summary = summarize(config, histories, looks(planned[0].config, dataset.info.num_train)) | {
        "model": planned[0].config.model.name,
        "seconds": seconds,
    }
    write_figure(path / CURVES, (6, 4), lambda figure: draw(figure, summary))
    files.write_summary(path, summary)
    display.print_rows(*table(summary))
    return summary


def check(config: ConfigDict) -> None:
    """Raises `UserError` for a config whose bound would not hold, or not be known."""
    name = config.corruption.name
    require(name in (TRUE, RANDOM), "corruption.name", name, f"{TRUE} or {RANDOM}")
    every, examples = config.records.every_epochs, config.evaluate.examples
    allowed = "left out for certificate, which keeps a record of each evaluation"
    require(every is None, "records.every_epochs", every, allowed)
    require(examples is None, "evaluate.examples", examples, "left out: all examples are needed")
    require(not config.data.stream, "data.stream", True, "False for certificate")


def _sweep(config: ConfigDict, settings: ConfigDict, dataset: data.Dataset) -> ConfigDict:
    """Returns the sweep of all networks: a run for each draw, which has seeds of its own."""
    fields, n = config.certificate, dataset.info.num_train
    allowed = f"less than {n}, the training examples"
    require(
        fields.random_examples < n, "certificate.random_examples", fields.random_examples, allowed
    )
    entries = []
    for draw in range(fields.draws):
        own = ConfigDict(config.corruption.to_dict())
        own.seed += draw
        change = {"seed": config.seed + draw, "corruption.seed": own.seed}
        if config.corruption.name == TRUE:
            change["corruption.name"] = "partially_corrupted_labels"
            change["corruption.probability"] = float(_threshold(own, n, fields.random_examples))
        else:
            change["corruption.name"] = RANDOM
        entries.append(sweep_entry(f"draw{draw}", change))
    settings = ConfigDict(settings.to_dict())
    default = config_lib.base()
    settings.seed, settings.corruption.seed = default.seed, default.corruption.seed
    settings.records.every_epochs = settings.evaluate.every_epochs
    return config_lib.as_sweep(settings, "certificate", "full", entries)


def _threshold(corruption: ConfigDict, n: int, count: int) -> np.float32:
    """Returns the probability at which so many of n labels are replaced: fewer only where chances are equal."""
    chances = _chances(corruption, n)
    return np.partition(chances, count)[count]


def _chances(corruption: ConfigDict, n: int) -> np.ndarray:
    key = inputs.split_key(corruption, "train")
    return np.asarray(corruptions.replacement_chances(key, jnp.arange(n, dtype=jnp.int32)))


def looks(config: ConfigDict, n: int) -> int:
    """Returns how many evaluations a run on n examples has, among which one is chosen; of a resolved config."""
    per_look = config_lib.steps_per_epoch(config, n) * config.evaluate.every_epochs
    return math.ceil(config_lib.total_steps(config, n) / per_look)


def history_of(config: ConfigDict, one: sweep.PlannedRun, dataset: data.Dataset) -> History:
    """Returns the errors and certificates of a finished run; `UserError` where its records cannot be read.

    Args:
      config: of the experiment.
      one: the run.
      dataset: in two classes.
    """
    found, corruption = records.read(one.path), one.config.corruption
    assert found is not None
    n, delta = dataset.info.num_train, config.certificate.delta
    labels = inputs.corrupt_labels(corruption, "train", dataset.train.labels, dataset.info)
    test_labels = dataset.test.labels
    if config.corruption.name == RANDOM:
        test_labels = inputs.corrupt_labels(corruption, "test", test_labels, dataset.info)
    is_random = _chances(corruption, n) < _threshold(
        corruption, n, config.certificate.random_examples
    )
    is_wrong_label, wrong_labels = is_random, is_random.sum() / 2
    if config.corruption.name == TRUE:
        is_wrong_label = is_random & (labels != dataset.train.labels)
        wrong_labels = is_wrong_label.sum()
    errors = found.train.answer != labels[None]
    n, m = int((~is_random).sum()), int(is_random.sum())
    number = looks(one.config, n + m)
    counts = (errors[:, ~is_random].sum(axis=1), errors[:, is_random].sum(axis=1))
    return History(
        found.steps / config_lib.steps_per_epoch(one.config, n + m),
        counts[0] / n,
        counts[1] / m,
        ratt.certificate(counts[0], n, counts[1], m, delta, number),
        np.mean(found.test.answer != test_labels[None], axis=1),
        errors[:, is_wrong_label].mean(axis=1),
        ratt.hoeffding(delta / (3 * number), wrong_labels),
        n,
        m,
    )


def summarize(config: ConfigDict, histories: list[History], number: int) -> dict[str, Any]:
    """Returns `summary.json` from each network's history and the number of evaluations that δ is paid for."""
    chosen = [int(one.certificate.argmin()) for one in histories]
    last = [len(one.epochs) - 1 for one in histories]
    n, m, delta = histories[0].n, histories[0].m, config.certificate.delta
    margins = np.concatenate([one.certificate - one.test for one in histories])
    excess = np.concatenate([one.excess for one in histories])
    is_kept = np.concatenate([one.excess <= one.slack for one in histories])
    return {
        "status": "finished",
        "labels": config.corruption.name,
        "labelled_examples": n,
        "random_examples": m,
        "delta": delta,
        "looks": number,
        "draws": len(histories),
        "chosen": _at(histories, chosen),
        "last": _at(histories, last),
        "evaluations": len(margins),
        "below_test_error": int((margins < 0).sum()),
        "smallest_margin": float(margins.min()),
        "assumption": {
            "greatest_excess": float(excess.max()),
            "slack": max(one.slack for one in histories),
            "kept": int(is_kept.sum()),
        },
        "coverage": [
            ratt.simulate(n, m, delta, error, fitted)._asdict() for error, fitted in _SIMULATED
        ],
        "histories": [
            {
                name: getattr(one, name).tolist()
                for name in ("epochs", "labelled", "random", "certificate", "test", "wrong")
            }
            for one in histories
        ],
    }


def _at(histories: list[History], indices: list[int]) -> dict[str, Any]:
    """Returns each quantity at one evaluation of each network, over the networks."""
    at = {
        name: [float(getattr(one, name)[i]) for one, i in zip(histories, indices, strict=True)]
        for name in ("epochs", "labelled", "random", "certificate", "test", "wrong")
    }
    leading = ratt.leading_term(np.array(at["labelled"]), np.array(at["random"])).tolist()
    return {
        name: estimate(values)._asdict() | {"least": min(values), "greatest": max(values)}
        for name, values in {**at, "leading_term": leading}.items()
    }


def table(summary: dict[str, Any]) -> display.Rows:
    """Returns errors and certificates at the chosen and at the last evaluation, in words."""
    percent, assumption, count = display.percent, summary["assumption"], summary["evaluations"]

    def at_both(label: str, name: str, show: Callable[[float], str] = percent) -> tuple[str, ...]:
        found = [summary[when][name] for when in ("chosen", "last")]
        return label, *(
            f"{show(one['mean'])} ({show(one['least'])} to {show(one['greatest'])})"
            for one in found
        )

    excess, slack = (percent(assumption[name]) for name in ("greatest_excess", "slack"))
    coverage = min(one["certificate"] for one in summary["coverage"])
    rows = [
        at_both("epoch", "epochs", "{:g}".format),
        at_both("error on labelled examples", "labelled"),
        at_both("error on randomly labelled examples", "random"),
        at_both("labelled + 1 − 2 · randomly labelled", "leading_term"),
        at_both("certificate, under the assumption", "certificate"),
        at_both("test error", "test"),
        at_both("error on wrong labels", "wrong"),
        ("certificate below the test error", f"{summary['below_test_error']} of {count}", ""),
        ("certificate less test error, at least", percent(summary["smallest_margin"]), ""),
        ("assumption kept", f"{assumption['kept']} of {count}", ""),
        ("error on wrong labels less that on new ones, at most", excess, f"allowed: {slack}"),
        ("simulated coverage, at least", percent(coverage), ""),
    ]
    title = (
        "Certificate from random labels: {model}, {labelled_examples:,} examples with {kind} and "
        "{random_examples:,} with random ones, δ = {delta:g}, {looks} evaluations, {draws} draws"
    )
    kind = summary["labels"].replace("_", " ")
    return title.format(kind=kind, **summary), ("", "smallest certificate", "last evaluation"), rows


def draw(figure: Any, summary: dict[str, Any]) -> None:
    """Draws every network's errors and certificate against epochs on an empty figure of matplotlib's."""
    axes = figure.subplots()
    for name, label, colour in (
        ("certificate", "certificate", "tab:red"),
        ("random", "error on randomly labelled examples", "tab:orange"),
        ("labelled", "error on labelled examples", "tab:blue"),
        ("test", "test error", "tab:green"),
    ):
        for number, one in enumerate(summary["histories"]):
            values = [100 * value for value in one[name]]
            axes.plot(one["epochs"], values, color=colour, lw=1, label=None if number else label)
    axes.set(xlabel="epoch", ylabel="%", ylim=(0, 105))
    axes.legend()
    axes.grid(alpha=0.3)
