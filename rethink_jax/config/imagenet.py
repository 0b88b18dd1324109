"""The configs of ImageNet models. The paper prints no recipe; all of this one is ours."""

from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from rethink_jax.config.base import train
from rethink_jax.config.sweeps import as_sweep, data_and_size, fields_of_name, sweep_entry

# The labels of Table 2, by what a sweep calls them.
LABELS: dict[str, dict[str, Any]] = {
    "true": {},
    "random": {"corruption.name": "random_labels"},
}


def imagenet(data: str, corruption: str, **corruption_fields: Any) -> ConfigDict:
    """Returns a training config of an ImageNet model for a config file, Inception V3 where no other is named.

    The paper prints no recipe; ours is 90 epochs in batches of 1,024, in bfloat16, of SGD with momentum 0.9 and
    a learning rate that rises to 0.4 in five epochs (0.1 for each 256 images of the batch; Goyal et al. 2017,
    arXiv 1706.02677) and falls to 0 by a cosine. No regularizer.

    Args:
      data: the data set's name, which is what follows the colon in `--config=FILE:DATA`.
      corruption: one of the six names of `rethink_jax.corruptions`.
      **corruption_fields: further fields of `config.corruption`.
    """
    config = train(data, corruption, **corruption_fields)
    config.update_from_flattened_dict(_IMAGENET)
    return config


def imagenet_sweep(
    name: str,
    argument: str,
    runs: Iterable[dict[str, Any]],
    fields: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """Returns the config of a sweep as `sweep` does, with the recipe of `imagenet`.

    Args:
      name: of the table or the figure.
      argument: what follows the colon in `--config=FILE:DATA,SIZE`; for `smoke` small made-up images are taken,
        and there is no `small`.
      runs: what `imagenet_entry` returns, in the order in which they are to run.
      fields: further fields for all runs, flattened.

    Raises:
      UserError: the argument is no `DATA,SIZE`.
    """
    data, size = data_and_size(argument, dict.fromkeys(_IMAGENET_SIZE_FIELDS, "imagenet2012"))
    config = imagenet(data, "true_labels")
    config.update_from_flattened_dict({**_IMAGENET_SIZE_FIELDS[size], **(fields or {})})
    return as_sweep(config, name, size, runs)


# Ours, as the paper prints none.
_IMAGENET: dict[str, Any] = {
    "batch_size": 1024,
    "epochs": 90,
    "dtype": "bfloat16",
    "data.stream": True,
    "model.name": "inception_v3",
    "optimizer.learning_rate": 0.4,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_epochs": 5.0,
    "optimizer.weight_decay_on": "kernels",  # as TF-slim's
    "evaluate.every_epochs": 5,
    "checkpoint.every_epochs": 1,  # ten such epochs are much to lose
}


# Ours; Inception V3 takes no images smaller than 75×75, and bfloat16 is for accelerators.
_IMAGENET_SIZE_FIELDS: dict[str, dict[str, Any]] = {
    "smoke": {
        "batch_size": 16,
        "epochs": 2,
        "dtype": "float32",
        "data.fake": True,
        "data.examples": 64,
        "data.size": 75,
        "optimizer.learning_rate": 0.00625,
        "optimizer.warmup_epochs": 1.0,
        "evaluate.every_epochs": 1,
    },
    "full": {},
}


def imagenet_entry(name: str) -> dict[str, Any]:
    """Returns one run of a sweep on ImageNet, which its name describes: `true-augment-dropout-decay`.

    Args:
      name: one of `LABELS`, then, after dashes, any of `augment` (random crop, flip and colour distortion),
        `dropout` (the original's rate) and `decay` (TF-slim's coefficient).

    Raises:
      UserError: for a word that is none of these, or that is there twice.
    """
    augmentations = ("random_crop", "flip", "color")
    options: dict[str, dict[str, Any]] = {
        "augment": {f"augment.{field}": True for field in augmentations},
        "dropout": {"model.dropout": 0.2},
        "decay": {"optimizer.weight_decay": 4e-5},
    }
    return sweep_entry(name, fields_of_name(name, LABELS, options, tuple(options)))
