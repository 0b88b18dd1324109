"""Measures of complexity on true and on random labels, side by side: none of the bounds tells them apart.

    python -m rethink_jax.main --config=configs/stability.py --workdir=runs/stability

Section 2.2 of the paper: parameters, VC dimension, Rademacher complexity, uniform stability by replacing
training examples, and norms, which do depend on the labels. MLP 1×512 on the first 10,000 training images of
CIFAR-10 in two classes, or on all of another data set. Times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "cifar10") -> ConfigDict:
    complexity = config.experiment("stability", data)
    if data.startswith("cifar"):
        complexity.data.examples = 10_000
    return complexity
