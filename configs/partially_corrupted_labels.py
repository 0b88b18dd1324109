r"""Partially corrupted labels: Figures 1b and 1c. Each training label is, with probability
`config.corruption.probability`, replaced by a uniform random class.

    python -m rethink_jax.main --config=configs/partially_corrupted_labels.py:digits \
        --config.corruption.probability=0.5

An MLP on the digits: 11 seconds of training on two cores. Other times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "cifar10") -> ConfigDict:
    return config.train(data, corruption="partially_corrupted_labels", probability=0.5)
