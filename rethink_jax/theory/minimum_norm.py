"""SGD on a linear model with more weights than examples, beside the closed form of least norm (section 5).

Every gradient lies in the span of the examples, so what the start has outside of it stays as it is: from zero
SGD reaches Xᵀ(XXᵀ)⁻¹Y, the interpolation of least norm, and from elsewhere another interpolation.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import lax
from ml_collections import ConfigDict

from rethink_jax import data
from rethink_jax.config.base import COMPILATION_CACHE, DATA, EXPERIMENT, RANDOM_LABELS
from rethink_jax.config.fields import SEED, Field, Fields, within
from rethink_jax.distributed import jax_settings
from rethink_jax.errors import RunFailed, UserError
from rethink_jax.pipeline import batching, inputs
from rethink_jax.pipeline.preprocess import whiten
from rethink_jax.runs import display, run_once
from rethink_jax.runs.resolve import resolve
from rethink_jax.runs.writers import write_figure

FIELDS: Fields = {
    "experiment": EXPERIMENT._replace(default="minimum_norm"),
    "seed": Field(
        0, "Seed of the order of examples and of the random start.", SEED, in_report=False
    ),
    **DATA,
    **RANDOM_LABELS,
    "sgd.epochs": Field(1000, "Epochs of SGD.", within(1, 10**6)),
    "compilation_cache": COMPILATION_CACHE,
}

CURVES = "curves.png"
STARTS = ("zero", "random")


class Path(NamedTuple):
    """Where SGD was, after each epoch of `epochs`, one number for each.

    Attributes:
      epochs: of the numbers below, from 0.
      loss: half the mean squared distance from the targets.
      distance: ‖W − W*‖ / ‖W*‖ from the solution of least norm W*.
      outside: ‖W − P W‖ / ‖W*‖, P the projection on the span of the examples.
      norm: ‖W‖ / ‖W*‖.
    """

    epochs: list[int]
    loss: list[float]
    distance: list[float]
    outside: list[float]
    norm: list[float]


@jax_settings.pin_settings()
def run(
    config: ConfigDict, workdir: epath.PathLike | None = None, name: str = "minimum_norm"
) -> dict[str, Any]:
    """Runs SGD from zero and from a random start, and says how near each comes to the least norm.

    Args:
      config: as `rethink_jax.config.experiment("minimum_norm", …)` returns it, changed at will.
      workdir: the run's directory; by default `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run, and for examples that are no basis.
    """
    config, _ = resolve(config)

    def compute(dataset: data.Dataset | None) -> tuple[dict[str, Any], int]:
        assert dataset is not None
        x, y = _points(config, dataset)
        return summarize(x, y, config.sgd.epochs, config.seed), len(x)

    def leave(summary: dict[str, Any], path: epath.Path) -> None:
        write_figure(path / CURVES, (5, 6), lambda figure: draw(figure, summary["paths"]))

    def load() -> data.Dataset:
        return data.load(config.data)

    return run_once.run_once(config, workdir, name, load, compute, table, leave)


def table(summary: dict[str, Any]) -> display.Rows:
    """Returns where SGD ended, in words."""
    title = "SGD on a linear model: {examples:,} examples, {dimension:,} weights a class"
    columns = ("start", "loss", "distance from the least norm", "norm over the least")
    rows = [
        (
            name,
            *(f"{path[field][-1]:.1e}" for field in ("loss", "distance")),
            f"{path['norm'][-1]:.3f}",
        )
        for name, path in summary["paths"].items()
    ]
    return title.format(**summary), columns, rows


def _points(config: ConfigDict, dataset: data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns whitened images float64 [n, d] and one-hot labels float64 [n, classes]."""
    classes = dataset.info.num_classes
    labels = inputs.corrupt_labels(
        config.corruption, "train", dataset.train.labels, dataset.info, dataset.train.own_ids
    )
    with jax.enable_x64(True):
        images = np.asarray(whiten(jnp.asarray(dataset.train.images.astype(np.float64))))
    return images.reshape(len(images), -1), np.eye(classes)[labels]


