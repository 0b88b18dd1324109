"""Theorem 1, Corollary 1 and Baum's on a data set: constructs networks, runs them, counts what they fit."""

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, data, paper
from rethink_jax.config.base import COMPILATION_CACHE, DATA, EXPERIMENT, RANDOM_LABELS, SYNTHETIC
from rethink_jax.config.fields import PAPER, SEED, Field, Fields, one_of, within
from rethink_jax.corruptions import FROM_FILE
from rethink_jax.distributed import jax_settings
from rethink_jax.errors import require
from rethink_jax.pipeline import inputs
from rethink_jax.pipeline.preprocess import center_crop
from rethink_jax.runs import display, run_once
from rethink_jax.runs.resolve import resolve
from rethink_jax.theory import baum, theorem1

logger = logging.getLogger(__name__)

FIELDS: Fields = {
    "experiment": EXPERIMENT._replace(default="expressivity"),
    "seed": Field(0, "Seed of the direction a, and of synthetic points.", SEED, in_report=False),
    **DATA,
    **RANDOM_LABELS,
    "synthetic.points": Field(
        paper.IMAGENET_TRAIN,
        "Random points, for `data.name=synthetic`: ImageNet's.",
        within(1, 10**8),
        PAPER,
    ),
    "synthetic.dimension": Field(100, "Their coordinates.", within(1, 10**6)),
    "synthetic.classes": Field(1000, "Their classes.", within(1, 10**6), PAPER),
    "theorem.depth": Field(5, "Layers of the network of Corollary 1.", within(1, 10**4)),
    "theorem.evaluate_all_up_to": Field(
        100_000, "Largest number of points at which whole networks are evaluated.", within(1, 10**6)
    ),
    "theorem.sample_size": Field(
        10_000, "Points at which they are evaluated where there are more.", within(1, 10**6)
    ),
    "theorem.construction": Field(
        None,
        "The network: Theorem 1's of n units, or Baum's of about 4n/d beside it, on the central crop.",
        one_of("theorem1", "baum"),
        kind=str,
        unset="theorem1",
        is_later=True,
    ),
    "compilation_cache": COMPILATION_CACHE,
}

# Keep the draws of points, and of those that are run, apart from each other and from the direction a.
_POINTS, _SAMPLE = 1, 2


@jax_settings.pin_settings()
def run(
    config: ConfigDict, workdir: epath.PathLike | None = None, name: str = "expressivity"
) -> dict[str, Any]:
    """Constructs a network that has the labels of a data set at its points, and says how exactly it does.

    Args:
      config: as `rethink_jax.config.experiment("expressivity", …)` returns it, changed at will.
      workdir: the run's directory; by default `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run, and for equal points.
    """
    config, info = resolve(config)
    if _is_baum(config):
        name = config.corruption.name
        allowed = "another corruption for Baum's two classes, of which this one knows nothing"
        of_classes = ("asymmetric_labels", *FROM_FILE)
        require(name not in of_classes, "corruption.name", name, allowed)

    def load() -> data.Dataset | None:
        return None if config.data.name == SYNTHETIC else data.load(config.data)

    def compute(dataset: data.Dataset | None) -> tuple[dict[str, Any], int]:
        if _is_baum(config):
            return _run_baum(config, info, *_examples(config, dataset))
        points, labels = _points(config, info, dataset)
        return _run(config, points, labels), len(labels)

    return run_once.run_once(config, workdir, name, load, compute, table)


def _is_baum(config: ConfigDict) -> bool:
    return bool(config.theorem.construction == "baum")


