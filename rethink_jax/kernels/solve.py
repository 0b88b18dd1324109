"""The solve K α = Y by preconditioned conjugate gradients, to a tolerance and resumable."""

import logging
import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from etils import epath

from rethink_jax.distributed import processes
from rethink_jax.errors import RunFailed
from rethink_jax.kernels.matrix import KernelMatrix, read_arrays
from rethink_jax.kernels.preconditioner import Factor, Preconditioner, factorize, precondition
from rethink_jax.kernels.session import Session
from rethink_jax.runs import files

logger = logging.getLogger(__name__)

ADVICE = "; set a larger config.solver.tolerance, .rank or .max_iterations"


class Iterate(NamedTuple):
    """Where the solve is.

    Attributes:
      solution: float64 [n, k].
      residual: ‖Y − (K + ridge I) α‖ / ‖Y‖ of the worst column.
      iterations: so far.
    """

    solution: np.ndarray
    residual: float
    iterations: int


def conjugate_gradients(
    matrix: KernelMatrix,
    targets: np.ndarray,
    ridge: float,
    preconditioner: Preconditioner | Factor,
    tolerance: float,
    start: Iterate | None = None,
) -> Iterator[Iterate]:
    """Yields better and better solutions of (K + ridge I) α = Y, without end; each column by itself.

    Products of the iteration are in K's dtype, all else is in float64. The recurrence of the residual drifts
    from the residual itself, which is computed anew every fiftieth time, and where the tolerance seems to be
    reached. So each direction is made orthogonal to the last one's image, and each step is as long as the
    residual at hand asks for (Notay 2000, flexible conjugate gradients). The textbook's ratios of residuals
    take for granted that the recurrence was never left; at float32's floor their directions grow without bound.

    Args:
      matrix: K.
      targets: Y, float64 [n, k].
      ridge: added to K's diagonal.
      preconditioner: as `precondition` or `factorize` returns it.
      tolerance: a residual up to this is the solution's own; a column that has it is left as it is.
      start: an iterate to resume from.

    Raises:
      RunFailed: the matrix is not positive definite in this precision, or not finite.
    """
    solution = np.zeros_like(targets) if start is None else start.solution.copy()
    iterations = 0 if start is None else start.iterations

    def missing() -> np.ndarray:
        return targets - matrix.multiply_precisely(solution) - ridge * solution

    norms = np.linalg.norm(targets, axis=0)
    norms[norms == 0] = 1  # a class without examples
    residual = missing()
    direction, image, curvature = *2 * [np.zeros_like(targets)], np.ones(len(norms))
    while True:
        relative = np.linalg.norm(residual, axis=0) / norms
        if not np.isfinite(relative).all():
            raise RunFailed(f"the residual is not finite after {iterations} iterations")
        yield Iterate(solution, float(relative.max()), iterations)
        preconditioned = preconditioner @ residual
        direction = preconditioned - (preconditioned * image).sum(axis=0) / curvature * direction
        image = matrix @ direction + ridge * direction
        curvature, is_open = (direction * image).sum(axis=0), relative > tolerance
        if (curvature[is_open] <= 0).any():
            raise RunFailed(
                f"the kernel matrix is not positive definite in {matrix.dtype}; set config.kernel.ridges "
                "above 0, or config.solver.dtype float64"
            )
        curvature[~(curvature > 0)] = 1
        step = np.where(is_open, (direction * residual).sum(axis=0) / curvature, 0)
        solution = solution + step * direction
        residual = residual - step * image
        iterations += 1
        if iterations % 50 == 0 or (np.linalg.norm(residual, axis=0) <= tolerance * norms).all():
            residual = missing()


def is_solved(iterate: Iterate, tolerance: float, max_iterations: int, advice: str = "") -> bool:
    """Returns whether an iterate is a solution.

    Raises:
      RunFailed: it is none after so many iterations; `advice` ends the line.
    """
    if iterate.residual <= tolerance:
        return True
    if iterate.iterations >= max_iterations:
        raise RunFailed(
            f"the residual is {iterate.residual:.1e} after {iterate.iterations} iterations{advice}"
        )
    return False


def targets_of(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns one-hot targets and a column of ones, float64 [n, classes + 1].

    The solutions of targets ±1 are linear combinations of theirs.

    Args:
      labels: int32 [n]; or [n, k], which has k sets of targets before the column, float64 [n, k · classes + 1].
      classes: how many there are.
    """
    one_hot = np.eye(classes)[labels].reshape(len(labels), -1)
    return np.concatenate([one_hot, np.ones((len(labels), 1))], axis=1)


def solve_to_tolerance(
    session: Session,
    matrix: KernelMatrix,
    labels: np.ndarray,
    ridge: float,
    title: str,
    file: epath.Path | None = None,
    choice: str = "",
) -> Iterate:
    """Solves (K + ridge I) α = Y for the targets of labels, to `config.solver.tolerance`.

    Args:
      session: of the run.
      matrix: K.
      labels: int32 [n], or [n, k].
      ridge: added to K's diagonal.
      title: of what is shown.
      file: keeps the iterates, and may have one to resume from.
      choice: tells features, γ and ridge from others, whose iterate the file may have.

    Raises:
      RunFailed: the tolerance is not reached.
    """
    solver = session.config.solver
    session.show(f"{title}: preconditioner", 0)
    preconditioner: Preconditioner | Factor | None = None
    if solver.rank >= matrix.n and matrix.dtype == np.float64:
        preconditioner = factorize(matrix, ridge)
    if preconditioner is None:
        preconditioner = precondition(matrix, ridge, solver.rank, session.config.seed)
    targets = targets_of(labels, session.dataset.info.num_classes)
    start = None if file is None else _restore(file, choice, targets.shape)
    saved_at, best, iterate = time.monotonic(), 1.0, None
    try:
        for iterate in conjugate_gradients(
            matrix, targets, ridge, preconditioner, solver.tolerance, start
        ):
            best = min(best, iterate.residual)
            if is_solved(iterate, solver.tolerance, solver.max_iterations, ADVICE):
                return iterate
            if file is not None and time.monotonic() > saved_at + solver.save_seconds:
                _save(session, file, choice, iterate)
                saved_at = time.monotonic()
            session.show(f"{title}: solve", abs(math.log(best) / math.log(solver.tolerance)))
    finally:
        if file is not None and iterate is not None:
            _save(session, file, choice, iterate)
    raise AssertionError("the iterates have no end")


def _save(session: Session, file: epath.Path, choice: str, iterate: Iterate) -> None:
    def write(partial: epath.Path) -> None:
        with partial.open("wb") as stream:
            np.savez(stream, of=choice, solution=iterate.solution, iterations=iterate.iterations)

    def save() -> None:
        files.write_whole(file, write)
        session.keep_seconds()

    processes.on_primary(save)


def _restore(file: epath.Path, choice: str, shape: tuple[int, ...]) -> Iterate | None:
    """Returns the saved iterate; None where there is none, a damaged one, or that of another choice."""
    if not file.exists():
        return None
    saved = read_arrays(file)
    try:
        if str(saved.get("of", choice)) != choice:  # older versions do not say it
            logger.warning("%s is of another choice; the solve begins anew", file)
            return None
        solution, iterations = saved["solution"].reshape(shape), int(saved["iterations"])
    except (KeyError, TypeError, ValueError):
        logger.warning("%s is damaged; the solve begins anew", file)
        return None
    logger.info("resuming from iteration %d", iterations)
    return Iterate(solution, math.nan, iterations)
