"""Minimum-norm interpolation with a kernel, the paper's linear models (sections 4 and 5, table 3)."""

import contextlib
import itertools
import logging
import math
import time
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import (
    config as config_lib,
    data,
    display,
    features,
    inputs,
    parallel,
    preemption,
    run_directory,
)
from rethink_jax.config import RunFailed, UserError, require
from rethink_jax.features import Features
from rethink_jax.kernel_matrix import (
    Iterate,
    Kernel,
    KernelMatrix,
    conjugate_gradients,
    gaussian,
    linear,
    precision,
    precondition,
)

logger = logging.getLogger(__name__)

SELECTION, SOLUTION = "selection.json", "solution.npz"
_TEST_ROWS = 1000
_EXACT_ROWS = 500

Show = Callable[[str, float], None]


class Points(NamedTuple):
    """Examples as the kernel sees them: points float32 [n, d] and labels int32 [n]."""

    points: np.ndarray
    labels: np.ndarray


def run(
    config: ConfigDict, workdir: epath.PathLike | None = None, name: str = "kernel"
) -> dict[str, Any]:
    """Interpolates a training set with the least norm, and counts the errors on the test set, once.

    Args:
      config: as `rethink_jax.config.kernel` returns it, changed at will.
      workdir: the run's directory; by default `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run, and in several processes.
      RunFailed: the solve does not come down to its tolerance.
      Stopped: when a signal came; the iterate is saved.
    """
    check(config)
    if jax.process_count() > 1:
        raise UserError("config.experiment is 'kernel'; it runs in one process, on all its devices")
    path = run_directory.path_of(workdir, name, config.data.name, config_lib.digest(config))
    with contextlib.ExitStack() as stack:
        stop_request = stack.enter_context(preemption.stop_on_signals())
        stop_request.grace_seconds = config.grace_seconds
        summary = run_directory.summary_of(path, config)
        if summary is None or summary["residual"] > config.solver.tolerance:
            dataset = data.load(config.data)
            stack.enter_context(stop_request.defer())
            stop_request.saved = (
                f"stopped; what is done is saved in {path}; run the same command again"
            )
            show = stack.enter_context(display.show_parts())

            def show_or_stop(part: str, fraction: float) -> None:
                stop_request.raise_if_stopped()
                show(part, fraction)

            summary = _Solve(config, path, dataset, show_or_stop).run()
        else:
            logger.info("%s is finished", path)
    rows = [(text, form.format(summary[field])) for field, (text, form) in _WORDS.items()]
    display.print_rows(
        "{examples:,} examples, {dimension:,} dimensions".format(**summary), ("", ""), rows
    )
    return summary


_WORDS = {
    "gamma": ("γ", "{:g}"),
    "ridge": ("ridge", "{:g}"),
    "test_error": ("test error", "{:.2%}"),
    "train_error": ("training error", "{:.2%}"),
    "norm_one_hot": ("norm, one-hot targets", "{:.1f}"),
    "norm_signs": ("norm, targets ±1", "{:.1f}"),
    "dtype": ("matrix in", "{}"),
    "residual": ("residual", "{:.1e}"),
    "residual_float64": ("residual of some rows in float64", "{:.1e}"),
    "iterations": ("iterations", "{}"),
    "seconds": ("seconds", "{:.0f}"),
}


def check(config: ConfigDict) -> None:
    """Raises `UserError` for a value that no solve could have."""
    config_lib.check_fields(config)
    kernel, solver = config.kernel, config.solver
    require(0 <= config.seed < 2**32, "seed", config.seed, "in [0, 2**32)")
    alone = kernel.name != "linear" or len(kernel.gammas) == 1
    require(
        alone, "kernel.gammas", kernel.gammas, "one number for the linear kernel, which has no γ"
    )
    dtype = solver.dtype
    require(dtype in (None, "float32", "float64"), "solver.dtype", dtype, "float32 or float64")
    require(kernel.name in _KERNELS, "kernel.name", kernel.name, f"one of {', '.join(_KERNELS)}")
    for field, is_allowed, allowed in (
        ("gammas", lambda x: 0 < x < math.inf, "one or more numbers above 0"),
        ("ridges", lambda x: 0 <= x < math.inf, "one or more numbers of 0 or more"),
    ):
        values = kernel[field]
        numbers = [isinstance(x, int | float) and is_allowed(x) for x in values]
        require(bool(numbers) and all(numbers), f"kernel.{field}", values, allowed)
    for field, value, low, high in (
        ("kernel.held_out", kernel.held_out, 0.01, 0.9),
        ("kernel.choose_with", kernel.choose_with, 1, 10**6),
        ("solver.rank", solver.rank, 1, 100_000),
        ("solver.tolerance", solver.tolerance, 1e-12, 0.5),
        ("solver.most_iterations", solver.most_iterations, 1, 10**6),
        ("solver.save_seconds", solver.save_seconds, 0, 86_400),
        ("grace_seconds", config.grace_seconds, 0.1, 86_400),
    ):
        require(low <= value <= high, field, value, f"in [{low}, {high}]")
    features.check(config)
    data.check(config)


