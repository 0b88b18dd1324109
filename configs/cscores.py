"""Consistency scores: how often members are right on an example that they were not trained on (Jiang et al.
2021, arXiv 2002.03206).

    python -m rethink_jax.main --config=configs/cscores.py --workdir=runs/cscores

20 members, MLP 2×512, on each of nine shares of MNIST's training images, 0.1 to 0.9, with true labels. After a
colon a data set, a size, or both: `:smoke` (256 digits, 6 members a share), `:small` (1,000 examples).
`docs/results/cscores.py` compares the scores with published ones.
"""

from ml_collections import ConfigDict

from rethink_jax import config

# Examples and members of each share.
SIZES = {"smoke": (256, 6), "small": (1000, 20), "full": (None, 20)}
DATA = {"smoke": "digits", "small": "mnist", "full": "mnist"}


def get_config(argument: str = "") -> ConfigDict:
    data, size = config.data_and_size(argument, DATA)
    ensemble = config.experiment("memorization", data)
    ensemble.memorization.fractions = tuple(tenths / 10 for tenths in range(1, 10))
    ensemble.data.examples, ensemble.memorization.members = SIZES[size]
    ensemble.model.depth = 2
    ensemble.epochs = 10
    ensemble.optimizer.learning_rate = 0.1
    return ensemble
