"""Convolutions that are fast on CPUs, too."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def convolve(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, **options: Any
) -> jax.Array:
    """Convolves like `lax.conv_general_dilated`, for flax's `Conv`, but is fast on CPUs.

    For maps smaller than the kernel XLA takes many times as long on a CPU as one matrix product with shifted
    copies. A 1×1 convolution is a matrix product anyway.

    Args:
      x: floating [n, height, width, channels].
      kernel: floating [height, width, channels, features].
      strides: of the two dimensions.
      padding: as `lax.conv_general_dilated` takes it.
      **options: whatever else flax passes, but neither groups nor dilation.
    """
    window, sides = kernel.shape[:2], x.shape[1:3]
    is_named = isinstance(padding, str)
    pads = lax.padtype_to_pads(sides, window, strides, padding) if is_named else padding
    dimensions = zip(sides, pads, window, strides, strict=True)
    rows, columns = ((side + sum(pad) - k) // stride + 1 for side, pad, k, stride in dimensions)

    def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, pads, **options)

    if jax.default_backend() != "cpu":
        return convolution(x, kernel)
    if window == (1, 1) or rows < window[0] or columns < window[1]:
        return _multiply_copies(x, kernel, strides, pads, (rows, columns))
    at_once = _images_at_once(min(rows, columns))
    if at_once is None or len(x) <= at_once:
        return convolution(x, kernel)
    return _with_gradient_in_parts(convolution, at_once)(x, kernel)


def _multiply_copies(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    sides: tuple[int, int],
) -> jax.Array:
    """Convolves to maps of these sides by one product with shifted copies."""
    padded = jnp.pad(x, [(0, 0), *pads, (0, 0)])
    (rows, columns), (down, across) = sides, strides
    shifted = [
        padded[:, i : i + down * (rows - 1) + 1 : down, j : j + across * (columns - 1) + 1 : across]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _images_at_once(side: int) -> int | None:
    """Returns of how many images the kernel's gradient is computed at once, for maps of a side; None for all.

    XLA's rate on CPUs falls with the size of what it sums over: docs/results/convolution_gradients.py.
    """
    if side < 7:
        return None
    return 8 if side >= 14 else 16


def _with_gradient_in_parts(
    convolution: Callable[[jax.Array, jax.Array], jax.Array], at_once: int
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns a convolution of (x, kernel) whose kernel's gradient is summed over parts of so many images."""

    @jax.custom_vjp
    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolution(x, kernel)

    def forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return convolution(x, kernel), (x, kernel)

    def backward(
        saved: tuple[jax.Array, jax.Array], gradient: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        x, kernel = saved
        (of_x,) = jax.vjp(lambda x: convolution(x, kernel), x)[1](gradient)
        of_kernel = jnp.zeros_like(kernel)
        for start in range(0, len(x), at_once):
            part = slice(start, start + at_once)
            pull_back = jax.vjp(functools.partial(convolution, x[part]), kernel)[1]
            of_kernel += pull_back(gradient[part])[0]
        return of_x, of_kernel

    convolve.defvjp(forward, backward)
    return convolve
