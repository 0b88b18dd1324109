"""The configs of sweeps: their sizes, and the names of their runs."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from rethink_jax import paper
from rethink_jax.config.base import TRAIN, base
from rethink_jax.config.fields import POSITIVE, Allowed, Field, make, one_of, with_defaults, within
from rethink_jax.errors import UserError

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


# "The default coefficient for each model"; the paper prints no value. Ours, on the weights that `resolve` says.
WEIGHT_DECAY = {
    "inception": 4e-5,
    "inception_nobn": 4e-5,
    "alexnet": 0.004,
    "mlp3": 5e-4,
    "mlp1": 5e-4,
}


# Table 4 with random crop or augmentation: the paper multiplies the rate by 0.999 an epoch; 400 epochs is ours.
LONGER: dict[str, Any] = {"optimizer.decay_per_epoch": 0.999, "epochs": 400}


# Words of a run's name that have a number behind them, and the field that they set: `p0.3`, `rate_0.02`.
VALUES: dict[str, tuple[str, type]] = {
    "p": ("corruption.probability", float),
    "epochs_": ("epochs", int),
    "batch_": ("batch_size", int),
    "factor_": ("optimizer.decay_per_epoch", float),
    "initial_std_": ("model.initial_std", float),
    "rate_": ("optimizer.learning_rate", float),
}


# What some launchers alone ask for: each field, and the launchers that do.
ASKED_BY = {
    "gpus": ("submitit_local", "slurm"),
    "minutes": ("submitit_local", "slurm"),
    "memory_gb": ("slurm",),
    "cpus": ("slurm",),
    "partition": ("slurm",),
    "parameters": ("slurm",),
}

# Parameters of sbatch that other fields say, and what submitit needs.
_TAKEN = (
    *("gpus-per-node", "gres", "mem", "cpus-per-task", "partition", "time", "job-name", "output"),
    *("error", "array", "nodes", "ntasks", "ntasks-per-node", "signal", "open-mode", "wckey"),
)


def _are_parameters(text: str) -> bool:
    matches = [re.fullmatch(r"(?:--)?([a-z][a-z-]*)(=\S+)?", word) for word in text.split()]
    return bool(matches) and all(match and match[1] not in _TAKEN for match in matches)


_OF_SWEEPS = {
    "sweep.name": Field("", "The table or figure; the report looks for it."),
    "sweep.size": Field("full", "`smoke`, `small` or `full`, as the config file was asked for."),
    "sweep.runs": Field((), "The runs, as `rethink_jax.config.sweep_entry` returns them."),
    "sweep.seeds": Field(
        1, "How many seeds each run is trained with.", within(1, 1000), in_name=False
    ),
    "sweep.only": Field(
        "*",
        "Names of the runs to carry out, with commas between; * and ? stand for any characters.",
        in_name=False,
    ),
    "sweep.together": Field(
        "auto",
        "Whether runs of MLPs that differ in seed, learning rate, weight decay or corrupted labels alone train "
        "as one program.",
        one_of("auto", "never"),
        in_name=False,
    ),
    "launcher": Field(
        "local",
        "Where runs are carried out: here, one after another, or each in a job of its own.",
        one_of("local", "slurm", "submitit_local"),
        in_name=False,
    ),
    "slurm.gpus": Field(
        None,
        "GPUs that a job asks for.",
        within(0, 1024),
        kind=int,
        unset="the cluster's default",
        in_name=False,
    ),
    "slurm.memory_gb": Field(
        None,
        "Memory that a job asks for.",
        POSITIVE,
        kind=float,
        unset="the cluster's default",
        in_name=False,
    ),
    "slurm.cpus": Field(
        None,
        "Cores that a job asks for.",
        within(1, 65_536),
        kind=int,
        unset="the cluster's default",
        in_name=False,
    ),
    "slurm.partition": Field(
        None,
        "Partition that a job is submitted to.",
        (Allowed("a partition's name", lambda value: bool(re.fullmatch(r"[\w.,-]+", value))),),
        kind=str,
        unset="the cluster's default",
        in_name=False,
    ),
    "slurm.minutes": Field(
        None,
        "Time limit of a job.",
        within(1, 525_600, "in [1, 525600], a year at most"),
        kind=int,
        unset="a day",
        in_name=False,
    ),
    "slurm.parameters": Field(
        None,
        'Further parameters of sbatch: "account=mine qos=high".',
        (Allowed(f"words like account=mine, none of {', '.join(_TAKEN)}", _are_parameters),),
        kind=str,
        unset="none",
        in_name=False,
    ),
}

# The fields of a sweep: those of a training run, which hold for all its runs, and its own.
SWEEP: dict[str, Field] = {**with_defaults(TRAIN, experiment="sweep"), **_OF_SWEEPS}


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
      runs: what `sweep_entry` and `cifar10_entry` return, in the order in which they are to run.
      fields: further fields for all runs, flattened: `{"corruption.name": "random_labels"}`.

    Raises:
      UserError: the argument is no `DATA,SIZE`.
    """
    config = base()
    config.data.name, size = data_and_size(argument)
    config.update_from_flattened_dict({**_SIZE_FIELDS[size], **(fields or {})})
    return as_sweep(config, name, size, runs)


