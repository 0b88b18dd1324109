"""Convolutions by Winograd's minimal filtering: products of matrices with fewer multiplications.

A tile of 2×2 results of a k×k kernel takes (k + 1)² multiplications for each pair of channels instead of 4k².
Tiles of the input and the kernel are transformed, multiplied, and transformed back, as polynomials are
evaluated at points, multiplied there, and interpolated. Lavin and Gray 2016, *Fast Algorithms for Convolutional
Neural Networks*, section 4.
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Pads = Sequence[tuple[int, int]]

# The side of a tile of results.
_TILE = 2
# For kernels of each side, and infinity beside them. Pairs of opposite ones give the input's transform zeros;
# ±1 and ±2 would round 5×5 kernels' convolutions twice as coarsely.
_POINTS = {3: (0.0, 1.0, -1.0), 5: (0.0, 0.75, -0.75, 1.5, -1.5)}
# Rows of maps that are transformed at once, so that what they become stays in the caches.
_ROWS = 112


class _Transforms(NamedTuple):
    """Of one dimension, for kernels of side k.

    Attributes:
      of_input: [k + 1, k + 1].
      of_kernel: [k + 1, k].
      of_result: [2, k + 1].
    """

    of_input: np.ndarray
    of_kernel: np.ndarray
    of_result: np.ndarray


@functools.cache
def _transforms(k: int) -> _Transforms:
    """Returns the transforms that evaluate polynomials at the points, and for the input the transposed inverse.

    The inverse's rows are Lagrange's polynomials. They are not divided by their values at their own points, as
    the kernel's are, so that the input's factors are few and short numbers.
    """
    points = _POINTS[k]

    def at_points(degree: int) -> np.ndarray:
        powers = [[point**i for i in range(degree)] for point in points]
        return np.asarray([*powers, [0.0] * (degree - 1) + [1.0]])

    lagrange = [np.poly([other for other in points if other != point])[::-1] for point in points]
    of_input = [*(np.append(row, 0.0) for row in lagrange), np.poly(points)[::-1]]
    divisors = [row @ powers[:k] for row, powers in zip(lagrange, at_points(k), strict=False)]
    of_kernel = at_points(k) / np.asarray([*divisors, 1.0])[:, None]
    return _Transforms(np.asarray(of_input), of_kernel, at_points(_TILE).T)


def convolve(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Convolves with stride 1.

    Args:
      x: floating [n, height, width, channels].
      kernel: floating [k, k, channels, features], k of 3 or 5.
      pads: zeros before and behind each dimension.
    """
    k = len(kernel)
    transforms = _transforms(k)
    sides = [side + sum(pad) - k + 1 for side, pad in zip(x.shape[1:3], pads, strict=True)]
    of_kernel = transforms.of_kernel.astype(kernel.dtype)
    kernels = jnp.einsum("ai,bj,ijcf->abcf", of_kernel, of_kernel, kernel)

    def of_part(x: jax.Array) -> jax.Array:
        tiles = _tiles(_pad_to_tiles(x, pads, sides), transforms.of_input)
        products = [
            [tile @ kernels[a, b] for b, tile in enumerate(row)] for a, row in enumerate(tiles)
        ]
        return _join(products, transforms.of_result, len(x), sides)

    at_once, whole = _parts(len(x), sides)
    results = lax.map(of_part, x[:whole].reshape(-1, at_once, *x.shape[1:]))
    results = results.reshape(whole, *results.shape[2:])
    return results if whole == len(x) else jnp.concatenate([results, of_part(x[whole:])])


