"""The base config: every field of a run, its defaults, and how they are settled.

A config is an `ml_collections.ConfigDict`. A field that is `None` here is settled by `settle`, after the
command line is read, from the model and the data set. What the paper prints is the default
(section 3 of arXiv 1611.03530); what it leaves open is marked "ours".
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# Below this many training examples the paper's schedule, ×0.95 an epoch, has spent its learning rate
# before random labels are fitted: 0.95 an epoch leaves 20 epochs' worth of steps in all. Ours.
SMALL_SET = 10_000

# What follows the colon in `--config=FILE:DATA,SIZE`.
SIZES = ("smoke", "small", "full")

# The paper's networks for CIFAR-10, by what a sweep calls them.
NETWORKS: dict[str, dict[str, Any]] = {
    "inception": {"model.name": "small_inception"},
    "inception_nobn": {"model.name": "small_inception", "model.batch_norm": False},
    "alexnet": {"model.name": "small_alexnet"},
    "mlp3": {"model.name": "mlp", "model.depth": 3},
    "mlp1": {"model.name": "mlp", "model.depth": 1},
}

# "The default coefficient for each model"; the paper prints no value. Ours, on the weights that `settle` says.
WEIGHT_DECAY = {
    "inception": 4e-5,
    "inception_nobn": 4e-5,
    "alexnet": 0.004,
    "mlp3": 5e-4,
    "mlp1": 5e-4,
}

# Table 4 with random crop or augmentation: the paper multiplies the rate by 0.999 an epoch; 400 epochs is ours.
LONGER: dict[str, Any] = {"optimizer.decay_per_epoch": 0.999, "epochs": 400}

# The labels of Table 2, by what a sweep calls them.
LABELS: dict[str, dict[str, Any]] = {
    "true": {},
    "random": {"corruption.name": "random_labels"},
}

# What a field of each type must be, in words.
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "a tuple, for example (150, 225)",
}


class UserError(Exception):
    """A mistake of the user's: one line that names the field, the value and what is allowed."""


class InUse(UserError):
    """Another process has the run open."""


class RunFailed(Exception):
    """What ended a run that was underway: one line that says what happened and what is left."""


class Diverged(RunFailed):
    """A loss or a weight that is not finite ended the run."""


def base() -> ConfigDict:
    """Returns the config of one training run, with the paper's values and `None` where `settle` decides."""
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
                **_data("cifar10"),
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


def _data(name: str) -> dict[str, Any]:
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
    """
    config = base()
    config.data.name = data
    config.corruption.update(name=corruption, **corruption_fields)
    return config


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


def sweep(
    name: str,
    argument: str,
    runs: Iterable[dict[str, Any]],
    fields: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """Returns the config of a sweep for a config file: a training config whose fields hold for all runs.

    Args:
      name: of the table or the figure.
      argument: what follows the colon in `--config=FILE:DATA,SIZE`; for `smoke` and `small` it sets how
        many examples are taken, how long they are trained on and how often evaluated.
      runs: what `named_run` and `paper_run` return, in the order in which they are to run.
      fields: further fields for all runs, flattened: `{"corruption.name": "random_labels"}`.

    Raises:
      UserError: the argument is no `DATA,SIZE`.
    """
    config = base()
    config.data.name, size = data_and_size(argument)
    config.update_from_flattened_dict({**_SIZE_FIELDS[size], **(fields or {})})
    return as_sweep(config, name, size, runs)


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
      runs: what `imagenet_run` returns, in the order in which they are to run.
      fields: further fields for all runs, flattened.

    Raises:
      UserError: the argument is no `DATA,SIZE`.
    """
    data, size = data_and_size(argument, dict.fromkeys(_IMAGENET_SIZE_FIELDS, "imagenet2012"))
    config = imagenet(data, "true_labels")
    config.update_from_flattened_dict({**_IMAGENET_SIZE_FIELDS[size], **(fields or {})})
    return as_sweep(config, name, size, runs)


