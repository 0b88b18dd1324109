"""A kernel matrix whose rows are shared among the devices: its products with vectors, and its columns.

K has n² entries. Its lower triangle is kept, in blocks of rows that are computed where they stay: 7.7 GB in
float32 for 60,000 points. Vectors are on the host.
"""

import errno
import logging
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import lax

from rethink_jax.distributed import parallel
from rethink_jax.errors import RunFailed
from rethink_jax.kernels.kernel import Kernel

logger = logging.getLogger(__name__)

# Rows of a block, on all devices together: with 60,000 columns a gigabyte in float32. No power of two: where
# widths are multiples of 4,096 a CPU's caches keep little of a column, and products take several times as long.
_ROWS = 4000

Array = jax.Array | np.ndarray


@contextmanager
def precision(dtype: np.dtype) -> Iterator[None]:
    """Has JAX compute in a dtype, and products in all of its digits: GPUs and TPUs would take fewer."""
    with jax.enable_x64(dtype == np.float64), jax.default_matmul_precision("highest"):
        yield


def _precise(dtype: np.dtype) -> np.dtype:
    """Returns float64, or on TPUs, which have none, the dtype."""
    return dtype if jax.default_backend() == "tpu" else np.dtype("float64")


def default_dtype(n: int) -> np.dtype:
    """Returns a matrix's dtype: float64 up to 20,000 examples, 1.6 GB, if the device has it. Our choice."""
    float32 = np.dtype("float32")
    return _precise(float32) if n <= 20_000 else float32


class _Block(NamedTuple):
    """Some rows of a matrix on the devices.

    Attributes:
      values: [local devices, rows, width], the columns from the first one on.
      rows: which, of all points. What the devices have beyond them is padding.
    """

    values: Array
    rows: slice


# What products are of where the features were not chosen; files of older versions do not say it.
NO_CHOICE = "{}"


