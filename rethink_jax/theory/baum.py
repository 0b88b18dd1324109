"""Baum's construction: four ReLUs for every d points have any labels of points in general position.

Through d points in d dimensions goes a plane w·x = 1, which no other point lies on. A bump of four ReLUs is 1
on it and 0 at all other points (Baum 1988, with thresholds; Bubeck et al. 2020, arXiv 2006.02855):

    (σ(r + 2ε) − σ(r + ε) − σ(r − ε) + σ(r − 2ε)) / ε with r = w·x − 1

is 1 for |r| ≤ ε and 0 for |r| ≥ 2ε. Class 0 has no planes. The bumps of class k's planes are k high, so that
the output is the label: for two classes as in Baum, for more with four units for every d points of each class
but class 0.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import qr, solve_triangular

from rethink_jax.errors import UserError
from rethink_jax.runs import display
from rethink_jax.theory import theorem1

_BLOCK = 2**21  # hidden units or coordinates times points that are held at a time
# A point this near to the span of others of its group, relative to its norm, goes to another group.
_DEPENDENT = 1e-10
# How many times as far as a plane's own points all others must be from it.
_APART = 100
# In units of ε: a bump's four bends, and how its slope changes at each.
_BENDS = np.array([2.0, 1.0, -1.0, -2.0])
_SLOPES = np.array([1.0, -1.0, -1.0, 1.0])

_FLOAT64: np.dtype = np.dtype("float64")
_PRECISIONS: dict[str, np.dtype] = {"float64": _FLOAT64, "float32": np.dtype("float32")}


class Network(NamedTuple):
    """A two-layer ReLU network, Σ_p Σ_u v_pu max(w_p·x + b_pu, 0); units of one plane share their weights.

    Attributes:
      w: float64 [planes, d].
      b: float64 [planes, units of a plane].
      v: float64 [planes, units of a plane], the weights of the output.
    """

    w: np.ndarray
    b: np.ndarray
    v: np.ndarray

    @property
    def units(self) -> int:
        """How many hidden units there are."""
        return int(self.b.size)

    @property
    def size(self) -> int:
        """How many different weights there are."""
        return int(self.w.size + self.b.size + self.v.size)


def construct(points: np.ndarray, labels: np.ndarray) -> Network:
    """Returns a network that has the given labels at the given points.

    Args:
      points: uint8 [n, d], in general position; equal ones may have one label.
      labels: integers [n] of 0 or more.

    Raises:
      UserError: equal points have different labels, or a plane comes too near to a point that is not on it.

    Example:
      >>> points = np.random.default_rng(0).integers(0, 256, (500, 20), np.uint8)
      >>> labels = np.random.default_rng(1).integers(0, 2, 500)
      >>> network = construct(points, labels)
      >>> int(labels.sum()), network.units  # 4 ⌈n₊ / 20⌉
      (259, 52)
      >>> bool(np.all(np.rint(run(network, points)) == labels))
      True
    """
    kept = _without_equal_points(points, labels)
    points, labels = points[kept], labels[kept]
    planes: list[np.ndarray] = []
    heights: list[float] = []
    plane_of = np.full(len(points), -1)
    for label in np.unique(labels[labels > 0]):
        for group, plane in _planes(points, np.flatnonzero(labels == label), kept):
            plane_of[group] = len(planes)
            planes.append(plane)
            heights.append(float(label))
    w = np.stack(planes) if planes else np.zeros((0, points.shape[1]))
    widths = _widths(points, w, plane_of)[:, None]
    return Network(w, widths * _BENDS - 1, np.reshape(heights, (-1, 1)) / widths * _SLOPES)


def _without_equal_points(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the ids of the points that differ, ascending."""
    _, first, which = np.unique(points, axis=0, return_index=True, return_inverse=True)
    earlier = first[which.ravel()]
    wrong = np.flatnonzero(labels != labels[earlier])
    if len(wrong):
        one, other = earlier[wrong[0]], wrong[0]
        raise UserError(
            f"points {one} and {other} are equal and have the labels {labels[one]} and "
            f"{labels[other]}; no function has two values at one point"
        )
    return np.sort(first)