def as_sweep(
    config: ConfigDict, name: str, size: str, runs: Iterable[dict[str, Any]]
) -> ConfigDict:
    """Makes a training config the one of a sweep, and returns it."""
    config.experiment = "sweep"
    config.sweep = {"name": name, "size": size, "runs": tuple(runs), "seeds": 1, "only": "*"}
    config.launcher = "local"  # here, one after another; slurm: a job for each
    config.slurm = {  # what each job asks for; what is left out is the cluster's default, or a day
        "gpus": placeholder(int),
        "memory_gb": placeholder(float),
        "cpus": placeholder(int),
        "partition": placeholder(str),
        "minutes": placeholder(int),
        "parameters": placeholder(str),  # further ones of sbatch: "account=mine qos=high"
    }
    return config


def expressivity(data: str) -> ConfigDict:
    """Returns the config of Theorem 1 for a config file.

    Args:
      data: the data set's name, or `synthetic` for as many random points as ImageNet has training images.
    """
    return ConfigDict(
        {
            "experiment": "expressivity",
            "seed": 0,  # of the direction a, and of synthetic points
            "data": _data(data),
            "corruption": {"name": "random_labels", "probability": 1.0, "seed": 0},
            "synthetic": {"points": 1_281_167, "dimension": 100, "classes": 1000},
            "theorem": {"depth": 5, "whole_up_to": 100_000, "run_points": 10_000},
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
            "data": _data(data),
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
                "scaled": False,  # whether the mean squared distance of two examples is made 1
                "held_out": 0.2,
                "choose_with": SMALL_SET,  # examples at most of the rest
            },
            "solver": {
                "dtype": placeholder(str),  # of the matrix; float64 up to 20,000 examples
                "rank": 2000,
                "tolerance": 1e-3,
                "most_iterations": 2000,
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
            "data": _data(data),
            "corruption": {"name": "random_labels", "probability": 1.0, "seed": 0},
            "sgd": {"epochs": 1000},
            "compilation_cache": placeholder(str),
        }
    )


def named_run(
    name: str, fields: Mapping[str, Any], expect_divergence: bool = False
) -> dict[str, Any]:
    """Returns one run of a sweep.

    Args:
      name: of its directory, less the seed.
      fields: what it changes in the sweep's config, flattened.
      expect_divergence: whether a loss that is not finite is a result and no failure.
    """
    return {"name": name, "fields": dict(fields), "expect_divergence": expect_divergence}


# Ours. On few examples `settle` ends a run as soon as they are fitted.
_SIZE_FIELDS: dict[str, dict[str, Any]] = {
    "smoke": {"data.examples": 256, "epochs": 3},
    "small": {"data.examples": 1000, "evaluate.every_epochs": 5},
    "full": {},
}

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


def paper_run(
    name: str, fields: Mapping[str, Any] | None = None, expect_divergence: bool = False
) -> dict[str, Any]:
    """Returns one run of a sweep, which its name describes: `inception-crop-decay`, `mlp1-p0.3`.

    Args:
      name: one of `NETWORKS`, then, after dashes, any of `crop`, `augment`, `decay` and `random`, and of
        `VALUES` with a number behind each.
      fields: further fields, as for `named_run`.
      expect_divergence: as for `named_run`.

    Raises:
      UserError: for a word that is none of these, or that contradicts another one or the fields.
    """
    network = name.partition("-")[0]
    options: dict[str, dict[str, Any]] = {
        "crop": {"augment.random_crop": True},
        "augment": {"augment.flip": True, "augment.rotation_degrees": 25.0},
        "decay": {"optimizer.weight_decay": WEIGHT_DECAY.get(network, 0.0)},
        "random": {"corruption.name": "random_labels"},
    }
    allowed = (*options, *(f"{word}NUMBER" for word in VALUES))
    told = _fields_of(name, NETWORKS, {**options, **values_in(name)}, allowed)
    for field, value in (fields or {}).items():
        if told.get(field, value) != value:
            raise UserError(
                f"run {name!r} sets config.{field} to {told[field]!r} by its name, and to {value!r}"
            )
    return named_run(name, {**told, **(fields or {})}, expect_divergence)


def imagenet_run(name: str) -> dict[str, Any]:
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
    return named_run(name, _fields_of(name, LABELS, options, tuple(options)))


