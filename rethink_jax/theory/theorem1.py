"""Theorem 1: a two-layer ReLU network with 2n + d weights has any n values at any n points (section 4).

c(x) = Σ_j w_j max(⟨a, x⟩ − b_j, 0), with b_1 < z_1 < b_2 < z_2 < … < b_n < z_n and z_i = ⟨a, x_i⟩, ascending.
A_ij = max(z_i − b_j, 0) is lower triangular, so A w = y is solved from the first row down: c is the line from
one point to the next, and w_j is how much its slope changes at b_j. No n × n matrix is needed.

Everything but w is exact. Points are whole numbers, a is a multiple of a power of two with so few digits that
⟨a, x⟩ has no rounding error in float64 whatever the order of its sum, and b is z and half a unit more.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rethink_jax.errors import UserError

# Digits of a float64, less the sign of z − b and the half unit between z and b.
_DIGITS = 51
# Sums of products are whole numbers of 2**-_SHIFT; a weight's last digit is far above it.
_SHIFT = 256
_ATTEMPTS = 10
_BLOCK = 2**21  # hidden units times points that are held at a time


class Network(NamedTuple):
    """The network of Theorem 1; its hidden units are in the order of `b`.

    Attributes:
      a: float64 [d], the weights of every hidden unit.
      b: float64 [n], less the hidden units' biases, ascending.
      w: float64 [n], the weights of the output.
    """

    a: np.ndarray
    b: np.ndarray
    w: np.ndarray

    @property
    def size(self) -> int:
        """How many weights there are: 2n + d."""
        return len(self.a) + len(self.b) + len(self.w)


def construct(points: np.ndarray, values: np.ndarray, seed: int) -> Network:
    """Returns a network that has the given values at the given points, in O(n log n + nd).

    Each weight is solved for with the rounding errors of those before it in the sum, in exact arithmetic, so
    that they do not add up: c(x_i) is y_i to the precision of one product.

    Args:
      points: uint8 [n, d].
      values: integers [n].
      seed: of the random direction a.

    Raises:
      UserError: two points are equal; the line names them.

    Example:
      >>> points = np.random.default_rng(0).integers(0, 256, (100, 20), np.uint8)
      >>> labels = np.random.default_rng(1).integers(0, 10, 100)
      >>> network = construct(points, labels, seed=0)
      >>> network.size  # 2n + d
      220
      >>> bool(np.all(np.rint(run(network, points)) == labels))
      True
    """
    a, z = _direction(points, seed)
    order = np.argsort(z)
    z = z[order]
    half_unit = _unit(a.size) / 2
    b = np.append(z[0] - 1, z[:-1] + half_unit)
    w = _solve(z, b, values[order], half_unit)
    return Network(a, b, w)


def _direction(points: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a random direction, and the points' different places along it."""
    n, d = points.shape
    unit = _unit(d)
    rng = np.random.default_rng(seed)
    for _ in range(_ATTEMPTS):
        a = np.floor(rng.random(d) / unit) * unit
        z = project(points, a)
        if len(np.unique(z)) == n:
            return a, z
        _refuse_equal_points(points, z)
    raise UserError(f"no direction tells the {n} points apart after {_ATTEMPTS} draws")


def _unit(d: int) -> float:
    """Returns the power of two of which a's elements are multiples, all below 1."""
    digits_of_a_sum = 8 + math.ceil(math.log2(d + 1))
    return 2.0 ** (digits_of_a_sum - _DIGITS)


