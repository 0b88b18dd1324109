"""Minimum-norm interpolation with a kernel, the paper's linear models (sections 4 and 5, table 3)."""

import contextlib
import functools
import itertools
import json
import logging
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, data
from rethink_jax.distributed import jax_settings, preemption, processes
from rethink_jax.errors import RunFailed, require
from rethink_jax.kernels import features
from rethink_jax.kernels.features import Features
from rethink_jax.kernels.matrix import (
    NO_CHOICE,
    InnerProducts,
    Kernel,
    KernelMatrix,
    default_dtype,
    gaussian,
    linear,
    read_arrays,
)
from rethink_jax.kernels.solve import Iterate, conjugate_gradients, is_solved, precondition
from rethink_jax.pipeline import inputs
from rethink_jax.runs import display, effects, files, identity, run_directory
from rethink_jax.runs.own_files import PRODUCTS, SECONDS, SELECTION, SOLUTION, WITH_RIDGE

logger = logging.getLogger(__name__)

EXACT_ROWS = 200

_ADVICE = "; set a larger config.solver.tolerance, .rank or .max_iterations"

# Gigabytes are written each time.
_SAVE_PRODUCTS_SECONDS = 600

Show = Callable[[str, float], None]


class Products(NamedTuple):
    """What a solve begins with: the products of some examples' features, and the labels.

    Attributes:
      products: of training examples with each other and with others.
      labels: int32 [n].
      others: labels of the others, int32 [m].
    """

    products: InnerProducts
    labels: np.ndarray
    others: np.ndarray


@jax_settings.pin_settings()
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
    processes.check_one_process(config)
    load = functools.cache(lambda: data.load(config.data))
    path = identity.path_of(workdir, config, lambda: load().fingerprint, name, config.data.name)
    with contextlib.ExitStack() as stack:
        stop_request = stack.enter_context(preemption.stop_on_signals())
        stop_request.grace_seconds = config.grace_seconds
        run_directory.check_no_sweep(path)
        effects.refuse(path, config)
        summary = run_directory.summary_of(path, config)
        dataset = load()
        is_same = identity.check_same_data(
            path, config, dataset.fingerprint, lambda: inputs.digest([dataset.train])
        )
        if summary is not None and not is_same:
            raise identity.unnoted(path)
        if summary is None or not _is_done(summary, config):
            features.check_images(config, dataset.info.image_shape)
            n = dataset.info.num_train
            require(n > 1, "data.examples", n, "2 or more for a kernel")
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
    display.print_rows(*table(summary))
    return summary


def table(summary: dict[str, Any]) -> display.Rows:
    """Returns `summary.json` in words."""
    found = solutions(summary)
    rows = [
        (text, *(form.format(solution[field]) for solution in found))
        for field, (text, form) in _WORDS.items()
    ]
    if summary.get("scaled"):
        rows[0] = ("γ · mean squared distance", *rows[0][1:])
    for failed in summary.get("failed", ()):
        rows.append((f"ridge {failed['ridge']:g}", failed["why"], *[""] * (len(found) - 1)))
    title = "{examples:,} examples, {dimension:,} dimensions, {dtype}, {seconds:.0f} s"
    return title.format(**summary), ("",) * len(rows[0]), rows


