"""Kinds of label noise, each at the same probability, 0.4: MLP 1×512. Not in the paper.

    python -m rethink_jax.main --config=configs/noise_kinds.py --workdir=runs/noise_kinds

`uniform` is the paper's partially corrupted labels, of which a tenth keep their class; the others change to
other classes alone. After a colon a data set, a size, or both: `:smoke` (256 digits, three epochs), `:small`
(1,000 examples), `:cifar10_jpeg,small`. The asymmetric kind is known for CIFAR-10 and for digits.
"""

from ml_collections import ConfigDict

from rethink_jax import config

KINDS = {
    "true": "true_labels",
    "uniform": "partially_corrupted_labels",
    "symmetric": "symmetric_labels",
    "pair_flip": "pair_flip_labels",
    "asymmetric": "asymmetric_labels",
    "by_image": "instance_dependent_labels",
}


def get_config(argument: str = "") -> ConfigDict:
    runs = [
        config.sweep_entry(
            name,
            {"model.name": "mlp", "corruption.name": kind}
            | ({} if name == "true" else {"corruption.probability": 0.4}),
        )
        for name, kind in KINDS.items()
    ]
    return config.sweep("noise_kinds", argument, runs)
