"""The experiments: what `config.experiment` may name.

To add an experiment, write its module, with `FIELDS` and `run(config, workdir, name=...)`, and give it a line
in `EXPERIMENTS`. Its module is imported when a config of it is made: it imports JAX, which takes a second, and
configs of training need not wait for that.
"""

import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rethink_jax.config.base import TRAIN
from rethink_jax.config.fields import Fields, make
from rethink_jax.config.sweeps import SWEEP


class Experiment(NamedTuple):
    """What `config.experiment` names.

    Attributes:
      function: `module:function`, called with config, workdir and name.
      group: the group of fields that only its configs have; empty for training.
      known_fields: those of its config, where they are not `FIELDS` of its module.
    """

    function: str
    group: str = ""
    known_fields: Fields | None = None

    @property
    def fields(self) -> Fields:
        """The fields of its config."""
        if self.known_fields is not None:
            return self.known_fields
        fields: Fields = pkgutil.resolve_name(f"{self.function.partition(':')[0]}:FIELDS")
        return fields

    def load(self) -> Callable[..., dict[str, Any]]:
        """Imports the function that runs it."""
        function: Callable[..., dict[str, Any]] = pkgutil.resolve_name(self.function)
        return function


EXPERIMENTS = {
    "train": Experiment("rethink_jax.training.train:run", known_fields=TRAIN),
    "evaluate": Experiment("rethink_jax.training.train:evaluate", known_fields=TRAIN),
    "sweep": Experiment("rethink_jax.sweeps.sweep:run", "sweep", SWEEP),
    "kernel": Experiment("rethink_jax.kernels.interpolation:run", "kernel"),
    "expressivity": Experiment("rethink_jax.theory.expressivity:run", "theorem"),
    "rademacher": Experiment("rethink_jax.theory.rademacher:run", "rademacher"),
    "stability": Experiment("rethink_jax.theory.stability:run", "stability"),
    "minimum_norm": Experiment("rethink_jax.theory.minimum_norm:run", "sgd"),
    "memorization": Experiment("rethink_jax.theory.memorization:run", "memorization"),
    "fine_grained": Experiment("rethink_jax.theory.fine_grained:run", "fine_grained"),
    "pac_bayes": Experiment("rethink_jax.theory.pac_bayes:run", "pac_bayes"),
    "certificate": Experiment("rethink_jax.theory.certificate:run", "certificate"),
    "capacity": Experiment("rethink_jax.theory.capacity:run", "capacity"),
    "double_descent": Experiment("rethink_jax.theory.double_descent:run", "double_descent"),
    "measures": Experiment("rethink_jax.theory.judged:run", "measures"),
}


def experiment(name: str, data: str) -> ConfigDict:
    """Returns the config of an experiment for a config file, with its defaults.

    Args:
      name: one of `EXPERIMENTS`.
      data: the data set's name, which is what follows the colon in `--config=FILE:DATA`.

    Example:
      >>> config = experiment("kernel", "mnist")
      >>> config.kernel.gammas = (0.02,)
      >>> config.experiment, config.data.name, config.solver.rank
      ('kernel', 'mnist', 2000)
    """
    config = make(EXPERIMENTS[name].fields)
    config.data.name = data
    return config


def experiments_like(name: str) -> tuple[str, ...]:
    """Returns the experiments that a config of this kind may name: a training config also an evaluation."""
    group = EXPERIMENTS[name].group
    return tuple(other for other, one in EXPERIMENTS.items() if one.group == group)


def experiment_of(config: Any) -> str:
    """Returns which kind of config one is, by its groups of fields: the experiment's name, `train` for most."""
    kinds = [name for name, one in EXPERIMENTS.items() if one.group and one.group in config]
    return kinds[-1] if kinds else "train"


def fields_for(config: Any) -> Fields:
    """Returns the fields that a config of its kind has; of a mapping from `config.json` too."""
    return EXPERIMENTS[experiment_of(config)].fields


def default_config_for(config: Any) -> ConfigDict:
    """Returns a config of the same kind with its defaults."""
    return make(fields_for(config))
