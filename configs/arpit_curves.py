"""Kept and replaced labels over a run (figures 7 and 8 of Arpit et al. 2017): MLP 1×512, five levels of noise.

    python -m rethink_jax.main --config=configs/arpit_curves.py:mnist --workdir=runs/arpit_curves

`metrics.jsonl` and `curves.png` of each run have the accuracy on the labels that were kept, on those that were
replaced, and the share of the latter that get their true class. After a colon a data set, a size, or both:
`:smoke` (256 digits, three epochs), `:small` (1,000 examples), `:cifar10_jpeg,small`. Not in the paper. Arpit
et al. trained two layers of 4,096 units.
"""

from ml_collections import ConfigDict

from rethink_jax import config

LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8)


def get_config(argument: str = "") -> ConfigDict:
    runs = [
        config.sweep_entry(f"p{p:.1f}", {"model.name": "mlp", "corruption.probability": p})
        for p in LEVELS
    ]
    corruption = {"corruption.name": "partially_corrupted_labels"}
    return config.sweep("arpit_curves", argument, runs, corruption)
