"""MLP 1×512 on random labels under settings that the paper does not print: which one reaches the 99.34 % of
Table 1?

    python -m rethink_jax.main --config=configs/mlp1_settings.py --workdir=runs/mlp1_settings

Each run changes one setting of the first, which is Table 1's row with our defaults. After a colon a data set, a
size, or both: `:smoke` (256 digits, three epochs), `:small` (1,000 examples), `:cifar10_jpeg,small`.
"""

from ml_collections import ConfigDict

from rethink_jax import config

ROW = "mlp1-random"
RUNS = (
    ROW,
    *(f"{ROW}-{setting}" for setting in ("epochs_160", "factor_0.97", "batch_64", "batch_256")),
    *(f"{ROW}-{setting}" for setting in ("initial_std_0.04", "rate_0.02")),
)


def get_config(argument: str = "") -> ConfigDict:
    return config.sweep("mlp1_settings", argument, map(config.cifar10_entry, RUNS))
