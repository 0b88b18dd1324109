import flax.linen as nn
import jax
import numpy as np
import pytest

from rethink_jax.models import pooling
from tests.models.array_helpers import integers, slow_unless


@pytest.mark.parametrize(
    ("size", "window", "padding"),
    slow_unless(
        lambda size, window, padding: size == (7, 7) or (window, padding) == ((3, 2), None),
        ((6, 6), (7, 7), (5, 8), (3, 4)),
        ((3, 2), (2, 2), (3, 1), (2, 3)),
        (None, 0, 1),
    ),
)
def test_max_pool_and_its_gradient(size, window, padding):
    window, stride = window
    rng = np.random.default_rng(0)
    x = integers(rng, 2, *size, 3) - np.float32(100)  # all below zero, and some are equal

    def flax_pool(x):
        margins = "SAME" if padding is None else 2 * ((padding, padding),)
        return nn.max_pool(x, (window, window), (stride, stride), margins)

    grad = integers(rng, *jax.eval_shape(flax_pool, x).shape)

    @jax.jit
    def both(x, grad):
        ours, pull_back = jax.vjp(lambda x: pooling.max_pool(x, window, stride, padding), x)
        theirs, pull_theirs = jax.vjp(flax_pool, x)
        return (ours, *pull_back(grad)), (theirs, *pull_theirs(grad))

    for ours, theirs in zip(*both(x, grad), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_pooling_is_3_by_3_at_every_other_pixel():
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    assert pooling.max_pool(x).ravel().tolist() == [10, 11, 14, 15]