def _planes(
    points: np.ndarray, ids: np.ndarray, names: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields at most d points at a time, and the shortest w with w·x = 1 at them.

    Groups have equal sizes: with fewer points than dimensions w is shorter, and rounding spoils less of it.
    """
    while len(ids):
        dependent = []
        for group in np.array_split(ids, math.ceil(len(ids) / points.shape[1])):
            x = points[group].astype(np.float64)
            q, r = qr(x.T, mode="economic", check_finite=False)
            # The diagonal of R: how far each point is from the span of those before it.
            is_new = np.abs(np.diag(r)) > _DEPENDENT * np.linalg.norm(x, axis=1)
            dependent.append(group[~is_new])
            if not is_new.all():
                q, r = qr(x[is_new].T, mode="economic", check_finite=False)
            if is_new.any():
                ones = np.ones(len(r))
                yield group[is_new], q @ solve_triangular(r, ones, trans="T", check_finite=False)
        left = np.concatenate(dependent)
        if len(left) == len(ids):
            raise UserError(f"point {names[left[0]]} is 0 everywhere; no plane w·x = 1 has it")
        ids = left


def _widths(points: np.ndarray, w: np.ndarray, plane_of: np.ndarray) -> np.ndarray:
    """Returns each plane's ε: a third of the smallest |w·x − 1| at a point that is not on it.

    Any ε between this and its own points' largest would do but for rounding, of which this one takes the most:
    ε at points on the plane, and as much at all others.
    """
    on, off = np.zeros(len(w)), np.ones(len(w))
    step = _rows_of_a_block(*w.shape)
    for i in range(0, len(points), step):
        residuals = np.abs(points[i : i + step].astype(np.float64) @ w.T - 1)
        rows = np.flatnonzero(plane_of[i : i + step] >= 0)
        own = rows, plane_of[i : i + step][rows]
        np.maximum.at(on, own[1], residuals[own])
        residuals[own] = np.inf
        off = np.minimum(off, residuals.min(axis=0))
    if (off < _APART * on).any():
        worst = np.argmin(off / np.maximum(on, np.finfo(np.float64).tiny))
        raise UserError(
            "the points are not in general position: |w·x − 1| of a plane is "
            f"{off[worst]:.1e} at a point that is not on it, and up to {on[worst]:.1e} at its own"
        )
    return off / 3


def _rows_of_a_block(*widths: int) -> int:
    return max(1, _BLOCK // max(widths))


def run(network: Network, points: np.ndarray, dtype: np.dtype = _FLOAT64) -> np.ndarray:
    """Runs the network as any ReLU network is run: every hidden unit at every point.

    Args:
      network: of any planes.
      points: uint8 [m, d].
      dtype: of weights, sums and outputs.

    Returns:
      dtype [m].
    """
    w, b, v = (part.astype(dtype) for part in network)
    step = _rows_of_a_block(w.shape[1], b.size)
    outputs = np.empty(len(points), dtype)
    for i in range(0, len(points), step):
        before = points[i : i + step].astype(dtype) @ w.T
        hidden = np.maximum(before[:, :, None] + b[None], 0)
        outputs[i : i + step] = hidden.reshape(len(before), -1) @ v.ravel()
    return outputs


def of_theorem1(points: np.ndarray, labels: np.ndarray, seed: int) -> Network:
    """Returns Theorem 1's network in this form: one plane with as many units as there are points."""
    network = theorem1.construct(points, labels, seed)
    return Network(network.a[None], -network.b[None], network.w[None])


def summarize(
    points: np.ndarray, halves: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, Any]:
    """Returns `summary.json`: what Baum's network fits of two classes and of all, and Theorem 1's beside it.

    Args:
      points: uint8 [n, d].
      halves: integers [n], 0 or 1.
      labels: integers [n].
      seed: of Theorem 1's direction.

    Raises:
      UserError: as `construct` does.
    """
    kept = _without_equal_points(points, labels)
    networks: dict[str, tuple[np.ndarray, Callable[[], Network]]] = {
        "two_classes": (halves, lambda: construct(points, halves)),
        "all_classes": (labels, lambda: construct(points, labels)),
        "theorem1": (labels, lambda: of_theorem1(points[kept], labels[kept], seed)),
    }
    return {
        "status": "finished",
        "construction": "baum",
        "points": len(points),
        "dimension": points.shape[1],
        "classes": int(labels.max()) + 1,
        "networks": {name: _measure(points, *one) for name, one in networks.items()},
    }


def _measure(points: np.ndarray, labels: np.ndarray, make: Callable[[], Network]) -> dict[str, Any]:
    started = time.perf_counter()
    network = make()
    constructed = time.perf_counter()
    outputs = {name: run(network, points, dtype) for name, dtype in _PRECISIONS.items()}
    _, counts = np.unique(labels[labels > 0], return_counts=True)
    return {
        "units": network.units,
        "baum_units": int(4 * np.ceil(counts / points.shape[1]).sum()),
        "weights": network.size,
        "labels_above_0": int(counts.sum()),
        "largest_error": float(np.abs(outputs["float64"] - labels).max()),
        **{f"wrong_{name}": int(np.sum(np.rint(y) != labels)) for name, y in outputs.items()},
        "seconds_to_construct": constructed - started,
        "seconds_to_run": time.perf_counter() - constructed,
    }


_WORDS = {
    "two_classes": "Baum, two classes",
    "all_classes": "Baum, {classes:,} classes",
    "theorem1": "Theorem 1, {classes:,} classes",
}


def table(summary: dict[str, Any]) -> display.Rows:
    """Returns the size of each network and what it gets wrong, in words."""
    title = "Baum's construction: {points:,} points in {dimension:,} dimensions"
    columns = ("", "units", "weights", "largest error", "wrong, float64", "float32", "seconds")
    rows = [
        (
            _WORDS[name].format(**summary),
            *(f"{found[field]:,}" for field in ("units", "weights")),
            f"{found['largest_error']:.1e}",
            *(f"{found[f'wrong_{precision}']:,}" for precision in _PRECISIONS),
            f"{found['seconds_to_construct'] + found['seconds_to_run']:.1f}",
        )
        for name, found in summary["networks"].items()
    ]
    return title.format(**summary), columns, rows
