"""Shuffled pixels on ImageNet. One random permutation of the pixels, the same for every image.

    python -m rethink_jax.main --config=configs/imagenet/shuffled_pixels.py --workdir=runs/imagenet_shuffled

Inception V3 on 299×299 without regularizers; `--config.model.name` chooses another model. Data and recipe
are those of `configs/imagenet/table2.py`. It has not been run at full size.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "imagenet2012") -> ConfigDict:
    return config.imagenet(data, corruption="shuffled_pixels")