# Words of a run's name that have a number behind them, and the field that they set: `p0.3`, `rate_0.02`.
VALUES: dict[str, tuple[str, type]] = {
    "p": ("corruption.probability", float),
    "epochs_": ("epochs", int),
    "batch_": ("batch_size", int),
    "factor_": ("optimizer.decay_per_epoch", float),
    "initial_std_": ("model.initial_std", float),
    "rate_": ("optimizer.learning_rate", float),
}


def values_in(name: str) -> dict[str, dict[str, Any]]:
    """Returns the words of a run's name that are of `VALUES`, each with the field that it sets."""
    found = {}
    for word in name.split("-")[1:]:
        match = re.fullmatch(r"(p|[a-z_]+_)(\d+(?:\.\d+)?)", word)
        field, kind = VALUES.get(match[1], ("", float)) if match else ("", float)
        if match and field and not (kind is int and "." in match[2]):
            found[word] = {field: kind(match[2])}
    return found


def _fields_of(
    name: str,
    first: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Mapping[str, Any]],
    allowed: tuple[str, ...],
) -> dict[str, Any]:
    """Returns what the words of a run's name set: one of `first`, then any of `options`."""
    head, *words = name.split("-")
    if head not in first:
        raise UserError(f"run {name!r} begins with {head!r}; it must be one of {', '.join(first)}")
    fields, before = dict(first[head]), [head]
    for word in words:
        if word not in options:
            raise UserError(
                f"run {name!r} has the word {word!r}; it must be one of {', '.join(allowed)}"
            )
        if word in before:
            raise UserError(f"run {name!r} has the word {word!r} twice")
        for field in options[word]:
            # Labels are corrupted in one way.
            if field in fields or (_is_of_labels(field) and any(map(_is_of_labels, fields))):
                raise UserError(
                    f"run {name!r} has words that contradict each other: {word!r} is one"
                )
        fields |= options[word]
        before.append(word)
    return fields


def _is_of_labels(field: str) -> bool:
    return field.startswith("corruption.")


_DATA_OF_SIZES = {"smoke": "digits", "small": "cifar10", "full": "cifar10"}


def data_and_size(
    argument: str, data_of_sizes: Mapping[str, str] = _DATA_OF_SIZES
) -> tuple[str, str]:
    """Returns the data set and the size that `DATA,SIZE` names, either of which may be left out.

    A word that is no size is a data set's name; without a size it is `full`.

    Args:
      argument: `DATA,SIZE`.
      data_of_sizes: the sizes that there are, and the data set that each has where none is named.

    Raises:
      UserError: two sizes, two data sets, an empty word, or a size that there is not.
    """
    words = argument.split(",") if argument else []
    sizes = [word for word in words if word in SIZES]
    names = [word for word in words if word not in SIZES]
    size = sizes[0] if sizes else "full"
    if len(sizes) > 1 or len(names) > 1 or "" in words or size not in data_of_sizes:
        allowed = f"DATA, SIZE or DATA,SIZE, and SIZE one of {', '.join(data_of_sizes)}"
        raise UserError(f"the config's argument is {argument!r}; it must be {allowed}")
    return (names[0] if names else data_of_sizes[size]), size