_KERNELS: dict[str, Callable[[float], Kernel]] = {"gaussian": gaussian, "linear": lambda _: linear}


class _Solve:
    """A run underway: chooses γ and ridge, solves on the whole training set, measures."""

    def __init__(self, config: ConfigDict, path: epath.Path, dataset: data.Dataset, show: Show):
        self._config, self._path, self._show = config, path, show
        self._classes = dataset.info.num_classes
        self._dataset = dataset
        self._fingerprint = inputs.digest([dataset.train])
        self._seconds_before = 0.0

    def run(self) -> dict[str, Any]:
        """Returns the summary, which is written too."""
        self._started = time.monotonic()
        with contextlib.ExitStack() as stack:

            def begin() -> None:
                stack.enter_context(run_directory.open_run(self._path, self._config))
                self._check_data()
                run_directory.describe(
                    self._path,
                    self._config,
                    num_train=self._dataset.info.num_train,
                    fingerprint=self._fingerprint,
                )

            parallel.on_primary(begin)
            summary = self._solve_all(*self._choose())
            parallel.on_primary(
                lambda: run_directory.write_json(self._path / run_directory.SUMMARY, summary)
            )
        return summary

    def _check_data(self) -> None:
        file = self._path / run_directory.ENVIRONMENT
        before = run_directory.read_json(file).get("fingerprint") if file.exists() else None
        if before not in (None, self._fingerprint):
            raise UserError(f"{self._path} was begun on other data; choose another --workdir")

    def _choose(self) -> tuple[Features, dict[str, Any]]:
        """Returns features, γ and ridge, of several those with the fewest errors on the held-out part."""
        kernel = self._config.kernel
        known = list(features.candidates(self._config))
        settings = list(itertools.product(kernel.gammas, kernel.ridges))
        if len(known) * len(settings) == 1:
            own, transform = known[0]
            return transform, own | {"gamma": settings[0][0], "ridge": settings[0][1]}
        file = self._path / SELECTION
        log = parallel.on_primary(
            lambda: run_directory.read_json(file)["log"] if file.exists() else []
        )
        entries: list[tuple[dict[str, Any], Features]] = []
        for own, transform in known:
            points: tuple[Points, Points] | None = None
            for gamma, ridge in settings:
                entry = own | {"gamma": gamma, "ridge": ridge}
                entries.append((entry, transform))
                if len(entries) <= len(log):
                    continue
                points = points or self._parts(transform)
                self._show(f"candidate {len(entries)} of {len(known) * len(settings)}", 0)
                log.append(entry | self._try(*points, gamma, ridge))
                logger.info("%s", log[-1])
                parallel.on_primary(lambda: run_directory.write_json(file, {"log": log}))
        solved = [number for number, tried in enumerate(log) if tried["error"] is not None]
        if not solved:
            raise RunFailed(f"none of {len(log)} candidates could be solved; {file} says why")
        entry, transform = entries[min(solved, key=lambda number: log[number]["error"])]
        return transform, entry

    def _parts(self, transform: Features) -> tuple[Points, Points]:
        """Returns some of the training set to solve on, and the held-out part, which is not among it."""
        kernel, split = self._config.kernel, self._dataset.train
        order = np.random.default_rng(self._config.seed).permutation(len(split.labels))
        cut = max(1, round(kernel.held_out * len(order)))
        some, held_out = order[cut : cut + kernel.choose_with], order[:cut]
        return self._points(transform, split, some), self._points(transform, split, held_out)

    def _points(
        self, transform: Features, split: data.Examples, ids: np.ndarray | None = None
    ) -> Points:
        ids = np.arange(len(split.labels)) if ids is None else ids
        return Points(transform(split.images[ids]), split.labels[ids])

    def _try(self, some: Points, held_out: Points, gamma: float, ridge: float) -> dict[str, Any]:
        kernel, dtype = self._kernel(some, gamma), self._dtype(some)
        sizes = {"examples": len(some.labels), "held_out": len(held_out.labels)}
        try:
            iterate, _ = self._solve(some, kernel, ridge, "choosing")
        except RunFailed as error:
            return sizes | {"error": None, "why": str(error)}
        values = predict(kernel, some.points, iterate.solution, held_out.points, dtype)
        return sizes | {
            "error": _error(values[:, : self._classes], held_out.labels),
            "residual": iterate.residual,
            "iterations": iterate.iterations,
        }

    def _solve_all(self, transform: Features, chosen: dict[str, Any]) -> dict[str, Any]:
        ridge = chosen["ridge"]
        train = self._points(transform, self._dataset.train)
        test = self._points(transform, self._dataset.test)
        kernel = self._kernel(train, chosen["gamma"])
        iterate, fitted = self._solve(train, kernel, ridge, "all examples", self._path / SOLUTION)
        solution, dtype = iterate.solution, self._dtype(train)
        values = predict(kernel, train.points, solution, test.points, dtype)
        of_signs = 2 * solution[:, :-1] - solution[:, -1:], 2 * fitted[:, :-1] - fitted[:, -1:]
        norms = {
            f"norm_{name}": math.sqrt(max(float((alpha * image).sum()), 0))
            for name, (alpha, image) in (
                ("one_hot", (solution[:, :-1], fitted[:, :-1])),
                ("signs", of_signs),
            )
        }
        return {
            "status": "finished",
            "examples": len(train.labels),
            "dimension": train.points.shape[1],
            **chosen,
            "test_error": _error(values[:, :-1], test.labels),
            "train_error": _error(fitted[:, :-1], train.labels),
            **norms,
            "norm_of_coefficients": float(np.linalg.norm(solution[:, :-1])),
            "dtype": str(dtype),
            "residual": iterate.residual,
            "residual_float64": self._exact_residual(train, kernel, ridge, solution),
            "iterations": iterate.iterations,
            "seconds": self._seconds(),
        }

    def _exact_residual(
        self, train: Points, kernel: Kernel, ridge: float, solution: np.ndarray
    ) -> float:
        """Returns the relative residual of some rows, with a kernel and sums in float64."""
        count = min(_EXACT_ROWS, len(train.labels))
        rows = np.random.default_rng(self._config.seed).choice(
            len(train.labels), count, replace=False
        )
        some = train.points[rows]
        values = predict(kernel, train.points, solution, some, np.dtype("float64"))
        targets = _targets(train.labels[rows], self._classes)
        missing = targets - values - ridge * solution[rows]
        return float(np.linalg.norm(missing) / np.linalg.norm(targets))

    def _seconds(self) -> float:
        """Returns the seconds of the run so far, those before a stop included."""
        return self._seconds_before + time.monotonic() - self._started

    def _dtype(self, train: Points) -> np.dtype:
        """Returns the matrix's dtype: float64 up to 20,000 examples, 3.2 GB, where the device has it; ours."""
        small = len(train.labels) <= 20_000 and jax.default_backend() != "tpu"
        return np.dtype(self._config.solver.dtype or ("float64" if small else "float32"))

    def _kernel(self, train: Points, gamma: float) -> Kernel:
        """Returns the kernel; with `config.kernel.scaled` γ is in units of the mean squared distance."""
        if self._config.kernel.scaled:
            gamma /= 2 * float(train.points.var(axis=0, dtype=np.float64).sum())
        return _KERNELS[self._config.kernel.name](gamma)

    def _solve(
        self,
        train: Points,
        kernel: Kernel,
        ridge: float,
        title: str,
        file: epath.Path | None = None,
    ) -> tuple[Iterate, np.ndarray]:
        """Solves (K + ridge I) α = Y to the tolerance; `file` keeps the iterates and has one to go on from.

        Returns:
          The solution, and K α.
        """
        solver = self._config.solver
        points = train.points.astype(self._dtype(train))
        matrix = KernelMatrix(kernel, points, lambda part: self._show(f"{title}: matrix", part))
        self._show(f"{title}: preconditioner", 0)
        diagonal = _diagonal(self._config.kernel.name, train.points)
        preconditioner = precondition(matrix, diagonal, ridge, solver.rank, self._config.seed)
        targets = _targets(train.labels, self._classes)
        start = None if file is None else self._restore(file, targets.shape)
        saved_at, best, iterate = time.monotonic(), 1.0, None
        try:
            for iterate in conjugate_gradients(
                matrix, targets, ridge, preconditioner, solver.tolerance, start
            ):
                best = min(best, iterate.residual)
                if iterate.residual <= solver.tolerance:
                    return iterate, (matrix @ iterate.solution).astype(np.float64)
                if iterate.iterations >= solver.most_iterations:
                    raise RunFailed(
                        f"the residual is {iterate.residual:.1e} after {iterate.iterations} iterations; set a "
                        "larger config.solver.tolerance, .rank or .most_iterations"
                    )
                if file is not None and time.monotonic() > saved_at + solver.save_seconds:
                    self._save(file, iterate)
                    saved_at = time.monotonic()
                self._show(f"{title}: solve", abs(math.log(best) / math.log(solver.tolerance)))
        finally:
            if file is not None and iterate is not None:
                self._save(file, iterate)
        raise AssertionError("the iterates have no end")

    def _save(self, file: epath.Path, iterate: Iterate) -> None:
        def write() -> None:
            partial = file.with_name(file.name + run_directory.PARTIAL)
            with partial.open("wb") as stream:
                np.savez(
                    stream,
                    solution=iterate.solution,
                    iterations=iterate.iterations,
                    seconds=self._seconds(),
                )
            partial.replace(file)

        parallel.on_primary(write)

    def _restore(self, file: epath.Path, shape: tuple[int, ...]) -> Iterate | None:
        """Returns the saved iterate; none where there is none, or a damaged one."""
        if not file.exists():
            return None
        try:
            with file.open("rb") as stream, np.load(stream) as saved:
                solution = saved["solution"].reshape(shape)
                iterations, seconds = int(saved["iterations"]), float(saved["seconds"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            logger.warning("%s is damaged; the solve begins anew", file)
            return None
        self._seconds_before = seconds
        logger.info("going on from iteration %d", iterations)
        return Iterate(solution, math.nan, iterations)


def _targets(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns one-hot targets and a column of ones, float64 [n, classes + 1]: of both come those of ±1."""
    return np.concatenate([np.eye(classes)[labels], np.ones((len(labels), 1))], axis=1)


def _diagonal(kernel: str, points: np.ndarray) -> np.ndarray:
    return (
        np.ones(len(points))
        if kernel == "gaussian"
        else np.square(points).sum(axis=1, dtype=np.float64)
    )


def predict(
    kernel: Kernel, points: np.ndarray, solution: np.ndarray, at: np.ndarray, dtype: np.dtype
) -> np.ndarray:
    """Returns Σ_i α_i k(x, x_i) at points x, a part of them on each device at a time.

    Args:
      kernel: of `rethink_jax.kernel_matrix`.
      points: floating [n, d], those of the training set.
      solution: α, float64 [n, k].
      at: floating [m, d].
      dtype: of the computation. That of the solve: solutions of an ill-conditioned system are large and cancel.

    Returns:
      [m, k] in that dtype.
    """

    def values(rows: jax.Array, points: jax.Array, solution: jax.Array) -> jax.Array:
        return jax.lax.all_gather(kernel(rows, points) @ solution, parallel.AXIS)

    mapped = parallel.map_parts(values, (True, False, False), out_parts=False)
    devices = len(parallel.devices())
    step = min(_TEST_ROWS, -(-len(at) // devices)) * devices
    padded = np.pad(at, [(0, -len(at) % step), (0, 0)]).astype(dtype)
    with precision(dtype):
        replicated = parallel.replicate((points.astype(dtype), solution.astype(dtype)))
        parts = [
            parallel.fetch(mapped(parallel.local_parts(padded[i : i + step]), *replicated))
            for i in range(0, len(at), step)
        ]
    return np.concatenate([part.reshape(step, -1) for part in parts])[: len(at)]


def _error(values: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(values.argmax(axis=1) != labels))
