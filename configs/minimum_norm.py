"""Section 5: SGD on a linear model reaches the minimum-norm interpolant from zero, and another one from
elsewhere.

    python -m rethink_jax.main --config=configs/minimum_norm.py --workdir=runs/minimum_norm

On the first 100 training images of CIFAR-10 (of another data set, the first 30), whitened and with random
labels, beside the closed form. Times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "cifar10") -> ConfigDict:
    linear = config.experiment("minimum_norm", data)
    linear.data.examples = 100 if data.startswith("cifar") else 30
    return linear
