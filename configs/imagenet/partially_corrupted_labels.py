r"""Partially corrupted labels on ImageNet. Each training label is, with probability
`config.corruption.probability`, replaced by a uniform random class.

    python -m rethink_jax.main --config=configs/imagenet/partially_corrupted_labels.py \
        --config.corruption.probability=0.5 --workdir=runs/imagenet_partially_corrupted

Inception V3 on 299×299 without regularizers; `--config.model.name` chooses another model. Data and recipe
are those of `configs/imagenet/table2.py`. It has not been run at full size.
"""

from ml_collections import ConfigDict

from rethink_jax import config


def get_config(data: str = "imagenet2012") -> ConfigDict:
    return config.imagenet(data, corruption="partially_corrupted_labels", probability=0.5)
