"""Double descent: errors and norms against the number of random Fourier features. Not in the paper.

    python -m rethink_jax.main --config=configs/double_descent.py --workdir=runs/double_descent
    python -m rethink_jax.main --config=configs/double_descent.py:smoke --workdir=runs/double_descent-smoke

Belkin et al. 2019 (arXiv 1812.11118, figure 2): 10,000 digits of MNIST, up to 60,000 features, true labels and
20 % of them replaced. `:smoke` is 500 smaller digits. Needs 5 GB. Times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "mnist") -> ConfigDict:
    is_smoke = data == "smoke"
    curve = config.experiment("double_descent", "digits" if is_smoke else data)
    curve.data.examples = 500 if is_smoke else 10_000
    if is_smoke:
        curve.double_descent.bandwidth = 1.0
    return curve
