"""How many examples does an MLP of each width fit? Bisection, random and true labels. Not in the paper.

    python -m rethink_jax.main --config=configs/capacity.py --workdir=runs/capacity
    python -m rethink_jax.main --config=configs/capacity.py:smoke --workdir=runs/capacity-smoke

After Nakkiran et al. 2020 (arXiv 1912.02292) and Shwartz-Ziv et al. 2024 (arXiv 2406.11463); beside what
Theorem 1, Baum (1988), Yun et al. (2019) and Vardi et al. (2022) construct. All training images of MNIST,
widths 1 to 256, three draws. `:smoke` is the digits, widths 1, 4 and 16, 500 steps. Times: docs/results.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "mnist") -> ConfigDict:
    is_smoke = data == "smoke"
    search = config.experiment("capacity", "digits" if is_smoke else data)
    if is_smoke:
        search.capacity.update(widths=(1, 4, 16), draws=2, steps=500, learning_rate=0.1)
    return search
