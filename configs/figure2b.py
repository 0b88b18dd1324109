"""Figure 2b: test accuracy of small Inception during training, with and without BatchNorm.

    python -m rethink_jax.main --config=configs/figure2b.py --workdir=runs/figure2b

After a colon a data set, a size, or both: `:smoke` (256 digits, three epochs), `:small` (1,000 examples),
`:cifar10_jpeg,small`.
"""

from ml_collections import ConfigDict

from rethink_jax import config

RUNS = ("inception", "inception_nobn")


def get_config(argument: str = "") -> ConfigDict:
    return config.sweep("figure2b", argument, map(config.cifar10_entry, RUNS))