def _points(
    config: ConfigDict, info: data.DatasetInfo, dataset: data.Dataset | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns points uint8 [n, d] and labels int32 [n], corrupted as the config says."""
    points, labels, own_ids = _examples(config, dataset)
    return points, inputs.corrupt_labels(config.corruption, "train", labels, info, own_ids)


def _examples(
    config: ConfigDict, dataset: data.Dataset | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Returns points uint8 [n, d], their own labels int32 [n], and what the data set calls them."""
    if dataset is None:
        made, rng = config.synthetic, np.random.default_rng([config.seed, _POINTS])
        points = rng.integers(0, 256, (made.points, made.dimension), dtype=np.uint8)
        labels = rng.integers(0, made.classes, made.points, dtype=np.int32)
        return points, labels, None
    images = dataset.train.images
    if _is_baum(config):
        images = center_crop(images, config_lib.default_size(min(images.shape[1:3])))
    points = images.reshape(dataset.info.num_train, -1)
    return points, dataset.train.labels, dataset.train.own_ids


def _run_baum(
    config: ConfigDict,
    info: data.DatasetInfo,
    points: np.ndarray,
    labels: np.ndarray,
    own_ids: np.ndarray | None,
) -> tuple[dict[str, Any], int]:
    halves = (labels >= info.num_classes // 2).astype(labels.dtype)
    two_classes = dataclasses.replace(info, num_classes=2)
    halves = inputs.corrupt_labels(config.corruption, "train", halves, two_classes, own_ids)
    labels = inputs.corrupt_labels(config.corruption, "train", labels, info, own_ids)
    return baum.summarize(points, halves, labels, config.seed), len(labels)


def _run(config: ConfigDict, points: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    started = time.perf_counter()
    network = theorem1.construct(points, labels, config.seed)
    seconds = time.perf_counter() - started
    logger.info("%s weights constructed in %.1f s", f"{network.size:,}", seconds)
    z = theorem1.project(points, network.a)
    order = np.argsort(z)
    plain = network._replace(
        **dict(zip("bw", theorem1.solve_plainly(z[order], labels[order]), strict=True))
    )
    chosen = slice(None)
    if len(labels) > config.theorem.evaluate_all_up_to:
        rng = np.random.default_rng([config.seed, _SAMPLE])
        count = min(config.theorem.sample_size, len(labels))
        chosen = rng.choice(len(labels), count, replace=False)
    some, depth = points[chosen], config.theorem.depth
    ways: dict[str, tuple[Any, Callable[[], np.ndarray]]] = {
        "exact_prefix_sums": (slice(None), lambda: theorem1.evaluate_exact(network, z)),
        "prefix_sums": (slice(None), lambda: theorem1.values_by_prefix_sums(network, z)),
        "network": (chosen, lambda: theorem1.run(network, some)),
        "network_extended": (chosen, lambda: theorem1.evaluate_double_double(network, some)),
        "deep_network": (chosen, lambda: theorem1.run_deep(network, some, depth)),
        "plain_prefix_sums": (slice(None), lambda: theorem1.values_by_prefix_sums(plain, z)),
        "plain_network": (chosen, lambda: theorem1.run(plain, some)),
    }
    results = {}
    for way, (which, values) in ways.items():
        results[way] = _compare(values, labels[which])
        logger.info("%s: %.1f s", way.replace("_", " "), results[way]["seconds"])
    return {
        "status": "finished",
        "points": len(labels),
        "dimension": points.shape[1],
        "classes": int(labels.max()) + 1,
        "parameters": network.size,
        "depth": depth,
        "width": -(-len(labels) // depth) + 3,
        "smallest_gap": float(np.diff(z[order]).min()) if len(z) > 1 else None,
        "largest_weight": float(np.abs(network.w).max()),
        "largest_plain_weight": float(np.abs(plain.w).max()),
        "seconds_to_construct": seconds,
        "ways": results,
    }


def _compare(values: Callable[[], np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    """Returns how many labels the values round to, their largest error, and the seconds it took."""
    started = time.perf_counter()
    outputs = values()
    seconds = time.perf_counter() - started
    return {
        "points": len(labels),
        "fitted": float(np.mean(np.rint(outputs) == labels)),
        "largest_error": float(np.abs(outputs - labels).max()),
        "seconds": seconds,
    }


_WORDS = {
    "exact_prefix_sums": "two layers, exact prefix sums",
    "prefix_sums": "two layers, prefix sums in float64",
    "network": "two layers, every unit, float64",
    "network_extended": "two layers, every unit, twice the digits",
    "deep_network": "{depth} layers of {width:,} units, float64",
    "plain_prefix_sums": "b in the middle, prefix sums in float64",
    "plain_network": "b in the middle, every unit, float64",
}


def table(summary: dict[str, Any]) -> display.Rows:
    """Returns what each way of running the network fits, in words; of Baum's, what each network does."""
    if summary.get("construction") == "baum":
        return baum.table(summary)
    title = "Theorem 1: {points:,} points in {dimension:,} dimensions, {parameters:,} weights"
    rows = [
        (
            _WORDS[way].format(**summary),
            f"{result['points']:,}",
            display.percent(result["fitted"]),
            f"{result['largest_error']:.1e}",
        )
        for way, result in summary["ways"].items()
    ]
    return title.format(**summary), ("", "points", "fitted", "largest error"), rows
