"""Theorem 1: a two-layer ReLU network with 2n + d weights has any labels on any n points, here random ones.

    python -m rethink_jax.main --config=configs/expressivity.py --workdir=runs/expressivity
    python -m rethink_jax.main --config=configs/expressivity.py:synthetic --workdir=runs/expressivity-synthetic

The first is on all training images of CIFAR-10: 103,072 weights, where small Inception has 1,649,402. The
second is on 1,281,167 random points, ImageNet's count. Times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "cifar10") -> ConfigDict:
    return config.expressivity(data)
