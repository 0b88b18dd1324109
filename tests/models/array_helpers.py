"""Arrays and cases that tests of layers share."""

import itertools

import numpy as np
import pytest


def integers(rng, *shape, reach=8):
    """Whole numbers, whose sums of products are exact in float32 whatever their order."""
    return rng.integers(-reach, reach + 1, shape).astype(np.float32)


def slow_unless(is_short, *values):
    """Returns all combinations, of which these alone are quick: each value is in one of them."""
    return [
        pytest.param(*one, marks=[] if is_short(*one) else pytest.mark.slow)
        for one in itertools.product(*values)
    ]
