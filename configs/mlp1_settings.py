"""MLP 1×512 on random labels under settings that the paper does not print: which one takes it to the 99.34 % of
Table 1?

    python -m rethink_jax.main --config=configs/mlp1_settings.py --workdir=runs/mlp1_settings

Each run changes one setting of the first, which is Table 1's row with our defaults. After a colon a data set, a
size, or both: `:smoke` (256 digits, three epochs), `:small` (1,000 examples), `:cifar10_jpeg,small`.
"""

from typing import Any

from ml_collections import ConfigDict

from rethink_jax import config

ROW = "mlp1-random"
CHANGES: dict[str, dict[str, Any]] = {
    "": {},
    "-epochs_160": {"epochs": 160},
    "-factor_0.97": {"optimizer.decay_per_epoch": 0.97},
    "-batch_64": {"batch_size": 64},
    "-batch_256": {"batch_size": 256},
    "-initial_std_0.04": {"model.initial_std": 0.04},
    "-rate_0.02": {"optimizer.learning_rate": 0.02},
}


def get_config(argument: str = "") -> ConfigDict:
    runs = [config.paper_run(ROW + name, fields) for name, fields in CHANGES.items()]
    return config.sweep("mlp1_settings", argument, runs)
