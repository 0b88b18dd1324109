"""Table 4: training accuracy on random labels with a regularizer.

    python -m rethink_jax.main --config=configs/table4.py --workdir=runs/table4

After a colon a data set, a size, or both: `:smoke` (256 digits, three epochs), `:small` (1,000 examples),
`:cifar10_jpeg,small`. The coefficients of weight decay are ours: 4e-5 on all weights for Inception, 0.004 on
AlexNet's hidden dense layers, 5e-4 on all weights for the MLPs. With random crop and augmentation the learning
rate is multiplied by 0.999 an epoch, as in the paper; 400 epochs is our choice. AlexNet with weight decay does
not converge in the paper, so a loss that is not finite counts as its result.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(argument: str = "") -> ConfigDict:
    runs = [
        config.cifar10_entry("inception-decay"),
        config.cifar10_entry("alexnet-decay", expect_divergence=True),
        config.cifar10_entry("mlp3-decay"),
        config.cifar10_entry("mlp1-decay"),
        config.cifar10_entry("inception-crop", config.LONGER),
        config.cifar10_entry("inception-augment", config.LONGER),
    ]
    return config.sweep("table4", argument, runs, {"corruption.name": "random_labels"})
