"""Figures 1b and 1c: epochs to fit and test error of three networks against the corruption of the labels.

    python -m rethink_jax.main --config=configs/figure1bc.py --workdir=runs/figure1bc

After a colon a data set, a size, or both: `:smoke` (256 digits, three epochs), `:small` (1,000 examples),
`:cifar10_jpeg,small`.
"""

import itertools

from ml_collections import ConfigDict

from rethink_jax import config

NETWORKS = ("inception", "alexnet", "mlp1")
PROBABILITIES = tuple(tenths / 10 for tenths in range(11))


def get_config(argument: str = "") -> ConfigDict:
    runs = [
        config.cifar10_entry(f"{network}-p{p:.1f}")
        for network, p in itertools.product(NETWORKS, PROBABILITIES)
    ]
    corruption = {"corruption.name": "partially_corrupted_labels"}
    return config.sweep("figure1bc", argument, runs, corruption)
