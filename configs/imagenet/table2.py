"""Table 2: top-1 and top-5 accuracy of Inception V3 on ImageNet, with and without augmentation, dropout and
weight decay, on true and on random labels.

    python -m rethink_jax.main --config=configs/imagenet/table2.py --workdir=runs/table2
    python -m rethink_jax.main --config=configs/imagenet/table2.py:smoke --workdir=runs/table2-smoke

The first needs imagenet2012 as array_record, which `python -m rethink_jax.data.imagenet` prepares. The second
is for a laptop: 64 made-up images of 75×75 and two epochs, to see that it runs; its report says so.

The paper prints no recipe; ours is in `rethink_jax/config/imagenet.py`. Augmentation is random crop, flip and
colour distortion; dropout has a rate of 0.2, weight decay of the kernels a coefficient of 4e-5 (TF-slim's). In
batches of 1,024 the 1,281,167 images are 1,252 steps an epoch and 112,680 in 90 epochs. The batch is divided
over all devices: the 16 chips of a v4-32 slice see 64 images each, 8 GPUs 128 each. `--config.batch_size`
does not change the learning rate of 0.4; scale it with `--config.optimizer.learning_rate`, 0.1 for each 256
images.

It has not been run at full size.
"""

from ml_collections import ConfigDict

from rethink_jax import config

RUNS = (
    *("true-augment-dropout-decay", "true-augment", "true-decay", "true"),
    *("random-dropout-decay", "random-decay", "random"),
)


def get_config(argument: str = "") -> ConfigDict:
    return config.imagenet_sweep("table2", argument, map(config.imagenet_entry, RUNS))
