"""A bound on a network's error from its training set alone (Dziugaite and Roy 2017, arXiv 1703.11008).

SGD trains a network of one hidden layer on two classes. From there Adam moves a Gaussian over its weights to
where the PAC-Bayes bound is lowest. The bound is then computed with a training error that draws of weights
estimate.
"""

import functools
import time
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import data
from rethink_jax.config.base import (
    COMPILATION_CACHE,
    CORRUPTION,
    DATA,
    EXPERIMENT,
    GRACE_SECONDS,
)
from rethink_jax.config.fields import (
    FLOAT32,
    POSITIVE,
    SEED,
    Allowed,
    Field,
    Fields,
    one_of,
    within,
)
from rethink_jax.distributed import jax_settings, processes
from rethink_jax.errors import require
from rethink_jax.kernels.session import seconds_before
from rethink_jax.pipeline import inputs
from rethink_jax.runs import display, files, opening
from rethink_jax.runs.resolve import resolve
from rethink_jax.runs.run_in_parts import Show, run_in_parts
from rethink_jax.theory import pac_bayes_training as training, posterior as lib
from rethink_jax.theory.rademacher import two_classes

_PROBABILITY = (Allowed("in (0, 0.5)", lambda value: 0 < value < 0.5),)
_LABELS = ("true_labels", "random_labels")

FIELDS: Fields = {
    "experiment": EXPERIMENT._replace(default="pac_bayes"),
    "seed": Field(
        0,
        "Seed of the first weights, of the order of examples and of draws.",
        SEED,
        in_report=False,
    ),
    **DATA,
    **CORRUPTION,
    "corruption.name": CORRUPTION["corruption.name"]._replace(allowed=one_of(*_LABELS)),
    "pac_bayes.width": Field(600, "Hidden units.", within(1, 2**20)),
    "pac_bayes.sgd_epochs": Field(
        20, "Epochs of SGD before the bound is lowered.", within(1, 10**6)
    ),
    "pac_bayes.sgd_learning_rate": Field(
        0.01, "Rate of SGD, whose momentum is 0.9.", POSITIVE + FLOAT32
    ),
    "pac_bayes.epochs": Field(30, "Epochs in which the bound is lowered.", within(1, 10**6)),
    "pac_bayes.batch_size": Field(500, "Examples of a step of theirs.", within(1, 2**20)),
    "pac_bayes.learning_rate": Field(
        0.003,
        "Rate of Adam at the first of these steps; it falls along a cosine.",
        POSITIVE + FLOAT32,
    ),
    "pac_bayes.delta": Field(
        0.025,
        "Probability that the training examples are such that the bound does not hold.",
        _PROBABILITY,
    ),
    "pac_bayes.sampling_delta": Field(
        0.01, "Probability that the draws of weights are such that it does not hold.", _PROBABILITY
    ),
    "pac_bayes.passes": Field(
        20,
        "Draws of weights for each example, from which its error is estimated.",
        within(1, 10**6),
    ),
    "grace_seconds": GRACE_SECONDS,
    "compilation_cache": COMPILATION_CACHE,
}


@jax_settings.pin_settings()
def run(
    config: ConfigDict, workdir: epath.PathLike | None = None, name: str = "pac_bayes"
) -> dict[str, Any]:
    """Trains a network, lowers the PAC-Bayes bound on a posterior around it, and computes the bound.

    Args:
      config: as `rethink_jax.config.experiment("pac_bayes", …)` returns it, changed at will.
      workdir: the run's directory; by default `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run, and in several processes.
      RunFailed: a loss is not finite, or a file cannot be written.
      Stopped: when a signal came; the epochs that are finished are saved.
    """
    config, info = resolve(config)
    processes.check_one_process(config)
    check(config, info)
    summary = run_in_parts(
        config, workdir, name, functools.partial(_compute, config), "finished epochs are"
    )
    display.print_rows(*table(summary))
    return summary


def check(config: ConfigDict, info: data.DatasetInfo) -> None:
    """Raises `UserError` for a data set that cannot be used.

    Args:
      config: resolved.
      info: of its data set.
    """
    classes, n = info.num_classes, info.num_train
    allowed = f"a data set of 2 or more classes; {info.name} has {classes}"
    require(classes >= 2, "data.name", config.data.name, allowed)
    require(n >= 2, "data.examples", n, "2 or more for a bound")
    size = config.pac_bayes.batch_size
    require(size <= n, "pac_bayes.batch_size", size, f"at most {n}, the training examples")


