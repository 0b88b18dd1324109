"""Random pixels on ImageNet. A random permutation of the pixels of its own for every image.

    python -m rethink_jax.main --config=configs/imagenet/random_pixels.py --workdir=runs/imagenet_random_pixels

Inception V3 on 299×299 without regularizers; `--config.model.name` takes another model. Data, recipe, steps
and what each device sees are those of `configs/imagenet/table2.py`. It has not been run.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "imagenet2012") -> ConfigDict:
    return config.imagenet(data, corruption="random_pixels")