def settle(config: ConfigDict, num_train: int, image_side: int) -> ConfigDict:
    """Returns a copy in which every default that depends on the model or the data set has its value.

    | field | up to 10,000 training examples (ours) | more |
    |---|---|---|
    | `model.name` | `mlp` | `small_inception`, figure 1a's |
    | `epochs` | 600 | 80 (ours) |
    | `stop_when_fitted` | true | false |
    | `optimizer.decay_per_epoch` | 1.0 | 0.95 (paper); 1.0 for `cosine` |

    `optimizer.learning_rate` is 0.01 for MLPs and small AlexNet and 0.1 for the others (paper); `data.size` is
    28 for images of 32 (paper) and otherwise the whole image's shorter side; for streams 299 for the Inceptions
    and 224 for the others (their papers).

    Args:
      config: a config as the command line left it.
      num_train: the number of training examples.
      image_side: the shorter side of the images, in pixels.
    """
    config = ConfigDict(config.copy_and_resolve_references())
    small, cosine = num_train <= SMALL_SET, config.optimizer.schedule == "cosine"
    model = config.model.name or ("mlp" if small else "small_inception")
    side = 28 if image_side == 32 else image_side
    if config.data.stream:
        side = 299 if model.startswith("inception_") else 224
    defaults = {
        "model.name": model,
        "epochs": 600 if small else 80,
        "stop_when_fitted": small and config.evaluate.examples is None,
        "data.size": side,
        "optimizer.learning_rate": 0.01 if model in ("mlp", "small_alexnet") else 0.1,
        "optimizer.decay_per_epoch": 1.0 if small or cosine else 0.95,
        "optimizer.weight_decay_on": "hidden_dense" if model == "small_alexnet" else "all",
    }
    config.update_from_flattened_dict(
        {field: value for field, value in defaults.items() if get(config, field) is None}
    )
    part = config.evaluate.examples is not None and config.evaluate.examples < num_train
    allowed = "False where config.evaluate.examples leaves out training examples"
    require(not (part and config.stop_when_fitted), "stop_when_fitted", True, allowed)
    if config.steps is None:  # steps are counted in 32 bits
        most = (2**31 - 1) // steps_per_epoch(config, num_train)
        allowed = (
            f"at most {most}, as {num_train} examples in batches of {config.batch_size} make steps"
        )
        require(config.epochs <= most, "epochs", config.epochs, allowed)
    return config


def check(config: ConfigDict) -> None:
    """Raises `UserError` for a value that no run could have; each room checks the fields it owns."""
    check_fields(config)
    for field in (
        *("epochs", "steps", "data.examples", "data.size", "evaluate.every_epochs"),
        *(
            "evaluate.examples",
            "checkpoint.every_epochs",
            "checkpoint.every_steps",
            "checkpoint.keep",
        ),
    ):
        _require_in(config, field, lambda value: 1 <= value < 2**31, "in [1, 2**31)")
    check_seeds(config)
    for field, is_allowed, allowed in (
        ("batch_size", lambda value: 1 <= value <= 2**20, "in [1, 1048576]"),
        ("optimizer.learning_rate", lambda value: 0 < value < math.inf, "above 0 and finite"),
        ("optimizer.decay_per_epoch", lambda value: 0 < value <= 1, "in (0, 1]"),
        ("optimizer.momentum", lambda value: 0 <= value < 1, "in [0, 1)"),
        (
            "optimizer.schedule",
            lambda value: value in ("exponential", "cosine"),
            "exponential or cosine",
        ),
        ("optimizer.warmup_epochs", lambda value: 0 <= value < 2**31, "in [0, 2**31)"),
        ("label_smoothing", lambda value: 0 <= value < 1, "in [0, 1)"),
        ("optimizer.weight_decay", lambda value: 0 <= value < 1, "in [0, 1)"),
        (
            "optimizer.weight_decay_on",
            lambda value: value in ("all", "kernels", "hidden_dense"),
            "all, kernels or hidden_dense",
        ),
        (
            "optimizer.drop_epochs",
            lambda value: all(type(epoch) is int and 1 <= epoch < 2**31 for epoch in value),
            "whole numbers in [1, 2**31)",
        ),
        ("augment.rotation_degrees", lambda value: 0 <= value <= 180, "in [0, 180]"),
        ("model.dropout", lambda value: 0 <= value < 1, "in [0, 1)"),
        ("grace_seconds", lambda value: 0 < value <= 86_400, "in (0, 86400], a day at most"),
        ("dtype", lambda value: value in ("float32", "bfloat16"), "float32 or bfloat16"),
    ):
        _require_in(config, field, is_allowed, allowed)
    for field in ("learning_rate", "weight_decay", "decay_per_epoch"):
        _require_in(
            config, f"optimizer.{field}", _is_float32, "0 or in float32's range, 1e-37 to 3e38"
        )
    if config.optimizer.schedule == "cosine":
        for field, is_allowed, allowed in (
            ("optimizer.decay_per_epoch", lambda value: value == 1, "1.0 or left out for cosine"),
            ("optimizer.drop_epochs", lambda value: len(value) == 0, "() for cosine"),
        ):
            _require_in(config, field, is_allowed, allowed)


