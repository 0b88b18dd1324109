"""Shuffled pixels: Figure 1a. One random permutation of the pixels, the same for every image.

    python -m rethink_jax.main --config=configs/shuffled_pixels.py:digits

An MLP on the digits: 4 seconds of training on two cores. Other times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "cifar10") -> ConfigDict:
    return config.train(data, corruption="shuffled_pixels")
