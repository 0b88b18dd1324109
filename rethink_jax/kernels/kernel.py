"""Kernels: functions of inner products and squared norms."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rethink_jax.errors import RunFailed

Array = jax.Array | np.ndarray


class Kernel(NamedTuple):
    """A kernel, less a constant that would take the digits of a flat one.

    Attributes:
      values: a function of ⟨x, x'⟩, ‖x‖² and ‖x'‖², floating arrays that broadcast, to k(x, x') − offset.
      offset: the constant.
    """

    values: Callable[[Array, Array, Array], jax.Array]
    offset: float


def gaussian(gamma: float, around: float = 0.0) -> Kernel:
    """Returns exp(−γ‖x − x'‖²).

    Args:
      gamma: γ.
      around: a squared distance; the kernel's value there is the offset, where it is 1/e or more.

    Example:
      >>> kernel = gaussian(gamma=0.5)
      >>> product, square = np.float32([[0.0]]), np.float32([[1.0]])  # two orthogonal unit vectors
      >>> value = kernel.values(product, square, square) + kernel.offset
      >>> round(float(value[0, 0]), 4)  # exp(−0.5 · 2)
      0.3679
    """
    if gamma * around > 1:  # no flat kernel; far beyond, expm1 would overflow
        around = 0.0
    offset = math.exp(-gamma * around)

    def values(products: Array, squares: Array, other_squares: Array) -> jax.Array:
        distances = jnp.maximum(squares + other_squares - 2 * products, 0)
        return offset * jnp.expm1(gamma * (around - distances))

    return Kernel(values, offset)


def linear() -> Kernel:
    """Returns ⟨x, x'⟩.

    Example:
      >>> kernel = linear()
      >>> float(kernel.values(np.float32(3.0), np.float32(9.0), np.float32(1.0)) + kernel.offset)
      3.0
    """
    return Kernel(lambda products, squares, other_squares: jnp.asarray(products), 0.0)


KERNELS: dict[str, Callable[[float, float], Kernel]] = {
    "gaussian": gaussian,
    "linear": lambda gamma, around: linear(),
}


def of_points(config: ConfigDict, gamma: float, mean_square_distance: float, n: int) -> Kernel:
    """Returns the kernel of `config.kernel.name` for n points with this mean squared distance.

    With `config.kernel.gamma_scale` γ is in units of 1 / the mean squared distance.

    Raises:
      RunFailed: γ has no unit, because all points are the same.
    """
    if config.kernel.gamma_scale:
        if mean_square_distance <= 0:
            raise RunFailed(
                f"config.kernel.gamma_scale is True, but the {n} examples are all the same"
            )
        gamma /= mean_square_distance
    return KERNELS[config.kernel.name](gamma, mean_square_distance)
