"""Gaussian noise instead of ImageNet's images, with the mean and variance of the first 10,000.

    python -m rethink_jax.main --config=configs/imagenet/gaussian.py --workdir=runs/imagenet_gaussian

Inception V3 on 299×299 without regularizers; `--config.model.name` chooses another model. Data and recipe
are those of `configs/imagenet/table2.py`. It has not been run at full size.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "imagenet2012") -> ConfigDict:
    return config.imagenet(data, corruption="gaussian")