class InnerProducts:
    """⟨x, x'⟩ of n points with each other and with test points; their features are added part by part.

    Products are summed in float64 (not on TPUs) before they are rounded: sums in float32 can be off by more
    than a kernel's smallest eigenvalues.

    Attributes:
      n: the number of points that are paired with each other and with the test points.
      dtype: of the products, float32 or float64.
      dimension: the number of features so far.
      squares: ‖x‖², float64 [n + num_test].
      checked: indices of the points that `exact_rows` is about.
    """

    def __init__(
        self,
        n: int,
        num_test: int,
        dtype: np.dtype,
        checked: np.ndarray | None = None,
        centered: bool = False,
    ):
        """Starts from zero features, which makes all inner products 0.

        Args:
          n: the number of training points; they come first in what `add` is given.
          num_test: the number of test points, which come after them. They are paired with the training points,
            not with each other.
          dtype: of the products that are kept, float32 or float64.
          checked: int [checked], indices of training points whose products are kept in float64 too, for
            `exact_rows`; `None` for none.
          centered: whether to subtract the training points' mean from all points. Distances stay the same, and
            more of their digits survive the rounding to `dtype`.
        """
        self.n, self.dtype, self.dimension = n, dtype, 0
        self.squares, self._square_of_mean = np.zeros(n + num_test), 0.0
        self.checked = np.zeros(0, np.int64) if checked is None else checked
        self._centered, self._precise = centered, _precise(self.dtype)
        self._exact = np.zeros((len(self.checked), n))
        devices = len(parallel.devices())
        step = -(-min(_ROWS, n) // devices) * devices
        rows = [slice(i, min(i + step, n)) for i in range(0, n, step)]
        rows += [slice(i, min(i + step, n + num_test)) for i in range(n, n + num_test, step)]
        nothing = parallel.local_shards(np.zeros((devices, 1, 1), dtype))[:, 0]
        self._blocks = [_Block(nothing, rows) for rows in rows]
        self._step = step
        self._add = parallel.map_over_devices(_add, (0, 1), sharded_output=True)

    def add(self, features: np.ndarray, show: Callable[[float], None]) -> None:
        """Adds the products of some more features.

        Args:
          features: floating [n + num_test, d].
          show: is told which part of this is done.
        """
        features = features.astype(self._precise)
        if self._centered:
            features -= features[: self.n].mean(axis=0)
        self.dimension += features.shape[1]
        self.squares += np.einsum("ij,ij->i", features, features, dtype=np.float64)
        self._square_of_mean += np.square(features[: self.n].mean(axis=0, dtype=np.float64)).sum()
        if len(self.checked):
            exact = features[: self.n].astype(np.float64, copy=False)
            self._exact += exact[self.checked] @ exact.T
        with precision(self._precise):
            for i, block in enumerate(self._blocks):
                points = parallel.replicate(features[: min(block.rows.stop, self.n)])
                rows = _padded_shards(features[block.rows], self._step)
                values = jax.block_until_ready(self._add(block.values, rows, points))
                self._blocks[i] = block._replace(values=values)
                show((i + 1) / len(self._blocks))

    @property
    def mean_square_distance(self) -> float:
        """The mean of ‖x − x'‖² over all pairs of the n points."""
        return 2 * float(self.squares[: self.n].mean() - self._square_of_mean)

    def matrix(self, kernel: Kernel, keep: bool = False) -> "KernelMatrix":
        """Returns the matrix of a kernel's values.

        Args:
          kernel: of this module.
          keep: whether the products are wanted once more; otherwise their memory goes to the matrix.
        """
        evaluate = parallel.map_over_devices(kernel.values, (0, 1), sharded_output=True)
        squares, blocks = self.squares[:, None].astype(self.dtype), []
        remaining = list(self._blocks) if keep else self._blocks
        with precision(self.dtype):
            while remaining:
                block = remaining.pop(0)
                across = parallel.replicate(squares[: min(block.rows.stop, self.n)].T)
                down = _padded_shards(squares[block.rows], self._step)
                values = jax.block_until_ready(evaluate(block.values, down, across))
                blocks.append(block._replace(values=values))
            diagonal = np.asarray(kernel.values(*3 * [squares[: self.n]]))[:, 0]
        return KernelMatrix(blocks, diagonal + kernel.offset, kernel.offset)

    def exact_rows(self, kernel: Kernel) -> np.ndarray:
        """Returns the kernel's rows at the checked points, float64 [checked, n]."""
        squares = self.squares[self.checked, None], self.squares[None, : self.n]
        with precision(np.dtype("float64")):
            return np.asarray(kernel.values(self._exact, *squares)) + kernel.offset

    def save(self, file: epath.Path, parts: int, choice: str = NO_CHOICE) -> None:
        """Writes all of it into a file, with the number of parts so far and what they are of."""
        own = {f"block_{i}": np.asarray(block.values) for i, block in enumerate(self._blocks)}
        with file.open("wb") as stream:
            np.savez(
                stream,
                parts=parts,
                of=choice,
                dimension=self.dimension,
                squares=self.squares,
                square_of_mean=self._square_of_mean,
                exact=self._exact,
                **own,  # type: ignore[arg-type]
            )

    def restore(self, file: epath.Path, choice: str = NO_CHOICE) -> int:
        """Resumes from a file and returns how many parts it has; 0 where it does not fit this matrix."""
        numbers = read_arrays(file)
        if numbers and str(numbers.get("of", NO_CHOICE)) != choice:
            logger.warning("%s is of other features; the matrix begins anew", file)
            return 0
        names = {"parts", "dimension", "squares", "square_of_mean", "exact"}
        if not numbers.keys() >= names | {f"block_{i}" for i in range(len(self._blocks))}:
            logger.warning("%s is damaged; the matrix begins anew", file)
            return 0
        blocks = [
            block._replace(values=numbers[f"block_{i}"]) for i, block in enumerate(self._blocks)
        ]
        devices = len(parallel.devices())
        layouts = {(block.values.shape[1] * devices, block.values.dtype) for block in blocks}
        if layouts != {(self._step, self.dtype)}:
            logger.warning("%s is of other devices or another dtype; the matrix begins anew", file)
            return 0
        self._blocks, self.squares, self._exact = blocks, numbers["squares"], numbers["exact"]
        self.dimension = int(numbers["dimension"])
        self._square_of_mean = float(numbers["square_of_mean"])
        return int(numbers["parts"])


def read_arrays(file: epath.Path) -> dict[str, np.ndarray]:
    """Reads a file of `np.savez`; a damaged one has no arrays.

    Raises:
      RunFailed: it cannot be read, which does not mean that it is damaged.
    """
    try:
        with file.open("rb") as stream, np.load(stream) as saved:
            return dict(saved)
    except OSError as error:
        if error.errno not in (
            None,
            errno.EINVAL,
        ):  # zipfile looks where a damaged list of contents says
            raise RunFailed(
                f"{file} cannot be read: {error.strerror}; nothing was changed"
            ) from error
    except (ValueError, KeyError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile):
        pass
    return {}


class KernelMatrix:
    """The symmetric matrix of a kernel at n points, its rows on all devices, and the rows of test points.

    Attributes:
      n: the number of points.
      dtype: of the matrix.
      diagonal: float64 [n].
    """

    def __init__(self, blocks: list[_Block], diagonal: np.ndarray, offset: float):
        self.n, self.diagonal, self._offset = len(diagonal), diagonal.astype(np.float64), offset
        self.dtype = blocks[0].values.dtype
        self._precise = _precise(self.dtype)
        self._step = blocks[0].values.shape[1] * len(parallel.devices())
        self._blocks = [block for block in blocks if block.rows.start < self.n]
        self._test_blocks = [block for block in blocks if block.rows.start >= self.n]
        self._multiply = parallel.map_over_devices(_multiply, (0, 2))
        self._multiply_rows = parallel.map_over_devices(_multiply_rows, (0,))
        self._take = parallel.map_over_devices(_take, (0,))

    def __matmul__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns K V for V float64 [n, k], float64; but for the offset in the matrix's dtype."""
        return self._times(vectors, self.dtype)

    def multiply_precisely(self, vectors: np.ndarray) -> np.ndarray:
        """Returns K V, computed in float64 from the matrix as it is; in its dtype on TPUs."""
        return self._times(vectors, self._precise)

    def _times(self, vectors: np.ndarray, dtype: np.dtype) -> np.ndarray:
        of_offset = self._offset * vectors.sum(axis=0)
        vectors = vectors.astype(dtype)

        def multiply(block: _Block) -> tuple[jax.Array, jax.Array]:
            own = _padded_shards(vectors[block.rows], self._step)
            return self._multiply(block.values, parallel.replicate(vectors[: block.rows.stop]), own)

        return self._over_both_triangles(multiply, vectors.shape[1], dtype) + of_offset

    def columns(self, indices: np.ndarray) -> np.ndarray:
        """Returns columns of K, float64 [n, k]."""
        where = parallel.replicate(indices.astype(np.int32))

        def take(block: _Block) -> tuple[jax.Array, jax.Array]:
            return self._take(block.values, where, np.int32(block.rows.start))

        return self._over_both_triangles(take, len(indices), self.dtype) + self._offset

    def predict(self, solution: np.ndarray) -> np.ndarray:
        """Returns Σ_i α_i k(x, x_i) at the test points x, float64 [num_test, k], for α [n, k].

        In float64 but on TPUs: solutions of an ill-conditioned system are large and cancel.
        """
        with precision(self._precise):
            weights = parallel.replicate(solution.astype(self._precise))
            products = [self._multiply_rows(block.values, weights) for block in self._test_blocks]
            parts = [parallel.fetch(part).reshape(self._step, -1) for part in products]
        counts = [block.rows.stop - block.rows.start for block in self._test_blocks]
        rows = [part[:count] for part, count in zip(parts, counts, strict=True)]
        return np.concatenate(rows) + self._offset * solution.sum(axis=0)

    def _over_both_triangles(
        self,
        function: Callable[[_Block], tuple[jax.Array, jax.Array]],
        width: int,
        dtype: np.dtype,
    ) -> np.ndarray:
        """Adds up what each block gives for its own rows, and as columns for the rows above it."""
        total = np.zeros((self.n, width))
        with precision(dtype):
            results = [function(block) for block in self._blocks]
            for block, parts in zip(self._blocks, results, strict=True):
                own, above = parallel.fetch(parts)
                count = block.rows.stop - block.rows.start
                total[block.rows] += own.reshape(self._step, -1)[:count]
                total[: block.rows.start] += above[:, : block.rows.start].T
        return total


def _padded_shards(rows: np.ndarray, count: int) -> np.ndarray:
    return parallel.local_shards(np.pad(rows, [(0, count - len(rows)), (0, 0)]))


def _add(values: jax.Array, rows: jax.Array, points: jax.Array) -> jax.Array:
    return values + (rows @ points.T).astype(values.dtype)


def _multiply(values: jax.Array, vectors: jax.Array, own: jax.Array) -> tuple[jax.Array, jax.Array]:
    values = values.astype(vectors.dtype)
    rows = lax.all_gather(values @ vectors, parallel.AXIS)
    return rows, lax.psum(own.T @ values, parallel.AXIS)


def _multiply_rows(values: jax.Array, vectors: jax.Array) -> jax.Array:
    return lax.all_gather(values.astype(vectors.dtype) @ vectors, parallel.AXIS)


def _take(values: jax.Array, indices: jax.Array, first: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows, width = values.shape
    here = jnp.where(indices[None] < width, values[:, jnp.minimum(indices, width - 1)], 0)
    own = indices - (first + lax.axis_index(parallel.AXIS) * rows)
    is_own = (own >= 0) & (own < rows)
    above = jnp.where(is_own[:, None], values[jnp.clip(own, 0, rows - 1)], 0)
    return lax.all_gather(here, parallel.AXIS), lax.psum(above, parallel.AXIS)
