"""Baum's construction: 4 ReLUs for every d images fit random labels, where Theorem 1 takes one for each image.

    python -m rethink_jax.main --config=configs/baum.py --workdir=runs/baum

All training images of CIFAR-10, cut to 28×28, with labels of two random classes, then of ten, and Theorem 1's
network beside them, in float64 and in float32. `:smoke` is the digits, in seconds. Times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "cifar10") -> ConfigDict:
    baum = config.experiment("expressivity", "digits" if data == "smoke" else data)
    baum.theorem.construction = "baum"
    return baum
