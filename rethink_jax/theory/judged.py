"""Measures of complexity, judged by how they rank networks and whether they tell true labels from random ones.

Networks of several widths, depths, learning rates and weight decays are trained to the same loss, as Jiang et
al. 2020 (arXiv 1912.02178) and Dziugaite et al. 2020 (arXiv 2010.11924) do on a larger scale. `norms` and
`flatness` have the measures, `ranking` how they are judged, `judged_report` what is told of them.
"""

import itertools
import logging
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, data, models
from rethink_jax.config import sweep_entry
from rethink_jax.config.base import EXPERIMENT, TRAIN
from rethink_jax.config.fields import Allowed, Field, Fields, of_numbers, with_defaults, within
from rethink_jax.corruptions import key_of
from rethink_jax.distributed import jax_settings, preemption, processes
from rethink_jax.errors import RunFailed, require
from rethink_jax.pipeline import inputs
from rethink_jax.pipeline.preprocess import center_crop, whiten
from rethink_jax.runs import display, files
from rethink_jax.runs.own_files import CURVES, POINTS
from rethink_jax.runs.writers import write_figure
from rethink_jax.sweeps import sweep
from rethink_jax.sweeps.estimates import estimate
from rethink_jax.theory import flatness, judged_report, norms, ranking
from rethink_jax.theory.rademacher import RANDOM, RUNS, TRUE, begin
from rethink_jax.training import load, metrics

logger = logging.getLogger(__name__)

_RECIPE = with_defaults(
    TRAIN,
    model__name="mlp",
    epochs=400,
    stop_at_loss=0.01,
    stop_when_fitted=False,
)
# The networks' values are kept, and would not be those of networks that train on.
_FIXED = ("epochs", "steps", "stop_at_loss", "stop_when_fitted", "evaluate.every_epochs")
_WHOLE = "whole numbers in [1, 2**20]"


def _is_size(value: object) -> bool:
    return isinstance(value, int) and 1 <= value <= 2**20


def _are_different(values: Any) -> bool:
    return len({*values}) == len(values)


_DIFFERENT = Allowed("different numbers", _are_different)

FIELDS: Fields = {
    **_RECIPE,
    **{name: _RECIPE[name]._replace(may_change=False) for name in _FIXED},
    # With a loss as small a tenth of the margins cannot be 0 or less: these examples alone have log 2 / 10.
    "stop_at_loss": _RECIPE["stop_at_loss"]._replace(
        allowed=(Allowed("in (0, 0.06]", lambda value: 0 < value <= 0.06),), may_change=False
    ),
    "experiment": EXPERIMENT._replace(default="measures"),
    "measures.widths": Field(
        (64, 128, 256), "Units of each hidden layer.", (*of_numbers(_WHOLE, _is_size), _DIFFERENT)
    ),
    "measures.depths": Field(
        (1, 2, 3), "Hidden layers.", (*of_numbers(_WHOLE, _is_size), _DIFFERENT)
    ),
    "measures.learning_rates": Field(
        (0.01, 0.02, 0.04),
        "Learning rates.",
        (*of_numbers("numbers above 0", lambda value: 0 < value <= 3e38), _DIFFERENT),
    ),
    "measures.weight_decays": Field(
        (0.0, 5e-5, 1e-4),
        "Coefficients of weight decay.",
        (*of_numbers("numbers in [0, 1)", lambda value: 0 <= value < 1), _DIFFERENT),
    ),
    "measures.seeds": Field(2, "Networks of each setting and kind of labels.", within(1, 1000)),
}

AXES = ("widths", "depths", "learning_rates", "weight_decays")
_OF_RUN = ("model.width", "model.depth", "optimizer.learning_rate", "optimizer.weight_decay")
_BATCH = 1000


class Network(NamedTuple):
    """A trained network.

    Attributes:
      one: its run.
      labels: `TRUE` or `RANDOM`.
      setting: the position of its value on each of `AXES`.
    """

    one: sweep.PlannedRun
    labels: str
    setting: tuple[int, ...]


