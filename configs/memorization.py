"""Which examples an MLP memorizes, and which test points these decide (Feldman and Zhang 2020, arXiv
2008.03703).

    python -m rethink_jax.main --config=configs/memorization.py:mnist --workdir=runs/memorization

Members are trained on random 70 % of the examples, of which a tenth have a random label: MLP 1×512, 1,000
members on the first 10,000 training images of MNIST, 400 on the first 5,000 of CIFAR-10 or another set. Then 20
networks each show what the memorized examples are worth. After a colon a data set, a size, or both: `:smoke`
(256 digits, 40 members), `:small` (1,000 examples, 100 members), `:cifar10_jpeg,small`.
`--config.memorization.learner` has two learners without training.
"""

from ml_collections import ConfigDict

from rethink_jax import config

# Examples and members.
SIZES = {"smoke": (256, 40), "small": (1000, 100), "full": (5000, 400)}
OF_MNIST = (10_000, 1000)


def get_config(argument: str = "") -> ConfigDict:
    data, size = config.data_and_size(argument)
    ensemble = config.experiment("memorization", data)
    examples, members = OF_MNIST if (data, size) == ("mnist", "full") else SIZES[size]
    ensemble.data.examples = None if (data, size) == ("digits", "full") else examples
    ensemble.memorization.members = members
    ensemble.memorization.removal_networks = 20
    # With 0.01 an MLP has not fitted the wrong labels of MNIST after 25 epochs.
    ensemble.optimizer.learning_rate = 0.01 if data.startswith("cifar") else 0.1
    ensemble.corruption.update(name="partially_corrupted_labels", probability=0.1)
    return ensemble
