"""Random labels: Figure 1a and Table 1. Every training label is replaced by a uniform random class.

    python -m rethink_jax.main --config=configs/random_labels.py:digits

An MLP on the digits: 11 seconds of training on two cores. Other times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "cifar10") -> ConfigDict:
    return config.train(data, corruption="random_labels")