@jax_settings.pin_settings()
def run(
    config: ConfigDict, workdir: epath.PathLike | None = None, name: str = "measures"
) -> dict[str, Any]:
    """Trains networks of many settings on true and on random labels to one loss, and judges measures by them.

    Args:
      config: as `rethink_jax.config.experiment("measures", …)` returns it, changed at will.
      workdir: the directory, with a sweep of the runs in it; by default
        `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run.
      RunFailed: where a run has failed, or none with true labels has reached the loss.
      Stopped: when a signal came; the state is saved.
    """
    processes.check_one_process(config)
    check(config)

    def sweep_of(settings: ConfigDict, dataset: data.Dataset) -> ConfigDict:
        return _sweep(config, settings)

    path, settings, dataset = begin(
        config, "measures", workdir, name, sweep_of, in_two_classes=False
    )
    planned = sweep.plan(_sweep(config, settings), path / RUNS, dataset)
    sweep.run(_sweep(config, settings), path / RUNS, dataset)
    networks = _networks(config, planned)
    measured, seconds = _measure_all(path, networks, dataset)
    summary = summarize(config, networks, measured) | {
        "model": planned[0].config.model.name,
        "examples": dataset.info.num_train,
        "seconds_of_measures": seconds,
    }
    write_figure(path / CURVES, (10, 8), lambda figure: judged_report.draw(figure, summary))
    files.write_summary(path, summary)
    display.print_rows(*judged_report.table(summary))
    display.print_rows(*judged_report.ranks_table(summary))
    return summary


def check(config: ConfigDict) -> None:
    """Raises `UserError` for a config whose networks could not be compared."""
    name, examples = config.model.name, config.evaluate.examples
    require(name == "mlp", "model.name", name, "mlp; the norms are those of its layers")
    require(examples is None, "evaluate.examples", examples, "left out: all examples are needed")
    require(not config.data.stream, "data.stream", True, "False for measures")
    crops = config.augment.random_crop
    require(not crops, "augment.random_crop", crops, "False for measures: margins are of one view")


def _settings(config: ConfigDict) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(len(config.measures[axis])) for axis in AXES)))


def _sweep(config: ConfigDict, settings: ConfigDict) -> ConfigDict:
    """Returns the sweep of all networks: a run for each setting and kind of labels."""
    entries = []
    for labels in (TRUE, RANDOM):
        for setting in _settings(config):
            values = [config.measures[axis][i] for axis, i in zip(AXES, setting, strict=True)]
            numbers = [*values[:2], *map(float, values[2:])]
            fields = dict(zip(_OF_RUN, numbers, strict=True)) | {"corruption.name": labels}
            name = "width{:g}-depth{:g}-rate{:g}-decay{:g}".format(*values)
            # Whether a rate is too large for a depth is a result, too.
            entries.append(sweep_entry(f"{name}-{labels}", fields, expect_divergence=True))
    networks = config_lib.as_sweep(ConfigDict(settings.to_dict()), "measures", "full", entries)
    networks.sweep.seeds = config.measures.seeds
    return networks


def _networks(config: ConfigDict, planned: list[sweep.PlannedRun]) -> list[Network]:
    """Returns the networks of the runs, which are in the order of the sweep's, seed after seed."""
    kinds = [(labels, setting) for labels in (TRUE, RANDOM) for setting in _settings(config)]
    assert len(planned) == config.measures.seeds * len(kinds)
    return [Network(one, *kinds[i % len(kinds)]) for i, one in enumerate(planned)]


def _measure_all(
    path: epath.Path, networks: list[Network], dataset: data.Dataset
) -> tuple[dict[str, dict[str, float]], float]:
    """Returns the measures of each network that reached the loss, by its run's name, and the seconds taken.

    After each network they are saved: a stopped run resumes with the next one.
    """
    saved = files.read_json(path / POINTS) if (path / POINTS).exists() else {}
    measured, seconds = dict(saved.get("networks", {})), float(saved.get("seconds", 0.0))
    started = time.monotonic() - seconds
    fitted = [network for network in networks if _has_fitted(network)]
    examples = _Examples(dataset)
    with preemption.stop_on_signals() as stop_request, display.show_parts() as show:
        stop_request.saved = (
            f"stopped; what is measured is saved in {path}; run the same command again"
        )
        for number, network in enumerate(fitted):
            stop_request.raise_if_stopped()
            show("measures", number / len(fitted))
            if network.one.path.name not in measured:
                classes = dataset.info.num_classes
                measured[network.one.path.name] = _measure(network, *examples.of(network), classes)
                seconds = time.monotonic() - started
                files.write_json(path / POINTS, {"networks": measured, "seconds": seconds})
    return measured, seconds


def _has_fitted(network: Network) -> bool:
    config, summary = network.one.config, files.read_summary(network.one.path) or {}
    return summary.get("status") == "finished" and metrics.is_fitted(config, summary)


class _Examples:
    """The training examples that networks see: images once, and the labels of each corruption."""

    def __init__(self, dataset: data.Dataset):
        self._dataset = dataset
        self._images: jax.Array | None = None

    def of(self, network: Network) -> tuple[jax.Array, np.ndarray]:
        """Returns images as the model takes them, float32 [n, ...], and labels, int32 [n]."""
        config, train = network.one.config, self._dataset.train
        if self._images is None:
            images = inputs.prepare(config, self._dataset).train.images
            self._images = whiten(center_crop(jnp.asarray(images), config.data.size))
        labels = inputs.corrupt_labels(config.corruption, "train", train.labels, self._dataset.info)
        return self._images, np.asarray(labels, np.int32)


