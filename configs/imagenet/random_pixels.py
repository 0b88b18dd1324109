"""Random pixels on ImageNet. An independent random permutation of the pixels of each image.

    python -m rethink_jax.main --config=configs/imagenet/random_pixels.py --workdir=runs/imagenet_random_pixels

Inception V3 on 299×299 without regularizers; `--config.model.name` chooses another model. Data and recipe
are those of `configs/imagenet/table2.py`. It has not been run at full size.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "imagenet2012") -> ConfigDict:
    return config.imagenet(data, corruption="random_pixels")
