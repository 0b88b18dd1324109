"""Convolutions that are fast on CPUs, too, with gradients that are fast there within a loop of steps."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from rethink_jax.models import winograd

Pads = tuple[tuple[int, int], tuple[int, int]]

# Images, kernels, results. XLA brings convolutions with other orders of dimensions, such as those of JAX's own
# gradients, into this one on a CPU, but not within a loop, where it runs them many times slower.
_LAYOUT = ("NHWC", "HWIO", "NHWC")


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
    if jax.default_backend() != "cpu":
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    window, sides = kernel.shape[:2], x.shape[1:3]
    is_named = isinstance(padding, str)
    pads = lax.padtype_to_pads(sides, window, strides, padding) if is_named else padding
    dimensions = zip(sides, pads, window, strides, strict=True)
    rows, columns = ((side + sum(pad) - k) // stride + 1 for side, pad, k, stride in dimensions)
    if window == (1, 1) or rows < window[0] or columns < window[1]:
        return _multiply_copies(x, kernel, strides, pads, (rows, columns))
    return _convolve(x, kernel, tuple(strides), tuple(map(tuple, pads)))


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


def _suits_winograd(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Pads) -> bool:
    """Returns whether Winograd's filtering is faster, by docs/results/convolution_gradients.py.

    Its rounding is that of a convolution within a small factor, too much for numbers of 16 bits. Few images are
    not worth the transform of the kernel.
    """
    height, width, *channels = kernel.shape
    is_known = height == width and height in (3, 5) and strides == (1, 1)
    is_within = all(0 <= pad < height for pad in itertools.chain(*pads))
    has_channels = min(channels) >= 32 and max(channels) >= 64
    has_pixels = min(x.shape[1:3]) >= 7 and len(x) >= 8
    is_exact = jnp.finfo(x.dtype).bits >= 32
    return is_known and is_within and has_channels and has_pixels and is_exact


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Pads) -> jax.Array:
    if _suits_winograd(x, kernel, strides, pads):
        return winograd.convolve(x, kernel, pads)
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=_LAYOUT)


def _forward(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, strides, pads), (x, kernel)


def _backward(
    strides: tuple[int, int], pads: Pads, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    if _suits_winograd(x, kernel, strides, pads):
        of_input = winograd.input_gradient(gradient, kernel, pads)
        return of_input, winograd.kernel_gradient(x, gradient, pads)
    at_once = _images_at_once(min(gradient.shape[1:3])) or len(x)
    of_kernel = jnp.zeros_like(kernel)
    for start in range(0, len(x), at_once):
        part = slice(start, start + at_once)
        of_kernel += _of_kernel(x[part], gradient[part], strides, pads, kernel.shape[:2])
    return _of_input(gradient, kernel, strides, pads, x.shape[1:3]), of_kernel


_convolve.defvjp(_forward, _backward)


def _images_at_once(side: int) -> int | None:
    """Returns over how many images a kernel's gradient is summed at once, for maps of a side; None for all.

    XLA's rate on CPUs falls with the size of what it sums over: docs/results/convolution_gradients.py.
    """
    if side < 7:
        return None
    return 8 if side >= 14 else 16


def _of_input(
    gradient: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    pads: Pads,
    sides: Sequence[int],
) -> jax.Array:
    """Returns the gradient of an input of these sides: each pixel's gradient, spread by the kernel."""
    before = [k - 1 - low for k, (low, _) in zip(kernel.shape[:2], pads, strict=True)]
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return _convolve_to(sides, gradient, flipped, before, lhs_dilation=strides)


def _of_kernel(
    x: jax.Array,
    gradient: jax.Array,
    strides: tuple[int, int],
    pads: Pads,
    window: Sequence[int],
) -> jax.Array:
    """Returns the gradient of a kernel of this window: a convolution in which examples are the channels."""
    before = [low for low, _ in pads]
    images, kernel = x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)
    by_channel = _convolve_to(window, images, kernel, before, rhs_dilation=strides)
    return by_channel.transpose(1, 2, 0, 3)


def _convolve_to(
    sides: Sequence[int],
    x: jax.Array,
    kernel: jax.Array,
    before: Sequence[int],
    lhs_dilation: tuple[int, int] = (1, 1),
    rhs_dilation: tuple[int, int] = (1, 1),
) -> jax.Array:
    """Convolves with stride 1 to maps of these sides, padded so much before and as much as it takes behind.

    Where that is less than nothing it crops the result: with negative padding XLA's is wrong for some shapes on
    CPUs in JAX 0.10.2.
    """
    spread_x = [d * (n - 1) + 1 for n, d in zip(x.shape[1:3], lhs_dilation, strict=True)]
    spread_kernel = [d * (n - 1) + 1 for n, d in zip(kernel.shape[:2], rhs_dilation, strict=True)]
    pads = [
        (low, side + k - 1 - n - low)
        for low, side, n, k in zip(before, sides, spread_x, spread_kernel, strict=True)
    ]
    positive = [(max(low, 0), max(high, 0)) for low, high in pads]
    result = lax.conv_general_dilated(
        x, kernel, (1, 1), positive, lhs_dilation, rhs_dilation, dimension_numbers=_LAYOUT
    )
    top, left = (max(-low, 0) for low, _ in pads)
    return result[:, top : top + sides[0], left : left + sides[1]]