def project(points: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Returns ⟨a, x⟩ for points [n, d], a block of them at a time."""
    step = max(1, _BLOCK // points.shape[1])
    blocks = range(0, len(points), step)
    return np.concatenate([points[i : i + step].astype(np.float64) @ a for i in blocks])


def _refuse_equal_points(points: np.ndarray, z: np.ndarray) -> None:
    order = np.argsort(z, kind="stable")
    for i in np.flatnonzero(np.diff(z[order]) == 0):
        first, second = order[i : i + 2]
        if np.array_equal(points[first], points[second]):
            raise UserError(
                f"points {first} and {second} are equal; no function has two values at one point, "
                "so Theorem 1 asks for different ones"
            )


def _solve(z: np.ndarray, b: np.ndarray, values: np.ndarray, unit: float) -> np.ndarray:
    """Solves A w = y, from the first row down, in whole numbers of Python's."""
    w = np.empty(len(z))
    slope = offset = 0  # c(z) = slope z − offset behind the last b
    rows = zip(_whole(z, unit), _whole(b, unit), values.tolist(), strict=True)
    to_whole = 2**_SHIFT
    for i, (z_i, b_i, y_i) in enumerate(rows):
        # In units of 2**-_SHIFT times z's own: `unit` and the weight's scale cancel out here.
        missing = y_i * to_whole - (slope * z_i - offset)
        weight = missing / ((z_i - b_i) * to_whole)
        w[i] = weight
        exact = _exact(weight)
        slope += exact
        offset += exact * b_i
    return w / unit


def solve_plainly(z: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solves A w = y as one would at first: every b in the middle between two z, everything in float64.

    For comparison. The values between the points swing more and more, and rounding errors add up.

    Args:
      z: float64 [n], ascending.
      values: integers [n].

    Returns:
      b and w, float64 [n].
    """
    b = np.append(z[0] - 1, (z[1:] + z[:-1]) / 2)
    slopes = np.empty(len(z))
    value = 0.0  # c(b_j)
    ends = [*b[1:].tolist(), 0.0]
    rows = zip(z.tolist(), b.tolist(), ends, values.tolist(), strict=True)
    for i, (z_i, b_i, end, y_i) in enumerate(rows):
        slopes[i] = (y_i - value) / (z_i - b_i)
        value += slopes[i] * (end - b_i)
    return b, np.diff(slopes, prepend=0.0)


def _whole(x: np.ndarray, unit: float) -> list[int]:
    return (x / unit).astype(np.int64).tolist()


def _exact(weight: float) -> int:
    return int(math.ldexp(weight, _SHIFT))


def evaluate_exact(network: Network, z: np.ndarray) -> np.ndarray:
    """Returns the network's values at places along a, by prefix sums of Python's whole numbers.

    Args:
      network: as `construct` returns it.
      z: float64 [m], multiples of half the unit of the network.

    Returns:
      float64 [m], each rounded once.
    """
    half_unit = _unit(network.a.size) / 2
    exact = [_exact(weight) for weight in (network.w * half_unit).tolist()]
    b = _whole(network.b, half_unit)
    order = np.argsort(z)
    active = np.searchsorted(network.b, z[order])
    values = np.empty(len(z))
    slope = offset = j = 0
    places = zip(order.tolist(), _whole(z[order], half_unit), active.tolist(), strict=True)
    for i, z_i, units in places:
        while j < units:
            slope += exact[j]
            offset += exact[j] * b[j]
            j += 1
        values[i] = (slope * z_i - offset) / 2**_SHIFT
    return values


def values_by_prefix_sums(network: Network, z: np.ndarray) -> np.ndarray:
    """Returns the network's outputs at projected points by prefix sums: O(n log n), where `run` takes O(n²).

    Sums are in float64 and lose digits where weights are large; `evaluate_exact` has the exact values.

    Args:
      network: of n hidden units, whose biases ascend.
      z: float64 [m], the points' projections ⟨a, x⟩.

    Returns:
      float64 [m].
    """
    slopes = np.append(0.0, np.cumsum(network.w))
    # Around the first b, where the products are smallest.
    offsets = np.append(0.0, np.cumsum(network.w * (network.b - network.b[0])))
    active = np.searchsorted(network.b, z)
    return slopes[active] * (z - network.b[0]) - offsets[active]


def run(network: Network, points: np.ndarray) -> np.ndarray:
    """Runs the network as any ReLU network is run: every hidden unit at every point, in float64.

    Args:
      network: of n hidden units.
      points: uint8 [m, d].

    Returns:
      float64 [m].
    """
    return _hidden_sums(project(points, network.a), network.b, network.w)


def _hidden_sums(z: np.ndarray, b: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Returns Σ_j w_j max(z − b_j, 0) for each z, a block of them at a time."""
    step = max(1, _BLOCK // max(1, len(b)))  # a deep network's layer may have none
    blocks = []
    for i in range(0, len(z), step):
        hidden = z[i : i + step, None] - b
        np.maximum(hidden, 0, out=hidden)
        blocks.append(hidden @ w)
    return np.concatenate(blocks)


def run_deep(network: Network, points: np.ndarray, depth: int) -> np.ndarray:
    """Runs the network of Corollary 1: the same function with the hidden units in `depth` layers.

    Each layer has ⌈n/depth⌉ of the units and three more: z, which is positive and so passes a ReLU, and the
    positive and the negative part of the output's sum so far. There are O(n + d) weights.

    Args:
      network: of n hidden units.
      points: uint8 [m, d].
      depth: the number of hidden layers.

    Returns:
      float64 [m].
    """
    z = project(points, network.a) - network.b[0]
    b = network.b - network.b[0]
    positive, negative = np.zeros_like(z), np.zeros_like(z)
    for units in np.array_split(np.arange(len(b)), depth):
        total = positive - negative + _hidden_sums(z, b[units], network.w[units])
        positive, negative = np.maximum(total, 0), np.maximum(-total, 0)
        z = np.maximum(z, 0)
    return positive - negative


def evaluate_double_double(network: Network, points: np.ndarray) -> np.ndarray:
    """Runs the network like `run`, but with exact products and sums of twice float64's digits.

    Both factors of a product are cut into halves of 26 digits, whose products are exact in float64; of each
    sum the rounding error is kept too (Knuth's TwoSum). A compiler may fuse an exact product and a sum at will.
    """
    half_unit = _unit(network.a.size) / 2
    # Added and taken away again, it leaves the digits above the lower 26 of a multiple of `half_unit`.
    cut = 1.5 * 2.0**52 * 2.0**26 * half_unit
    w_high = _upper_half(network.w)

    @jax.jit
    def accumulate(z: jax.Array, b: jax.Array, w: jax.Array, cut: jax.Array) -> jax.Array:
        def add_unit(
            j: jax.Array, carry: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            total, errors = carry
            hidden = jnp.maximum(z - b[j], 0)
            high = (hidden + cut) - cut
            for factor in (high, hidden - high):
                for weight in (w[0, j], w[1, j]):
                    total, error = _two_sum(total, factor * weight)
                    errors += error
            return total, errors

        zeros = jnp.zeros_like(z)
        total, errors = jax.lax.fori_loop(0, b.size, add_unit, (zeros, zeros))
        return total + errors

    with jax.enable_x64(True):
        halves = np.stack([w_high, network.w - w_high])
        return np.asarray(accumulate(project(points, network.a), network.b, halves, cut))


def _two_sum(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    total = x + y
    part = total - x
    return total, (x - (total - part)) + (y - part)


def _upper_half(x: np.ndarray) -> np.ndarray:
    """Returns the upper 26 of a float64's 53 digits; the rest has 26 and a sign (Veltkamp)."""
    scaled = x * (2.0**27 + 1)
    return scaled - (scaled - x)
