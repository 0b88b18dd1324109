"""The empirical Rademacher complexity of a network, bounded from below by training on random ±1 labels.

    python -m rethink_jax.main --config=configs/rademacher.py --workdir=runs/rademacher

Section 2.2 of the paper. MLP 1×512 on the first 10,000 training images of CIFAR-10, or on all of another data
set; `--config.model.name` and `--config.data.examples` choose others. Times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "cifar10") -> ConfigDict:
    complexity = config.experiment("rademacher", data)
    if data.startswith("cifar"):
        complexity.data.examples = 10_000
    return complexity
