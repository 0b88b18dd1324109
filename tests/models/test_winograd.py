import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from rethink_jax.models import convolution, winograd
from tests.models.array_helpers import integers
from tests.models.test_convolution import convolve_by_definition, ours_and_reference


def by_definition(x, kernel, pads, gradient):
    """The convolution, and the gradients of x and of the kernel."""
    value, pull_back = jax.vjp(
        lambda x, kernel: convolve_by_definition(x, kernel, (1, 1), pads), x, kernel
    )
    return value, *pull_back(gradient)


def by_winograd(x, kernel, pads, gradient):
    return (
        winograd.convolve(x, kernel, pads),
        winograd.input_gradient(gradient, kernel, pads),
        winograd.kernel_gradient(x, gradient, pads),
    )


@pytest.mark.parametrize("k", [3, 5])
def test_transforms_correlate_a_tile(k):
    rng = np.random.default_rng(0)
    tile, kernel = rng.normal(size=k + 1), rng.normal(size=k)
    of_input, of_kernel, of_result = winograd._transforms(k)
    ours = of_result @ ((of_kernel @ kernel) * (of_input @ tile))
    np.testing.assert_allclose(ours, np.correlate(tile, kernel), rtol=1e-12)


@given(
    n=st.integers(1, 9),
    sides=st.tuples(st.integers(3, 9), st.integers(3, 30)),
    low=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    high=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
@settings(max_examples=15)
def test_3_by_3_is_exact_for_whole_numbers(n, sides, low, high):
    rng, pads = np.random.default_rng(n), [*zip(low, high, strict=True)]
    x, kernel = integers(rng, n, *sides, 3), integers(rng, 3, 3, 3, 4)
    results = (side + sum(pad) - 2 for side, pad in zip(sides, pads, strict=True))
    gradient = integers(rng, n, *results, 4)
    expected = by_definition(x, kernel, pads, gradient)
    for one, exact in zip(by_winograd(x, kernel, pads, gradient), expected, strict=True):
        np.testing.assert_array_equal(one, exact)


@pytest.mark.parametrize(("k", "tolerance"), [(3, 1e-6), (5, 5e-6)])
def test_rounding(k, tolerance):
    """Beside the largest value; a plain convolution has 6e-7 and 5e-7 here."""
    rng, pads = np.random.default_rng(0), 2 * [(k // 2, k // 2)]
    x, gradient = (rng.normal(size=(16, 14, 14, 64)).astype(np.float32) for _ in range(2))
    kernel = rng.normal(size=(k, k, 64, 64)).astype(np.float32)
    with jax.enable_x64(True):
        doubles = (array.astype(np.float64) for array in (x, kernel))
        expected = by_definition(*doubles, pads, gradient.astype(np.float64))
    for one, exact in zip(by_winograd(x, kernel, pads, gradient), expected, strict=True):
        assert exact.dtype == np.float64
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, exact, rtol=0, atol=tolerance * np.abs(exact).max())


@pytest.mark.parametrize(
    ("x", "kernel", "stride", "pad", "dtype", "suits"),
    [
        ((9, 14, 14, 32), (3, 3, 32, 64), 1, 1, "float32", True),
        ((9, 14, 14, 64), (5, 5, 64, 32), 1, 2, "float32", True),
        ((9, 7, 7, 64), (3, 3, 64, 64), 1, 0, "float32", True),
        ((7, 14, 14, 64), (3, 3, 64, 64), 1, 1, "float32", False),
        ((9, 6, 14, 64), (3, 3, 64, 64), 1, 1, "float32", False),
        ((9, 14, 14, 32), (3, 3, 32, 32), 1, 1, "float32", False),
        ((9, 14, 14, 3), (3, 3, 3, 96), 1, 1, "float32", False),
        ((9, 14, 14, 64), (3, 3, 64, 64), 2, 1, "float32", False),
        ((9, 14, 14, 64), (3, 3, 64, 64), 1, 3, "float32", False),
        ((9, 14, 14, 64), (1, 3, 64, 64), 1, 0, "float32", False),
        ((9, 14, 14, 64), (3, 3, 64, 64), 1, 1, "bfloat16", False),
    ],
)
def test_where_it_is_used(x, kernel, stride, pad, dtype, suits):
    arrays = jax.ShapeDtypeStruct(x, dtype), jax.ShapeDtypeStruct(kernel, dtype)
    strides, pads = (stride, stride), 2 * ((pad, pad),)
    assert convolution._suits_winograd(*arrays, strides, pads) is suits

    def total(x, kernel):
        return convolution.convolve(x, kernel, strides, pads).astype(jnp.float32).sum()

    if x[1] >= 7:  # else one product
        program = str(jax.make_jaxpr(jax.grad(total, (0, 1)))(*arrays))
        assert ("conv_general_dilated" not in program) is suits


@pytest.mark.parametrize("padding", ["SAME", ((0, 2), (1, 0))])
def test_gradients_where_it_is_used(padding):
    rng = np.random.default_rng(0)
    x, kernel = integers(rng, 9, 9, 8, 32, reach=3), integers(rng, 3, 3, 32, 64, reach=3)
    gradient = integers(rng, 9, 9, 8 if padding == "SAME" else 7, 64, reach=3)
    for ours, reference in ours_and_reference(x, kernel, gradient, (1, 1), padding):
        np.testing.assert_array_equal(ours, reference)
