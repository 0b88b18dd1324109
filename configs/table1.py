"""Table 1: training and test accuracy of four networks with and without random crop and weight decay, and on
random labels.

    python -m rethink_jax.main --config=configs/table1.py --workdir=runs/table1

After a colon a data set, a size, or both: `:smoke` (256 digits, three epochs), `:small` (1,000 examples),
`:cifar10_jpeg,small`. The coefficients of weight decay are ours (`rethink_jax/config/sweeps.py: WEIGHT_DECAY`):
4e-5 on all weights for Inception, 0.004 on AlexNet's hidden dense layers, 5e-4 on all weights for the MLPs.
"""

from ml_collections import ConfigDict

from rethink_jax import config

RUNS = (
    *("inception-crop-decay", "inception-crop", "inception-decay", "inception"),
    "inception-random",
    *("inception_nobn-decay", "inception_nobn", "inception_nobn-random"),
    *("alexnet-crop-decay", "alexnet-crop", "alexnet-decay", "alexnet", "alexnet-random"),
    *("mlp3-decay", "mlp3", "mlp3-random"),
    *("mlp1-decay", "mlp1", "mlp1-random"),
)


def get_config(argument: str = "") -> ConfigDict:
    return config.sweep("table1", argument, map(config.cifar10_entry, RUNS))
