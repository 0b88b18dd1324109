"""Figure 1a: the training loss of small Inception against steps, under five corruptions.

    python -m rethink_jax.main --config=configs/figure1a.py --workdir=runs/figure1a

After a colon a data set, a size, or both: `:smoke` (256 digits, three epochs), `:small` (1,000 examples),
`:cifar10_jpeg,small`.
"""

from ml_collections import ConfigDict

from rethink_jax import config

CORRUPTIONS = ("true_labels", "shuffled_pixels", "gaussian", "random_pixels", "random_labels")


def get_config(argument: str = "") -> ConfigDict:
    runs = [config.sweep_entry(name, {"corruption.name": name}) for name in CORRUPTIONS]
    return config.sweep("figure1a", argument, runs, config.NETWORKS["inception"])
