"""The configs of kernels and theory; which kind of config one is."""

from collections.abc import Callable

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from rethink_jax import paper
from rethink_jax.config.base import SMALL_SET, base, data_fields
from rethink_jax.config.sweeps import NETWORKS, sweep


def expressivity(data: str) -> ConfigDict:
    """Returns the config of Theorem 1 for a config file.

    Args:
      data: the data set's name, or `synthetic` for as many random points as ImageNet has training images.
    """
    return ConfigDict(
        {
            "experiment": "expressivity",
            "seed": 0,  # of the direction a, and of synthetic points
            "data": data_fields(data),
            "corruption": {"name": "random_labels", "probability": 1.0, "seed": 0},
            "synthetic": {"points": paper.IMAGENET_TRAIN, "dimension": 100, "classes": 1000},
            "theorem": {"depth": 5, "evaluate_all_up_to": 100_000, "sample_size": 10_000},
            "compilation_cache": placeholder(str),
        }
    )


def kernel(data: str, gammas: tuple[float, ...], ridges: tuple[float, ...] = (0.0,)) -> ConfigDict:
    """Returns the config of a minimum-norm kernel interpolation for a config file (section 4, table 3).

    Args:
      data: the data set's name.
      gammas: of the Gaussian kernel; of several the best on a held-out part of the training set is taken.
      ridges: added to the matrix's diagonal, likewise.
    """
    return ConfigDict(
        {
            "experiment": "kernel",
            "seed": 0,  # of the held-out part and of the preconditioner's pivots
            "data": data_fields(data),
            "features": {
                "name": "pixels",
                "orientations": 8,
                "wavelengths": (
                    (4.0, 8.0),
                ),  # of Gabor wavelets; of several sets the best is taken
                "pools": (8,),
                "filters": 32_000,  # of random convolutions
            },
            "kernel": {
                "name": "gaussian",
                "gammas": gammas,
                "ridges": ridges,
                "gamma_scale": False,  # whether the mean squared distance of two examples is made 1
                "validation_fraction": 0.2,
                "selection_examples": SMALL_SET,  # examples at most of the rest
            },
            "solver": {
                "dtype": placeholder(str),  # of the matrix; float64 up to 20,000 examples
                "rank": 2000,
                "tolerance": 1e-3,
                "max_iterations": 2000,
                "save_seconds": 60.0,
            },
            "grace_seconds": 30.0,
            "compilation_cache": placeholder(str),
        }
    )


def rademacher(data: str) -> ConfigDict:
    """Returns the config of a measurement of Rademacher complexity for a config file: a training config.

    Args:
      data: the data set's name.
    """
    config = base()
    config.experiment = "rademacher"
    config.data.name = data
    config.update_from_flattened_dict(NETWORKS["mlp1"])
    config.rademacher = {"draws": 5}
    return config


def stability(data: str) -> ConfigDict:
    """Returns the config of the complexity measures' table for a config file: a training config.

    Args:
      data: the data set's name.
    """
    config = rademacher(data)
    config.experiment = "stability"
    del config.rademacher
    config.stability = {"replacements": 3}
    return config


def minimum_norm(data: str) -> ConfigDict:
    """Returns the config of SGD on a linear model, beside the closed form, for a config file (section 5).

    Args:
      data: the data set's name.
    """
    return ConfigDict(
        {
            "experiment": "minimum_norm",
            "seed": 0,  # of the order of the examples and of the random start
            "data": data_fields(data),
            "corruption": {"name": "random_labels", "probability": 1.0, "seed": 0},
            "sgd": {"epochs": 1000},
            "compilation_cache": placeholder(str),
        }
    )


# What is no training run has a group of fields that tells its kind.
_KINDS_OF_CONFIG: dict[str, Callable[[], ConfigDict]] = {
    "sweep": lambda: sweep("", "full", ()),
    "theorem": lambda: expressivity(""),
    "kernel": lambda: kernel("", (1.0,)),
    "rademacher": lambda: rademacher(""),
    "stability": lambda: stability(""),
    "sgd": lambda: minimum_norm(""),
}


def default_config_for(config: ConfigDict) -> ConfigDict:
    """Returns a config of the same kind with its defaults."""
    kinds = [make for group, make in _KINDS_OF_CONFIG.items() if group in config]
    return kinds[-1]() if kinds else base()