def _is_float32(value: float) -> bool:
    return value == 0 or 1e-37 <= value <= 3e38


def check_seeds(config: ConfigDict) -> None:
    """Raises `UserError` for a seed that is none."""
    for field in ("seed", "corruption.seed"):
        _require_in(config, field, lambda value: 0 <= value < 2**32, "in [0, 2**32)")


# What is no training run has a group of fields that tells its kind.
_KINDS_OF_CONFIG: dict[str, Callable[[], ConfigDict]] = {
    "sweep": lambda: sweep("", "full", ()),
    "theorem": lambda: expressivity(""),
    "kernel": lambda: kernel("", (1.0,)),
    "rademacher": lambda: rademacher(""),
    "stability": lambda: stability(""),
    "sgd": lambda: minimum_norm(""),
}


def reference_of(config: ConfigDict) -> ConfigDict:
    """Returns a config of the same kind with its defaults."""
    kinds = [make for group, make in _KINDS_OF_CONFIG.items() if group in config]
    return kinds[-1]() if kinds else base()


def check_fields(config: ConfigDict) -> None:
    """Raises `UserError` unless a config has the fields of its kind, no others, each of its type."""
    _check_fields(config, reference_of(config), "config")


def _check_fields(config: ConfigDict, reference: ConfigDict, where: str) -> None:
    for name in sorted({*config, *reference}):
        field = f"{where}.{name}"
        if name not in reference:
            raise UserError(f"{field} is no field; {where} has {fields_of(reference)}")
        if name not in config:
            raise UserError(f"{field} is missing; {where} has {fields_of(reference)}")
        value, kind = config[name], reference.get_type(name)
        if isinstance(reference[name], ConfigDict):
            if not isinstance(value, ConfigDict):
                fields = fields_of(reference[name])
                raise UserError(f"{field} is {value!r}; it must be a group of fields: {fields}")
            _check_fields(value, reference[name], field)
        elif not (_is_a(value, kind) or value is reference[name] is None):
            raise UserError(f"{field} is {value!r}; it must be {KINDS[kind]}")


def _is_a(value: Any, kind: type) -> bool:
    """Returns whether a field of a type may hold a value: a whole number is a number, true is none."""
    if isinstance(value, bool):
        return kind is bool
    wider = {float: (int, float), tuple: (list, tuple)}  # JSON knows no tuples
    return isinstance(value, wider.get(kind, kind))


def fields_of(group: Any) -> str:
    """Returns the names of a group's fields, in words."""
    return ", ".join(sorted(group)) if isinstance(group, ConfigDict) else "no fields"


def _require_in(
    config: ConfigDict, field: str, is_allowed: Callable[[Any], bool], allowed: str
) -> None:
    value = get(config, field)
    require(value is None or is_allowed(value), field, value, allowed)


def require(holds: bool, field: str, value: Any, allowed: str) -> None:
    """Raises `UserError` naming the config's field, its value and what is allowed, unless `holds`."""
    if not holds:
        raise UserError(f"config.{field} is {value!r}; it must be {allowed}")


def steps_per_epoch(config: ConfigDict, num_train: int) -> int:
    """Returns the batches of an epoch, the last and smaller one included: 391 for CIFAR-10 at 128."""
    return math.ceil(num_train / config.batch_size)


def total_steps(config: ConfigDict, num_train: int) -> int:
    """Returns the steps of the whole run: `config.steps` where it is set, else `config.epochs` epochs."""
    return config.steps or config.epochs * steps_per_epoch(config, num_train)


def digest(config: ConfigDict) -> str:
    """Returns eight hexadecimal digits that name a settled config: equal configs, equal digits."""
    fields = config.to_dict()
    for field in ("experiment", "compilation_cache"):
        fields.pop(field, None)
    data = fields.get("data", {})
    if data.get("channels") is None:  # a later field: the runs before it keep their directories
        data.pop("channels", None)
    evaluate = fields.get("evaluate", {})
    if evaluate.get("examples") is None:  # likewise
        evaluate.pop("examples", None)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:8]


def get(config: ConfigDict, field: str) -> Any:
    """Returns the value of a flattened field, `model.name` for example."""
    for part in field.split("."):
        config = config[part]
    return config