def solutions(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the solutions that `summary.json` tells of: the first one, and that with a ridge."""
    return [summary, *([summary[WITH_RIDGE]] if WITH_RIDGE in summary else [])]


def _is_done(summary: dict[str, Any], config: ConfigDict) -> bool:
    """Returns whether a summary is of the tolerance, and no solve failed that has other settings now."""
    return all(
        solution["residual"] <= config.solver.tolerance for solution in solutions(summary)
    ) and all(_is_solved_alike(failed, config) for failed in summary.get("failed", ()))


def _solving(config: ConfigDict) -> dict[str, Any]:
    """Returns the settings that decide whether a solve comes to its end."""
    return {name: value for name, value in config.solver.items() if name != "save_seconds"}


def _is_solved_alike(entry: dict[str, Any], config: ConfigDict) -> bool:
    """Returns whether an entry of a summary or a selection was made with the settings of this config."""
    settings = {"solver": entry.get("solver")}
    return config_lib.with_todays_names(settings)["solver"] == _solving(config)


_WORDS = {
    "gamma": ("γ", "{:g}"),
    "ridge": ("ridge", "{:g}"),
    "test_error": ("test error", "{:.2%}"),
    "train_error": ("training error", "{:.2%}"),
    "norm_one_hot": ("norm, one-hot targets", "{:.1f}"),
    "norm_signs": ("norm, targets ±1", "{:.1f}"),
    "residual": ("residual", "{:.1e}"),
    "residual_float64": ("residual of some rows in float64", "{:.1e}"),
    "iterations": ("iterations", "{}"),
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
        ("kernel.validation_fraction", kernel.validation_fraction, 0.01, 0.9),
        ("kernel.selection_examples", kernel.selection_examples, 1, 10**6),
        ("solver.rank", solver.rank, 1, 100_000),
        ("solver.tolerance", solver.tolerance, 1e-12, 0.5),
        ("solver.max_iterations", solver.max_iterations, 1, 10**6),
        ("solver.save_seconds", solver.save_seconds, 0, 86_400),
        ("grace_seconds", config.grace_seconds, 0.1, 86_400),
    ):
        require(low <= value <= high, field, value, f"in [{low}, {high}]")
    features.check(config)
    data.check(config)
    data.describe(config.data)


_KERNELS: dict[str, Callable[[float, float], Kernel]] = {
    "gaussian": gaussian,
    "linear": lambda gamma, around: linear(),
}


class _Solve:
    """A run underway: chooses γ and ridge, solves on the whole training set, measures."""

    def __init__(self, config: ConfigDict, path: epath.Path, dataset: data.Dataset, show: Show):
        self._config, self._path, self._show = config, path, show
        self._classes = dataset.info.num_classes
        self._dataset = dataset
        self._started = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Returns the summary, which is written too."""
        with contextlib.ExitStack() as stack:

            def begin() -> None:
                stack.enter_context(run_directory.open_run(self._path, self._config))
                run_directory.write_metadata(
                    self._path,
                    self._config,
                    num_train=self._dataset.info.num_train,
                    fingerprint=inputs.digest([self._dataset.train]),
                    data_fingerprint=self._dataset.fingerprint,
                )
                if (self._path / SECONDS).exists():
                    self._started -= files.read_json(self._path / SECONDS).get("seconds", 0)
                stack.callback(self._keep_time)

            processes.on_primary(begin)
            summary = self._solve_all(*self._choose())

            def end() -> None:
                files.write_summary(self._path, summary)
                (self._path / PRODUCTS).unlink(missing_ok=True)

            processes.on_primary(end)
        return summary

    def _keep_time(self) -> None:
        """Writes how long the run took so far, with what came before a stop."""
        seconds = {"seconds": time.monotonic() - self._started}
        files.write_json(self._path / SECONDS, seconds)

    def _choose(self) -> tuple[Features, list[dict[str, Any]]]:
        """Returns features, and γ and ridge: without a ridge, with one, or both."""
        kernel = self._config.kernel
        known = list(features.candidates(self._config, self._dataset.train.images))
        candidates = [
            own | {"gamma": gamma, "ridge": ridge}
            for own, _ in known
            for gamma, ridge in itertools.product(kernel.gammas, kernel.ridges)
        ]
        if len(candidates) == 1:
            return known[0][1], candidates
        per_features = len(candidates) // len(known)
        log = self._try_all([which for _, which in known], candidates)
        if all(tried["error"] is None for tried in log):
            file = self._path / SELECTION
            raise RunFailed(
                f"none of {len(log)} candidates could be solved; {file} says why{_ADVICE}, "
                "and they are tried again"
            )
        numbers = choose(log, per_features)
        return known[numbers[0] // per_features][1], [candidates[i] for i in numbers]

    def _try_all(
        self, known: list[Features], candidates: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Returns each candidate with its error on the held-out part; `selection.json` keeps them.

        What failed with other settings of the solver, or was not solved to the tolerance, is tried again.
        """
        kernel, train, file = self._config.kernel, self._dataset.train, self._path / SELECTION
        log = processes.on_primary(lambda: files.read_json(file)["log"] if file.exists() else [])
        order = np.random.default_rng(self._config.seed).permutation(len(train.labels))
        cut = max(1, round(kernel.validation_fraction * len(order)))
        some, held_out = (
            data.Examples(train.images[ids], train.labels[ids])
            for ids in (order[cut : cut + kernel.selection_examples], order[:cut])
        )
        prepared: Products | None = None
        per_features = len(candidates) // len(known)
        seen_number = -1
        for number in range(len(candidates)):
            if number < len(log) and not self._is_to_be_tried(log[number]):
                continue
            self._show(f"candidate {number + 1} of {len(candidates)}", 0)
            if prepared is None or number // per_features != seen_number:
                seen_number = number // per_features
                prepared = self._products(known[seen_number], some, held_out, "choosing")
            tried = candidates[number] | self._try(prepared, candidates[number])
            log[number : number + 1] = [tried]
            logger.info("%s", tried)
            processes.on_primary(lambda: files.write_json(file, {"log": log}))
            processes.on_primary(self._keep_time)
        return log

    def _is_to_be_tried(self, tried: dict[str, Any]) -> bool:
        if tried["error"] is None:
            return not _is_solved_alike(tried, self._config)
        return bool(tried["residual"] > self._config.solver.tolerance)

    def _products(
        self,
        seen: Features,
        some: data.Examples,
        others: data.Examples,
        title: str,
        checked: np.ndarray | None = None,
        file: epath.Path | None = None,
        of: str = NO_CHOICE,
    ) -> Products:
        """Computes the products, with `checked` as for `InnerProducts`; `file` keeps them and may have some.

        `of` tells the features from others, whose products may be in the file.
        """
        n = len(some.labels)
        centered = self._config.kernel.name != "linear"
        products = InnerProducts(n, len(others.labels), self._dtype(n), checked, centered)
        images = np.concatenate([some.images, others.images])
        first = products.restore(file, of) if file is not None and file.exists() else 0
        halves_done, saved_at = 2 * first, time.monotonic()

        def show(fraction: float) -> None:
            self._show(f"{title}: matrix", (halves_done + fraction) / (2 * seen.parts))

        for part in range(first, seen.parts):
            found = seen.of(images, part, n, show)
            halves_done += 1
            products.add(found, show)
            halves_done += 1
            is_due = time.monotonic() > saved_at + _SAVE_PRODUCTS_SECONDS
            if file is not None and (is_due or part == seen.parts - 1):
                save = functools.partial(products.save, parts=part + 1, of=of)
                processes.on_primary(functools.partial(files.write_whole, file, save))
                processes.on_primary(self._keep_time)
                saved_at = time.monotonic()
        return Products(products, some.labels, others.labels)

    def _try(self, prepared: Products, candidate: dict[str, Any]) -> dict[str, Any]:
        products, labels, others = prepared
        sizes = {"examples": len(labels), "held_out": len(others)}
        matrix = products.matrix(self._kernel(products, candidate["gamma"]), keep=True)
        try:
            iterate = self._solve(matrix, labels, candidate["ridge"], "choosing")
        except RunFailed as error:
            failed = {"error": None, "why": str(error), "solver": _solving(self._config)}
            return sizes | failed
        return sizes | {
            "error": error_rate(matrix.at_others(iterate.solution[:, :-1]), others),
            "residual": iterate.residual,
            "iterations": iterate.iterations,
        }

    def _solve_all(self, seen: Features, chosen: list[dict[str, Any]]) -> dict[str, Any]:
        solved, failed = [], []
        for entry in chosen:
            # Anew for each one: beside the matrix there is no room for the products of a second one.
            keep = seen.parts > 1 or len(chosen) > 1
            prepared = self._all_products(seen, _features_of(entry), keep)
            prefix = f"{WITH_RIDGE}-" if entry is not chosen[0] else ""
            try:
                solved.append(self._solution(prepared, entry, self._path / f"{prefix}{SOLUTION}"))
            except RunFailed as error:
                is_of_files = isinstance(error.__cause__, OSError)
                if is_of_files or (not solved and entry is chosen[-1]):
                    raise
                logger.warning("no solution with ridge %g: %s", entry["ridge"], error)
                why = {"why": str(error), "solver": _solving(self._config)}
                failed.append(entry | why)
        summary = {
            "status": "finished",
            "examples": len(self._dataset.train.labels),
            "dimension": prepared.products.dimension,
            "dtype": str(prepared.products.dtype),
            "scaled": self._config.kernel.gamma_scale,
            **solved[0],
        }
        summary |= {WITH_RIDGE: solved[1]} if len(solved) > 1 else {}
        summary |= {"failed": failed} if failed else {}
        return summary | {"seconds": time.monotonic() - self._started}

    def _all_products(self, seen: Features, of: str, keep: bool) -> Products:
        train, test = self._dataset.train, self._dataset.test
        file = self._path / PRODUCTS if keep else None
        rng, n = np.random.default_rng(self._config.seed), len(train.labels)
        checked = rng.choice(n, min(EXACT_ROWS, n), replace=False)
        return self._products(seen, train, test, "all examples", checked, file, of)

    def _solution(
        self, prepared: Products, entry: dict[str, Any], file: epath.Path
    ) -> dict[str, Any]:
        """Returns what a solution of the whole training set shows; the products' memory goes to its matrix."""
        products, labels, test_labels = prepared
        ridge, kernel = entry["ridge"], self._kernel(products, entry["gamma"])
        matrix = products.matrix(kernel)
        iterate = self._solve(matrix, labels, ridge, "all examples", file, _text(entry))
        solution = iterate.solution
        fitted = matrix.multiply_precisely(solution)
        of_signs = 2 * solution[:, :-1] - solution[:, -1:], 2 * fitted[:, :-1] - fitted[:, -1:]
        norms = {
            f"norm_{name}": math.sqrt(max(float((alpha * image).sum()), 0))
            for name, (alpha, image) in (
                ("one_hot", (solution[:, :-1], fitted[:, :-1])),
                ("signs", of_signs),
            )
        }
        targets = _targets(labels, self._classes)[products.checked]
        exact = products.exact_rows(kernel) @ solution + ridge * solution[products.checked]
        return {
            **entry,
            "test_error": error_rate(matrix.at_others(solution[:, :-1]), test_labels),
            "train_error": error_rate(fitted[:, :-1], labels),
            **norms,
            "norm_of_coefficients": float(np.linalg.norm(solution[:, :-1])),
            "residual": iterate.residual,
            "residual_float64": float(np.linalg.norm(targets - exact) / np.linalg.norm(targets)),
            "iterations": iterate.iterations,
        }

    def _dtype(self, n: int) -> np.dtype:
        """Returns the matrix's dtype, which the config may set."""
        return np.dtype(self._config.solver.dtype or default_dtype(n))

    def _kernel(self, products: InnerProducts, gamma: float) -> Kernel:
        """Returns the kernel; with `config.kernel.gamma_scale` γ is in units of the mean squared distance."""
        distance = products.mean_square_distance
        if self._config.kernel.gamma_scale:
            if distance <= 0:
                raise RunFailed(
                    f"config.kernel.gamma_scale is True, but the {products.n} examples are all the same"
                )
            gamma /= distance
        return _KERNELS[self._config.kernel.name](gamma, distance)

    def _solve(
        self,
        matrix: KernelMatrix,
        labels: np.ndarray,
        ridge: float,
        title: str,
        file: epath.Path | None = None,
        of: str = "",
    ) -> Iterate:
        """Solves (K + ridge I) α = Y to the tolerance; `file` keeps the iterates and has one to go on from.

        `of` tells the features, γ and ridge from others, whose iterate may be in the file.
        """
        solver = self._config.solver
        self._show(f"{title}: preconditioner", 0)
        preconditioner = precondition(matrix, ridge, solver.rank, self._config.seed)
        targets = _targets(labels, self._classes)
        start = None if file is None else self._restore(file, of, targets.shape)
        saved_at, best, iterate = time.monotonic(), 1.0, None
        try:
            for iterate in conjugate_gradients(
                matrix, targets, ridge, preconditioner, solver.tolerance, start
            ):
                best = min(best, iterate.residual)
                if is_solved(iterate, solver.tolerance, solver.max_iterations, _ADVICE):
                    return iterate
                if file is not None and time.monotonic() > saved_at + solver.save_seconds:
                    self._save(file, of, iterate)
                    saved_at = time.monotonic()
                self._show(f"{title}: solve", abs(math.log(best) / math.log(solver.tolerance)))
        finally:
            if file is not None and iterate is not None:
                self._save(file, of, iterate)
        raise AssertionError("the iterates have no end")

    def _save(self, file: epath.Path, of: str, iterate: Iterate) -> None:
        def write(partial: epath.Path) -> None:
            with partial.open("wb") as stream:
                np.savez(stream, of=of, solution=iterate.solution, iterations=iterate.iterations)

        def save() -> None:
            files.write_whole(file, write)
            self._keep_time()

        processes.on_primary(save)

    def _restore(self, file: epath.Path, of: str, shape: tuple[int, ...]) -> Iterate | None:
        """Returns the saved iterate; none where there is none, a damaged one, or that of another choice."""
        if not file.exists():
            return None
        saved = read_arrays(file)
        try:
            if str(saved.get("of", of)) != of:  # older versions do not say it
                logger.warning("%s is of another choice; the solve begins anew", file)
                return None
            solution, iterations = saved["solution"].reshape(shape), int(saved["iterations"])
        except (KeyError, TypeError, ValueError):
            logger.warning("%s is damaged; the solve begins anew", file)
            return None
        logger.info("resuming from iteration %d", iterations)
        return Iterate(solution, math.nan, iterations)


def choose(log: list[dict[str, Any]], per_features: int) -> list[int]:
    """Returns which entries of a selection have the fewest errors: without a ridge, with one, or both.

    Args:
      log: in `selection.json`; not all could be solved.
      per_features: how many entries in a row have the same features. The second solution has the first one's,
        and so shares its products.
    """
    solved = [number for number, tried in enumerate(log) if tried["error"] is not None]

    def best(numbers: list[int]) -> list[int]:
        return [min(numbers, key=lambda number: log[number]["error"])] if numbers else []

    without = best([number for number in solved if log[number]["ridge"] == 0])
    return without + best(
        [
            number
            for number in solved
            if log[number]["ridge"] > 0
            and (not without or number // per_features == without[0] // per_features)
        ]
    )


def _features_of(entry: dict[str, Any]) -> str:
    own = {name: value for name, value in entry.items() if name not in ("gamma", "ridge")}
    return _text(own)


def _text(entry: dict[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True)


def _targets(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns one-hot targets and a column of ones, float64 [n, classes + 1]: of both come those of ±1."""
    return np.concatenate([np.eye(classes)[labels], np.ones((len(labels), 1))], axis=1)


def error_rate(values: np.ndarray, labels: np.ndarray) -> float:
    """Returns the fraction of examples whose greatest value [n, classes] is not the label's [n].

    An example with a value that is no number counts as wrong: NumPy's `argmax` would answer with its class.
    """
    is_number = ~np.isnan(values).any(axis=1)
    return float(np.mean(~is_number | (values.argmax(axis=1) != labels)))