def least_norm(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns Xᵀ(XXᵀ)⁻¹Y, float64 [d, k], for x float64 [n, d] and y [n, k].

    Raises:
      UserError: the examples are not linearly independent, so that not all targets can be had.
    """
    singular = np.linalg.svd(x, compute_uv=False)
    rank = int(np.sum(singular > 1e-8 * singular[0]))
    if rank < len(x):
        raise UserError(
            f"{len(x)} examples of {x.shape[1]} values span {rank} dimensions; set "
            f"config.data.examples to {rank} at most, or fewer where some are equal"
        )
    return np.linalg.lstsq(x, y, rcond=None)[0]


def descend(x: np.ndarray, y: np.ndarray, start: np.ndarray, epochs: int, seed: int) -> np.ndarray:
    """Runs SGD on half the squared distance, one example a step, and returns W after every epoch.

    The learning rate is constant, one over the greatest ‖x‖².

    Args:
      x: float64 [n, d].
      y: float64 [n, k].
      start: float64 [d, k].
      epochs: how many; each in an order that depends on the seed and the epoch alone.
      seed: of the order.

    Returns:
      float64 [recorded, d, k], see `recorded_epochs`.
    """
    rate = 1 / np.square(x).sum(axis=1).max()

    @jax.jit
    def epoch(weights: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        def step(weights: jax.Array, example: tuple[jax.Array, jax.Array]):  # type: ignore[no-untyped-def]
            features, target = example
            missing = target - features @ weights
            return weights + rate * features[:, None] * missing[None], None

        return lax.scan(step, weights, (x, y))[0]

    recorded, snapshots = set(recorded_epochs(epochs)), [start]
    with jax.enable_x64(True):
        weights = jnp.asarray(start)
        for number in range(epochs):
            order = batching.epoch_batches(seed, number, len(x), 1)[:, 0]
            weights = epoch(weights, x[order], y[order])
            if number + 1 in recorded:
                snapshots.append(np.asarray(weights))
    return np.stack(snapshots)


def recorded_epochs(epochs: int) -> list[int]:
    """Returns 0, the last epoch and about fifty between, evenly on a logarithmic scale."""
    return sorted({0, *np.geomspace(1, epochs, 50).round().astype(int).tolist()})


def summarize(x: np.ndarray, y: np.ndarray, epochs: int, seed: int) -> dict[str, Any]:
    """Returns `summary.json`: where SGD goes from zero and from a random start as long as the least norm."""
    solution = least_norm(x, y)
    basis = np.linalg.qr(x.T)[0]
    norm = np.linalg.norm(solution)
    elsewhere = np.random.default_rng(seed).standard_normal(solution.shape)
    elsewhere *= norm / np.linalg.norm(elsewhere)
    paths = {}
    for name, start in zip(STARTS, (np.zeros_like(solution), elsewhere), strict=True):
        weights = descend(x, y, start, epochs, seed)
        if not np.isfinite(weights[-1]).all():
            raise RunFailed("SGD has diverged")
        outside = weights - np.einsum(
            "dr,nrk->ndk", basis, np.einsum("dr,ndk->nrk", basis, weights)
        )
        missing = np.einsum("nd,mdk->mnk", x, weights) - y[None]
        numbers = (
            np.square(missing).sum(axis=2).mean(axis=1) / 2,
            *(
                np.linalg.norm(part, axis=(1, 2)) / norm
                for part in (weights - solution[None], outside, weights)
            ),
        )
        paths[name] = Path(recorded_epochs(epochs), *(part.tolist() for part in numbers))
    return {
        "status": "finished",
        "examples": len(x),
        "dimension": x.shape[1],
        "classes": y.shape[1],
        "norm": float(norm),
        "paths": {name: path._asdict() for name, path in paths.items()},
    }


def draw(figure: Any, paths: dict[str, dict[str, Any]]) -> None:
    """Draws loss and distance from the least norm against epochs on an empty figure of matplotlib's."""
    losses, distances = figure.subplots(2, 1, sharex=True)
    for (name, path), colour in zip(paths.items(), ("tab:blue", "tab:orange"), strict=True):
        losses.plot(path["epochs"], path["loss"], color=colour, label=f"from {name}")
        distances.plot(path["epochs"], path["distance"], color=colour, label=f"from {name}")
    outside = paths["random"]["outside"]
    style = {"color": "tab:orange", "linestyle": ":"}
    label = "what the random start has\noutside of the span"
    distances.plot(paths["random"]["epochs"], outside, label=label, **style)
    losses.set(ylabel="training loss")
    distances.set(ylabel="distance from the least norm, relative", xlabel="epoch")
    for axes in (losses, distances):
        axes.set(xscale="symlog", yscale="log")
        axes.legend()
        axes.grid(alpha=0.3)