def as_sweep(
    config: ConfigDict, name: str, size: str, runs: Iterable[dict[str, Any]]
) -> ConfigDict:
    """Makes a training config the one of a sweep, and returns it."""
    config.experiment = "sweep"
    config.update(make(_OF_SWEEPS))
    config.sweep.update(name=name, size=size, runs=tuple(runs))
    return config


# Not stated in the paper; our choice. On few examples `resolve` ends a run as soon as they are fitted.
_SIZE_FIELDS: dict[str, dict[str, Any]] = {
    "smoke": {"data.examples": 256, "epochs": 3},
    "small": {"data.examples": 1000, "evaluate.every_epochs": 5},
    "full": {},
}


def sweep_entry(
    name: str, fields: Mapping[str, Any], expect_divergence: bool = False
) -> dict[str, Any]:
    """Returns one run of a sweep.

    Args:
      name: of its directory, less the seed.
      fields: what it changes in the sweep's config, flattened.
      expect_divergence: whether a loss that is not finite is a result and no failure.
    """
    return {"name": name, "fields": dict(fields), "expect_divergence": expect_divergence}


def cifar10_entry(
    name: str, fields: Mapping[str, Any] | None = None, expect_divergence: bool = False
) -> dict[str, Any]:
    """Returns one run of a sweep, which its name describes: `inception-crop-decay`, `mlp1-p0.3`.

    Args:
      name: one of `NETWORKS`, then, after dashes, any of `crop`, `augment`, `decay` and `random`, and of
        `VALUES` with a number behind each.
      fields: further fields, as for `sweep_entry`.
      expect_divergence: as for `sweep_entry`.

    Raises:
      UserError: for a word that is none of these, or that contradicts another one or the fields.

    Example:
      >>> entry = cifar10_entry("inception-crop", {"epochs": 40})
      >>> entry["fields"]["augment.random_crop"], entry["fields"]["epochs"]
      (True, 40)
    """
    network = paper.words_of(name)[0].text
    options: dict[str, dict[str, Any]] = {
        "crop": {"augment.random_crop": True},
        "augment": {"augment.flip": True, "augment.rotation_degrees": 25.0},
        "decay": {"optimizer.weight_decay": WEIGHT_DECAY.get(network, 0.0)},
        "random": {"corruption.name": "random_labels"},
    }
    allowed = (*options, *(f"{word}NUMBER" for word in VALUES))
    told = fields_of_name(name, NETWORKS, {**options, **values_in(name)}, allowed)
    for field, value in (fields or {}).items():
        if told.get(field, value) != value:
            raise UserError(
                f"run {name!r} sets config.{field} to {told[field]!r} by its name, and to {value!r}"
            )
    return sweep_entry(name, {**told, **(fields or {})}, expect_divergence)


def values_in(name: str) -> dict[str, dict[str, Any]]:
    """Returns the words of a run's name that are of `VALUES`, each with the field that it sets."""
    found = {}
    for word in paper.words_of(name)[1:]:
        field, kind = VALUES.get(word.name, ("", float))
        if field and word.number and not (kind is int and "." in word.number):
            found[word.text] = {field: kind(word.number)}
    return found


def fields_of_name(
    name: str,
    first: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Mapping[str, Any]],
    allowed: tuple[str, ...],
) -> dict[str, Any]:
    """Returns what the words of a run's name set: one of `first`, then any of `options`."""
    head, *words = (word.text for word in paper.words_of(name))
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
