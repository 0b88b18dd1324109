"""The base config: every field of a training run and its default.

A config is an `ml_collections.ConfigDict`. A field that is `None` here is resolved by `resolve`, after the
command line is read, from the model and the data set. What the paper prints is the default
(section 3 of arXiv 1611.03530); what it leaves open is marked "ours".
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# Below this many training examples the paper's schedule, ×0.95 an epoch, has spent its learning rate
# before random labels are fitted: 0.95 an epoch leaves 20 epochs' worth of steps in all. Ours.
SMALL_SET = 10_000


def base() -> ConfigDict:
    """Returns the config of one training run, with the paper's values and `None` where `resolve` decides."""
    return ConfigDict(
        {
            "experiment": "train",
            "seed": 0,
            "batch_size": 128,
            "epochs": placeholder(int),
            "steps": placeholder(int),  # in place of epochs
            "stop_when_fitted": placeholder(bool),
            "dtype": "float32",
            "label_smoothing": 0.0,
            "data": {
                **data_fields("cifar10"),
                "size": placeholder(int),
                "stream": False,  # whether it is read batch by batch, as what does not fit in memory
                "workers": placeholder(int),  # processes that do so; one a core, 64 at most
            },
            "corruption": {
                "name": "true_labels",
                "probability": 1.0,
                "seed": 0,
                "per_channel": True,
                "before_crop": False,
            },
            "augment": {
                "random_crop": False,
                "flip": False,
                "rotation_degrees": 0.0,
                "color": False,
            },
            "model": {
                "name": placeholder(str),
                "depth": 1,
                "width": 512,
                "initial_std": placeholder(float),  # of the MLP's kernels; None for LeCun's
                "batch_norm": True,
                "dropout": 0.0,
                "auxiliary": False,  # Inception V3's second classifier
            },
            "optimizer": {
                "learning_rate": placeholder(float),
                "momentum": 0.9,
                "schedule": "exponential",  # or cosine, to 0 at the run's end
                "warmup_epochs": 0.0,  # of a rate that rises from 0
                "decay_per_epoch": placeholder(float),
                "drop_epochs": (),  # after each of these epochs the rate is a tenth
                "weight_decay": 0.0,
                "weight_decay_on": placeholder(str),  # all, kernels or hidden_dense
            },
            "evaluate": {
                "every_epochs": 1,
                "examples": placeholder(int),  # of each split, the first by id; None for all
            },
            "checkpoint": {"every_epochs": 10, "every_steps": placeholder(int), "keep": 3},
            "grace_seconds": 30.0,  # from a signal to the end of the process
            "compilation_cache": placeholder(str),  # a folder; by default beside the data's cache
        }
    )


def data_fields(name: str) -> dict[str, Any]:
    """Returns the group `config.data` that all experiments share."""
    return {
        "name": name,
        "data_dir": placeholder(str),
        "examples": placeholder(int),
        "channels": placeholder(int),  # 1 or 3, to which images are converted
        "fake": False,  # whether made-up examples stand for the data set's
    }


def train(data: str, corruption: str, **corruption_fields: Any) -> ConfigDict:
    """Returns a training config for a config file.

    Args:
      data: the data set's name, which is what follows the colon in `--config=FILE:DATA`.
      corruption: one of the six names of `rethink_jax.corruptions`.
      **corruption_fields: further fields of `config.corruption`.

    Example:
      >>> config = train("cifar10", "partially_corrupted_labels", probability=0.3)
      >>> config.model.name, config.epochs = "small_inception", 40
      >>> config.corruption.probability, config.optimizer.momentum
      (0.3, 0.9)
    """
    config = base()
    config.data.name = data
    config.corruption.update(name=corruption, **corruption_fields)
    return config


def get(config: ConfigDict, field: str) -> Any:
    """Returns the value of a flattened field, `model.name` for example."""
    for part in field.split("."):
        config = config[part]
    return config
