"""Figure 2a: test accuracy of Inception V3 on ImageNet during training, with all regularizers, with weight
decay alone and with none.

    python -m rethink_jax.main --config=configs/imagenet/figure2a.py --workdir=runs/figure2a
    python -m rethink_jax.main --config=configs/imagenet/figure2a.py:smoke --workdir=runs/figure2a-smoke

Three of Table 2's runs, evaluated after every epoch on both whole sets. Data and recipe are those of
`configs/imagenet/table2.py`. The second command is for a laptop: 64 made-up images.

It has not been run at full size.
"""

from ml_collections import ConfigDict

from rethink_jax import config

RUNS = ("true-augment-dropout-decay", "true-decay", "true")


def get_config(argument: str = "") -> ConfigDict:
    runs = map(config.imagenet_entry, RUNS)
    return config.imagenet_sweep("figure2a", argument, runs, {"evaluate.every_epochs": 1})
