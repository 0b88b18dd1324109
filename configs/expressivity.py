"""Theorem 1: a two-layer ReLU network with 2n + d weights fits any labels of any n points, here random ones.

    python -m rethink_jax.main --config=configs/expressivity.py --workdir=runs/expressivity
    python -m rethink_jax.main --config=configs/expressivity.py:synthetic --workdir=runs/expressivity-synthetic

The first fits all training images of CIFAR-10 with 103,072 weights; small Inception has 1,649,402. The second
fits 1,281,167 random points, as many as ImageNet has training images. Times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "cifar10") -> ConfigDict:
    return config.experiment("expressivity", data)
