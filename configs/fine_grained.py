"""H∞ of two classes: a measure that tells true labels from random ones, and the speed of gradient descent.

    python -m rethink_jax.main --config=configs/fine_grained.py --workdir=runs/fine_grained
    python -m rethink_jax.main --config=configs/fine_grained.py:smoke --workdir=runs/fine_grained-smoke

Arora et al. 2019 (arXiv 1901.08584): up to 10,000 images of the first two classes of CIFAR-10, or of another
data set, with true labels, with a part of them drawn again, and with random ones. `:smoke` is 300 digits and
narrow networks. Times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "cifar10") -> ConfigDict:
    fine_grained = config.experiment("fine_grained", "digits" if data == "smoke" else data)
    if data == "smoke":
        fine_grained.fine_grained.update(
            sizes=(100, 200, 300), widths=(200, 800), trained_examples=100, steps=200
        )
    return fine_grained
