"""Minimum-norm interpolation of corrupted labels: test errors and norms at several p. Not in the paper.

    python -m rethink_jax.main --config=configs/kernel_noise.py --workdir=runs/kernel_noise
    python -m rethink_jax.main --config=configs/kernel_noise.py:cifar10_jpeg --workdir=runs/kernel_noise-cifar10
    python -m rethink_jax.main --config=configs/kernel_noise.py:smoke --workdir=runs/kernel_noise-smoke

Belkin et al. 2018 (arXiv 1802.01396): 10,000 images with a Gaussian kernel, γ as for Table 3. `:smoke` is 1,000
digits. With a rank of as many as there are examples K is factored, which takes less time than iterations. Needs
4 GB. Times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config

GAMMAS = {"mnist": 0.02, "digits": 0.02}


def get_config(data: str = "mnist") -> ConfigDict:
    name = "digits" if data == "smoke" else data
    noise = config.experiment("kernel", name)
    noise.data.examples = 1000 if data == "smoke" else 10_000
    noise.kernel.gammas = (GAMMAS.get(name, 0.01),)
    noise.noise.probabilities = (0.2, 0.5, 1.0)
    noise.solver.update(rank=noise.data.examples, tolerance=1e-9)
    return noise