def _measure(
    network: Network, images: jax.Array, labels: np.ndarray, classes: int
) -> dict[str, float]:
    """Returns all measures of a network, and its margin, σ and α."""
    config, n = network.one.config, len(labels)
    params = load.load_run(network.one.path).params
    model = models.create(config.model, classes, config.dtype)
    start = _initialize(model, key_of(config.seed), images[:1])
    parts = [_logits(model, params, images[i : i + _BATCH]) for i in range(0, n, _BATCH)]
    gamma = norms.margin(np.concatenate(parts), labels)
    sigma = float(flatness.noise(model, params, images, labels, key_of(0)))
    alpha = float(flatness.radius(model, params, images, labels))
    distance = metrics.of_weights(params, start)["weight_distance"]
    return {
        **norms.measure(params, start, gamma, n),
        **flatness.measure(sigma, alpha, distance, n),
        "margin": gamma,
        "sigma": sigma,
        "alpha": alpha,
    }


def _initialize(model: Any, key: jax.Array, images: jax.Array) -> dict[str, Any]:
    """Returns the parameters that training began with."""
    params: dict[str, Any] = jax.device_get(model.init(key, jnp.zeros_like(images))["params"])
    return params


def _logits(model: Any, params: Any, images: jax.Array) -> np.ndarray:
    return np.asarray(model.apply({"params": params}, images))


def gap_of(summary: dict[str, Any], labels: str) -> float:
    """Returns test error − training error of a run's summary, with random labels by random test labels."""
    suffix = "_corrupted" if labels == RANDOM else ""
    return float(summary["train_accuracy"] - summary[f"test_accuracy{suffix}"])


def summarize(
    config: ConfigDict, networks: list[Network], measured: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """Returns `summary.json`: how each measure ranks networks on true labels, and its level on both kinds.

    Raises:
      RunFailed: a kind of labels has fewer than two networks that reached the loss.
    """
    summaries = [files.read_summary(network.one.path) or {} for network in networks]
    points = [
        {
            "name": network.one.path.name,
            "labels": network.labels,
            "setting": list(network.setting),
            "seed": network.one.seed,
            "gap": gap_of(summary, network.labels),
        }
        | measured[network.one.path.name]
        for network, summary in zip(networks, summaries, strict=True)
        if network.one.path.name in measured
    ]
    of_kind = {kind: [p for p in points if p["labels"] == kind] for kind in (TRUE, RANDOM)}
    for kind, ones in of_kind.items():
        if len(ones) < 2:
            raise RunFailed(
                f"{len(ones)} networks reached a loss of {config.stop_at_loss:g} on {kind}, and nothing can be "
                "compared; raise config.epochs in another --workdir"
            )
    return {
        "status": "finished",
        "loss": config.stop_at_loss,
        "settings": len(_settings(config)),
        "seeds": config.measures.seeds,
        "axes": {axis: list(config.measures[axis]) for axis in AXES},
        "networks": len(networks),
        "fitted": {kind: len(ones) for kind, ones in of_kind.items()},
        "left_out": [n.one.path.name for n in networks if n.one.path.name not in measured],
        "gap": {
            kind: estimate([p["gap"] for p in ones])._asdict() for kind, ones in of_kind.items()
        },
        "measures": {name: _judge(name, of_kind, config) for name in judged_report.MEASURES},
        "points": points,
        "seconds": sum(summary.get("seconds", 0.0) for summary in summaries),
    }


def _judge(
    name: str, of_kind: dict[str, list[dict[str, Any]]], config: ConfigDict
) -> dict[str, Any]:
    """Returns what `summary.json` says of one measure."""
    true = of_kind[TRUE]
    values, gaps, settings, seeds = (
        np.array([point[field] for point in true]) for field in (name, "gap", "setting", "seed")
    )
    ranked = ranking.judge(values, gaps, settings, seeds)
    levels = {kind: estimate([p[name] for p in ones])._asdict() for kind, ones in of_kind.items()}
    most = max(len(config.measures[axis]) for axis in AXES)
    environments = {}
    for number, error in ranked["environments"].items():
        axis, i = AXES[number // most], number % most
        low, high = config.measures[axis][i : i + 2]
        environments[f"{axis} {low:g} to {high:g}"] = error
    psi = {axis: value._asdict() for axis, value in zip(AXES, ranked["psi"], strict=True)}
    others = ("tau", "Psi", "sign_error", "worst_sign_error")
    return {
        "levels": levels,
        "ratio": levels[RANDOM]["mean"] / levels[TRUE]["mean"],
        "psi": psi,
        "environments": environments,
        **{statistic: ranked[statistic]._asdict() for statistic in others},
    }