def input_gradient(gradient: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Returns the gradient of `convolve`'s input.

    Args:
      gradient: floating [n, height, width, features], of the result.
      kernel: floating [k, k, channels, features], k of 3 or 5.
      pads: zeros before and behind each dimension, less than k.
    """
    around = [(len(kernel) - 1 - low, len(kernel) - 1 - high) for low, high in pads]
    return convolve(gradient, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), around)


def kernel_gradient(x: jax.Array, gradient: jax.Array, pads: Pads) -> jax.Array:
    """Returns the gradient of `convolve`'s kernel.

    Args:
      x: floating [n, height, width, channels].
      gradient: floating [n, height, width, features], of the result.
      pads: zeros before and behind each dimension.
    """
    sides = gradient.shape[1:3]
    k = x.shape[1] + sum(pads[0]) - sides[0] + 1
    transforms = _transforms(k)

    def of_part(x: jax.Array, gradient: jax.Array) -> jax.Array:
        of_inputs = _tiles(_pad_to_tiles(x, pads, sides), transforms.of_input)
        of_results = _tiles(_pad_to_tiles(gradient, [(0, 0)] * 2, sides), transforms.of_result.T)
        rows = zip(of_inputs, of_results, strict=True)
        return jnp.stack([jnp.stack([x.T @ y for x, y in zip(*row, strict=True)]) for row in rows])

    at_once, whole = _parts(len(x), sides)

    def add_part(i: jax.Array, kernels: jax.Array) -> jax.Array:
        part = [lax.dynamic_slice_in_dim(y, i * at_once, at_once) for y in (x, gradient)]
        return kernels + of_part(*part)

    zeros = jnp.zeros((k + 1, k + 1, x.shape[-1], gradient.shape[-1]), x.dtype)
    kernels = lax.fori_loop(0, whole // at_once, add_part, zeros)
    if whole < len(x):
        kernels += of_part(x[whole:], gradient[whole:])
    of_kernel = transforms.of_kernel.astype(x.dtype)
    return jnp.einsum("ai,bj,abcf->ijcf", of_kernel, of_kernel, kernels)


def _parts(n: int, sides: Sequence[int]) -> tuple[int, int]:
    """Returns how many images are transformed at once, and how many of n are in whole parts."""
    at_once = min(n, 2 ** int(math.log2(max(_ROWS / max(sides), 1))))
    return at_once, n - n % at_once


def _pad_to_tiles(x: jax.Array, pads: Pads, sides: Sequence[int]) -> jax.Array:
    """Pads maps as asked, and further for whole tiles of results, which have these sides."""
    behind = [high + -side % _TILE for (_, high), side in zip(pads, sides, strict=True)]
    before = [low for low, _ in pads]
    padded = jnp.pad(x, [(0, 0), *zip(before, behind, strict=True), (0, 0)])
    return lax.optimization_barrier(padded)


def _tiles(x: jax.Array, transform: np.ndarray) -> list[list[jax.Array]]:
    """Transforms overlapping tiles in both dimensions.

    Args:
      x: floating [n, height, width, channels].
      transform: of a dimension, [k + 1, side of a tile].

    Returns:
      For each row and column of a transformed tile [n · tiles, channels].
    """
    # Without this barrier XLA transforms the rows anew for each column.
    rows = lax.optimization_barrier(_transform(x, transform, 1))
    return [[y.reshape(-1, y.shape[-1]) for y in _transform(row, transform, 2)] for row in rows]


def _transform(x: jax.Array, transform: np.ndarray, axis: int) -> list[jax.Array]:
    side = transform.shape[1]
    last = x.shape[axis] - side
    pixels = [lax.slice_in_dim(x, i, i + last + 1, _TILE, axis) for i in range(side)]
    return [_combine(row, pixels) for row in transform]


def _combine(factors: np.ndarray, terms: Sequence[jax.Array]) -> jax.Array:
    """Returns a linear combination, without products with 0 and 1."""
    used = [(float(factor), term) for factor, term in zip(factors, terms, strict=True) if factor]
    scaled = [term if factor == 1 else factor * term for factor, term in used]
    return functools.reduce(operator.add, scaled)


def _join(
    products: list[list[jax.Array]], of_result: np.ndarray, n: int, sides: Sequence[int]
) -> jax.Array:
    """Transforms products [n · tiles, features] of each row and column back to maps of these sides."""
    counts = [-(-side // _TILE) for side in sides]
    columns = [
        [_combine(factors, column) for column in zip(*products, strict=True)]
        for factors in of_result
    ]
    pixels = [
        [_combine(factors, row).reshape(n, *counts, -1) for factors in of_result] for row in columns
    ]
    tiles = jnp.stack([jnp.stack(row, 3) for row in pixels], 2)
    joined = tiles.reshape(n, counts[0] * _TILE, counts[1] * _TILE, -1)
    return joined[:, : sides[0], : sides[1]]
