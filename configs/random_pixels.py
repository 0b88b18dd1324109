"""Random pixels: Figure 1a. An independent random permutation of the pixels of each image.

    python -m rethink_jax.main --config=configs/random_pixels.py:digits

An MLP on the digits: 4 seconds of training on two cores. Other times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "cifar10") -> ConfigDict:
    return config.train(data, corruption="random_pixels")
