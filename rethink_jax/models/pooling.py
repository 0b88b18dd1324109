"""Pooling over square windows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def max_pool(
    x: jax.Array, window: int = 3, stride: int = 2, padding: int | None = None
) -> jax.Array:
    """Takes the maximum over windows. Of equal maxima the first takes the gradient, as in flax and PyTorch.

    The gradient of flax's pooling (select-and-scatter) is many times slower on CPUs.

    Args:
      x: floating [n, height, width, channels].
      window: side of the window, at most 11.
      stride: between windows.
      padding: on each side; by default SAME's.

    Returns:
      Maxima [n, height', width', channels]; with SAME ⌈height/stride⌉ and ⌈width/stride⌉.
    """
    edges = [(0, 0, 0)]
    for side in x.shape[1:3]:
        if padding is None:
            out = -(-side // stride)
            low = max((out - 1) * stride + window - side, 0) // 2
        else:
            out, low = (side + 2 * padding - window) // stride + 1, padding
        edges.append((low, (out - 1) * stride + window - side - low, 0))
    return _maxima(lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), [*edges, (0, 0, 0)]), window, stride)


def _taps(x: jax.Array, window: int, stride: int) -> list[jax.Array]:
    """Returns the elements of all windows: the upper left ones, then their right neighbours, and so on."""
    height, width = (side - window + 1 for side in x.shape[1:3])
    return [
        x[:, i : i + height : stride, j : j + width : stride]
        for i in range(window)
        for j in range(window)
    ]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _maxima(x: jax.Array, window: int, stride: int) -> jax.Array:
    return functools.reduce(jnp.maximum, _taps(x, window, stride))


@_maxima.defjvp
def _maxima_jvp(
    window: int, stride: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    maxima, *taps = _taps(*primals, window, stride)
    first = jnp.zeros(maxima.shape, jnp.int8)
    for i, tap in enumerate(taps, 1):
        first = jnp.where(tap > maxima, jnp.int8(i), first)
        maxima = jnp.maximum(maxima, tap)
    # Without the barriers XLA computes what is before them anew for each of the elements behind.
    maxima, first = lax.optimization_barrier((maxima, first))
    chosen = [
        jnp.where(first == i, tap, jnp.zeros_like(tap))
        for i, tap in enumerate(_taps(*tangents, window, stride))
    ]
    return maxima, lax.optimization_barrier(sum(chosen))


def mean_pool(
    x: jax.Array, window: int, stride: int = 1, padding: int = 0, count_padding: bool = True
) -> jax.Array:
    """Takes the mean over windows.

    Args:
      x: floating [n, height, width, channels].
      window: side of the window.
      stride: between windows.
      padding: zeros on each side.
      count_padding: whether these zeros count in the mean.
    """

    def total(x: jax.Array) -> jax.Array:
        margins = ((0, 0), *2 * ((padding, padding),), (0, 0))
        sides = (1, window, window, 1), (1, stride, stride, 1)
        return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, *sides, margins)

    counts = jnp.full((1, 1, 1, 1), window**2, x.dtype)
    return total(x) / (counts if count_padding else total(jnp.ones((1, *x.shape[1:3], 1), x.dtype)))
