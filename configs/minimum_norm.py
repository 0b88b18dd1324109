"""Section 5: SGD from zero on a linear model reaches the interpolation of least norm, from elsewhere another.

    python -m rethink_jax.main --config=configs/minimum_norm.py --workdir=runs/minimum_norm

The first 100 training images of CIFAR-10, whitened, of another data set the first 30, with random labels, and
the closed form beside it. Times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "cifar10") -> ConfigDict:
    linear = config.minimum_norm(data)
    linear.data.examples = 100 if data.startswith("cifar") else 30
    return linear