def _compute(
    config: ConfigDict, path: epath.Path, dataset: data.Dataset, show: Show
) -> dict[str, Any]:
    """Trains from where the directory's checkpoint is, computes the bound, and writes the summary."""
    session = _session(config, path, two_classes(dataset), show)
    noted = {"num_train": dataset.info.num_train, "data_fingerprint": dataset.fingerprint}
    with opening.open_described(path, config, **noted):
        started = time.monotonic() - seconds_before(path)
        posterior, history = training.train(session, dataset.fingerprint, started)
        fields = config.pac_bayes
        first = fields.sgd_epochs + fields.epochs + 1
        numbers = range(first, first + fields.passes)
        show_draws = functools.partial(show, "draws of weights")
        summary = {
            "status": "finished",
            "labels": config.corruption.name,
            "examples": len(session.train.labels),
            "test_examples": len(session.test.labels),
            "parameters": sum(part.size for part in session.prior_means),
            "sgd": {split: history[0][f"sgd_{split}_error"] for split in ("train", "test")},
            "start": {name: history[0][name] for name in training.Certificate._fields},
            "optimized": training.certify(session, posterior, numbers, show_draws)._asdict(),
            "delta": fields.delta,
            "sampling_delta": fields.sampling_delta,
            "seconds": time.monotonic() - started,
        }
        files.write_summary(path, summary)
    return summary


def _session(
    config: ConfigDict, path: epath.Path, dataset: data.Dataset, show: Show
) -> training.Session:
    """Returns the session of a run on a data set of two classes."""

    def prepare(split: str, examples: data.Examples) -> lib.Data:
        labels = inputs.corrupt_labels(
            config.corruption, split, examples.labels, dataset.info, examples.own_ids
        )
        pixels = examples.images.reshape(len(labels), -1).astype(np.float32) / np.float32(255)
        ones = np.pad(pixels, ((0, 0), (0, 1)), constant_values=1)
        return lib.Data(jnp.asarray(ones), jnp.asarray(2 * labels - 1, jnp.float32))

    train, test = prepare("train", dataset.train), prepare("test", dataset.test)
    prior_means = lib.initial_weights(
        config.seed, train.inputs.shape[1] - 1, config.pac_bayes.width
    )
    return training.Session(config, path, train, test, prior_means, show)


def table(summary: dict[str, Any]) -> display.Rows:
    """Returns errors and bounds, in words."""
    title = "PAC-Bayes bound: {examples:,} examples with {labels}, {parameters:,} weights, probability {sure:g}"
    columns = (
        *("weights", "training error", "test error", "KL", "λ"),
        *("bound, Pinsker's", "bound, kl inverted"),
    )
    percent = display.percent
    sgd = [percent(summary["sgd"][split]) for split in ("train", "test")]
    rows = [("SGD's", *sgd, *4 * ("—",))]
    for kind, words in (("start", "random, around SGD's"), ("optimized", "random, bound lowered")):
        one = summary[kind]
        errors = [percent(one[f"{split}_error"]) for split in ("train", "test")]
        numbers = (f"{one['kl']:,.0f}", f"{one['prior_variance']:.2g}")
        rows.append((words, *errors, *numbers, percent(one["pinsker"]), percent(one["bound"])))
    sure = 1 - summary["delta"] - summary["sampling_delta"]
    words = summary["labels"].replace("_", " ")
    return title.format(**{**summary, "labels": words, "sure": sure}), columns, rows


def verdict(summary: dict[str, Any]) -> str:
    """Returns the paper's claim, what was found, and whether the claim came out, in words."""
    percent, start, end = display.percent, summary["start"], summary["optimized"]
    if summary["labels"] == "true_labels":
        claim = "a network that has learned true labels has, near it, a bound on its error far below chance"
        found = f"{percent(end['bound'])}, and a test error of {percent(end['test_error'])}"
        came_out = end["test_error"] <= end["bound"] < 0.5
    else:
        claim = "on random labels the bound says nothing"
        unfitted = (percent(one) for one in (summary["sgd"]["train"], end["train_error"]))
        found = "{} around SGD's weights, which get {} of them wrong, and {} where it is lowest, with {} wrong"
        bounds_found = (percent(one["bound"]) for one in (start, end))
        found = found.format(
            *(one for pair in zip(bounds_found, unfitted, strict=True) for one in pair)
        )
        came_out = min(start["bound"], end["bound"]) >= 0.5
    ending = "It came out." if came_out else "It did not come out."
    return f"Dziugaite and Roy (2017): {claim}. Ours: {found}. {ending}"
