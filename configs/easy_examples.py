"""Are some examples easy for every network? Arpit et al. 2017 (arXiv 1706.05394), figure 1.

    python -m rethink_jax.main --config=configs/easy_examples.py --workdir=runs/easy_examples

100 MLPs 1×512 see all training images of CIFAR-10 for one epoch, each from other initial weights and in another
order. With `--config.corruption.name=random_labels` or `gaussian` examples have nothing in common. After a
colon a data set, a size, or both: `:smoke` (256 digits), `:small` (1,000 examples), `:mnist`.
"""

from ml_collections import ConfigDict

from rethink_jax import config

EXAMPLES = {"smoke": 256, "small": 1000, "full": None}


def get_config(argument: str = "") -> ConfigDict:
    data, size = config.data_and_size(argument)
    ensemble = config.experiment("memorization", data)
    ensemble.data.examples = EXAMPLES[size]
    ensemble.memorization.fractions = (1.0,)
    ensemble.memorization.members = 100
    ensemble.epochs = 1
    return ensemble
