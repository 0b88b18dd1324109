"""A bound on a network's error from its training set alone (Dziugaite and Roy 2017, arXiv 1703.11008).

    python -m rethink_jax.main --config=configs/pac_bayes.py --workdir=runs/pac_bayes
    python -m rethink_jax.main --config=configs/pac_bayes.py:random_labels --workdir=runs/pac_bayes-random
    python -m rethink_jax.main --config=configs/pac_bayes.py:smoke --workdir=runs/pac_bayes-smoke

MNIST in two classes, 0 to 4 and 5 to 9, all 60,000 images, and a network of 600 hidden units, with true or
with random labels. Another name after the colon is a data set's; the first half of its classes is one class.
`:smoke` is the digits and 32 units. Times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(argument: str = "mnist") -> ConfigDict:
    data = {"smoke": "digits", "random_labels": "mnist"}.get(argument, argument)
    pac_bayes = config.experiment("pac_bayes", data)
    if argument == "random_labels":
        pac_bayes.corruption.name = "random_labels"
        # Random labels take longer to fit.
        pac_bayes.pac_bayes.update(sgd_epochs=100, sgd_learning_rate=0.03)
    if argument == "smoke":
        pac_bayes.pac_bayes.update(width=32, epochs=30, batch_size=50)
    return pac_bayes
