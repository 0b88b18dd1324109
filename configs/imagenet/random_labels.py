"""Random labels on ImageNet: the last row of Table 2. Every training label is replaced by a uniform
random class.

    python -m rethink_jax.main --config=configs/imagenet/random_labels.py --workdir=runs/imagenet_random_labels

Inception V3 on 299×299 without regularizers; `--config.model.name` chooses another model. Data and recipe
are those of `configs/imagenet/table2.py`. It has not been run at full size.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "imagenet2012") -> ConfigDict:
    return config.imagenet(data, corruption="random_labels")
