"""Which measure of complexity ranks networks by their generalization gap, and differs on random labels?

    python -m rethink_jax.main --config=configs/measures.py --workdir=runs/measures
    python -m rethink_jax.main --config=configs/measures.py:cifar10_jpeg --workdir=runs/measures-cifar10

After Jiang et al. 2020 (arXiv 1912.02178) and Dziugaite et al. 2020 (arXiv 2010.11924): MLPs of 3 widths × 3
depths × 3 learning rates × 3 weight decays × 2 seeds on the first 2,000 images of MNIST, with true and with
random labels, each trained to a loss of 0.01. `:smoke` is eight settings on 256 digits.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "mnist") -> ConfigDict:
    is_smoke = data == "smoke"
    judged = config.experiment("measures", "digits" if is_smoke else data)
    judged.data.examples = 256 if is_smoke else 2000
    if is_smoke:
        judged.measures.update(
            widths=(32, 64),
            depths=(1, 2),
            learning_rates=(0.03, 0.1),
            weight_decays=(0.0,),
            seeds=1,
        )
    return judged
