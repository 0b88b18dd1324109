"""A bound on the test error from the fit of random labels, at every epoch, in two classes.

    python -m rethink_jax.main --config=configs/certificate.py --workdir=runs/certificate
    python -m rethink_jax.main --config=configs/certificate.py:cifar10_jpeg --workdir=runs/certificate-cifar10

Garg et al. 2021 (RATT, arXiv 2105.00303): MLP 1×512 on all training images of MNIST, classes 0–4 and 5–9, or on
the halves of another data set's classes. 10,000 of the labels are fair coins. The others are true, or as random
with `--config.corruption.name=random_labels`. `:smoke` is the digits. Times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "mnist") -> ConfigDict:
    is_small = data in ("digits", "smoke")
    certificate = config.experiment("certificate", "digits" if is_small else data)
    if data.startswith("cifar"):
        certificate.optimizer.learning_rate = 0.01
    if is_small:
        certificate.certificate.random_examples = 400
    if data == "smoke":
        certificate.certificate.draws = 2
        certificate.epochs = 20
    return certificate
