import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st
from jax import lax

from rethink_jax.models import convolution
from tests.models.array_helpers import integers, slow_unless

LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve_by_definition(x, kernel, strides, padding):
    """The sum over the kernel's elements. XLA ends the process for gradients of some strided convolutions."""
    window = kernel.shape[:2]
    if padding == "SAME":
        padding = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    x = jnp.pad(x, [(0, 0), *padding, (0, 0)])
    rows, columns = (side - k + 1 for side, k in zip(x.shape[1:3], window, strict=True))
    return sum(
        x[:, i : i + rows : strides[0], j : j + columns : strides[1]] @ kernel[i, j]
        for i in range(window[0])
        for j in range(window[1])
    )


def ours_and_reference(x, kernel, grad, strides, padding="SAME"):
    """Pairs of ours and the reference: the convolution, and the gradients of x and of the kernel."""

    def ours(x, kernel):
        return convolution.convolve(x, kernel, strides, padding, dimension_numbers=LAYOUT)

    def reference(x, kernel):
        return convolve_by_definition(x, kernel, strides, padding)

    @jax.jit
    def both(x, kernel, grad):
        results = []
        for function in (ours, reference):
            value, pull_back = jax.vjp(function, x, kernel)
            results.append((value, *pull_back(grad)))
        return results

    return zip(*both(x, kernel, grad), strict=True)


@pytest.mark.parametrize(
    ("side", "channels", "stride", "size"),
    slow_unless(
        lambda side, channels, stride, size: size == (7, 4) or (side, channels) == (3, 4),
        (1, 3, 5),
        (2, 3, 4),
        (1, 2),
        ((8, 8), (7, 4), (2, 1)),
    ),
)
def test_convolution_and_its_gradients(side, channels, stride, size):
    rng, features = np.random.default_rng(0), 3
    x, kernel = integers(rng, 2, *size, channels), integers(rng, side, side, channels, features)
    grad = integers(rng, 2, *(-(-n // stride) for n in size), features)
    for ours, reference in ours_and_reference(x, kernel, grad, (stride, stride)):
        np.testing.assert_array_equal(ours, reference)
        assert ours.dtype == jnp.float32
        assert np.abs(reference).max() > 0


@pytest.mark.parametrize(
    ("side", "batch", "stride", "at_once"),
    [(14, 20, 1, 8), (28, 9, 2, 8), (7, 20, 1, 16), (7, 16, 1, 16), (6, 20, 1, None)],
)
def test_gradients_in_parts_of_the_batch(side, batch, stride, at_once):
    """Sums of small whole numbers are exact in any order."""
    out = -(-side // stride)
    assert convolution._images_at_once(out) == at_once
    rng = np.random.default_rng(0)
    x, kernel = integers(rng, batch, side, side, 3), integers(rng, 3, 3, 3, 4)
    grad = integers(rng, batch, out, out, 4)
    for ours, reference in ours_and_reference(x, kernel, grad, (stride, stride)):
        np.testing.assert_array_equal(ours, reference)


@given(
    sides=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    window=st.tuples(st.integers(1, 3), st.integers(2, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    low=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    high=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
# Wrong on JAX 0.10.2 with negative padding.
@example(sides=(3, 3), window=(1, 2), strides=(1, 1), low=(0, 2), high=(0, 0))
@settings(max_examples=20)
def test_gradients_with_any_stride_and_padding(sides, window, strides, low, high):
    rng, padding = np.random.default_rng(0), [*zip(low, high, strict=True)]
    x, kernel = integers(rng, 2, *sides, 3), integers(rng, *window, 3, 4)
    shape = lax.conv_general_shape_tuple(x.shape, kernel.shape, strides, padding, LAYOUT)
    for ours, reference in ours_and_reference(x, kernel, integers(rng, *shape), strides, padding):
        np.testing.assert_array_equal(ours, reference)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_have_the_order_of_dimensions_that_is_fast_in_loops(stride):
    def total(x, kernel):
        return convolution.convolve(x, kernel, (stride, stride), "SAME").sum()

    arrays = np.zeros((20, 14, 14, 3), np.float32), np.zeros((3, 3, 3, 4), np.float32)
    program = str(jax.make_jaxpr(jax.grad(total, (0, 1)))(*arrays))
    fast = lax.conv_dimension_numbers((1, 9, 9, 3), (3, 3, 3, 4), LAYOUT)
    orders = re.findall(r"dimension_numbers=(ConvDimensionNumbers\(.*?\)\))", program)
    assert orders == [str(fast)] * {1: 5, 2: 4}[stride]  # with three or two parts of the batch


@pytest.mark.parametrize(
    ("side", "stride", "features"), [(1, 1, 2), (3, 1, 2), (3, 2, 2), (3, 1, 9)]
)
def test_convolution_within_flax(side, stride, features):
    rng = np.random.default_rng(0)
    x = integers(rng, 2, 5, 6, 3)
    conv = nn.Conv(features, (side, side), stride)
    params = {"kernel": integers(rng, side, side, 3, features), "bias": integers(rng, features)}
    ours = conv.clone(conv_general_dilated=convolution.convolve)
    expected = conv.apply({"params": params}, x)
    np.testing.assert_array_equal(ours.apply({"params": params}, x), expected)
