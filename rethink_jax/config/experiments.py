"""The experiments: the fields of each one's config, and how it is run.

To add an experiment, write its module, with `run(config, workdir, name=...)`, and give it an entry in
`EXPERIMENTS`.
"""

import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rethink_jax import paper
from rethink_jax.config.base import (
    COMPILATION_CACHE,
    CORRUPTION,
    DATA,
    EXPERIMENT,
    GRACE_SECONDS,
    SMALL_SET,
    TRAIN,
)
from rethink_jax.config.fields import (
    PAPER,
    SEED,
    Allowed,
    Field,
    Fields,
    make,
    of_numbers,
    of_sets_of_numbers,
    one_of,
    with_defaults,
    within,
)
from rethink_jax.config.sweeps import SWEEP

_RANDOM_LABELS = with_defaults(CORRUPTION, corruption__name="random_labels")

# The name of `config.data.name` for random points in place of a data set.
SYNTHETIC = "synthetic"

_EXPRESSIVITY: dict[str, Field] = {
    "experiment": EXPERIMENT._replace(default="expressivity"),
    "seed": Field(0, "Seed of the direction a, and of synthetic points.", SEED, in_report=False),
    **DATA,
    **_RANDOM_LABELS,
    "synthetic.points": Field(
        paper.IMAGENET_TRAIN,
        "Random points, for `data.name=synthetic`: ImageNet's.",
        within(1, 10**8),
        PAPER,
    ),
    "synthetic.dimension": Field(100, "Their coordinates.", within(1, 10**6)),
    "synthetic.classes": Field(1000, "Their classes.", within(1, 10**6), PAPER),
    "theorem.depth": Field(5, "Layers of the network of Corollary 1.", within(1, 10**4)),
    "theorem.evaluate_all_up_to": Field(
        100_000, "Largest number of points at which whole networks are evaluated.", within(1, 10**6)
    ),
    "theorem.sample_size": Field(
        10_000, "Points at which they are evaluated where there are more.", within(1, 10**6)
    ),
    "compilation_cache": COMPILATION_CACHE,
}

_KERNEL: dict[str, Field] = {
    "experiment": EXPERIMENT._replace(default="kernel"),
    "seed": Field(
        0,
        "Seed of the validation part, the preconditioner's pivots and random filters.",
        SEED,
        in_report=False,
    ),
    **DATA,
    "features.name": Field(
        "pixels",
        "What the kernel sees.",
        one_of("pixels", "gabor", "random_convolutions"),
        PAPER,
    ),
    "features.orientations": Field(8, "Orientations of `gabor` wavelets.", within(1, 64)),
    "features.wavelengths": Field(
        ((4.0, 8.0),),
        "Sets of wavelengths of `gabor`, in pixels; of several the best is chosen.",
        of_sets_of_numbers(
            "tuples of numbers in [2, 256], for example ((4, 8),)", lambda x: 2 <= x <= 256
        ),
    ),
    "features.pools": Field(
        (8,),
        "Sides of the squares over which `gabor` magnitudes are pooled; of several the best is chosen.",
        of_numbers("whole numbers in [1, 256]", lambda x: type(x) is int and 1 <= x <= 256),
    ),
    "features.filters": Field(32_000, "Filters of `random_convolutions`.", within(1, 10**6), PAPER),
    "kernel.name": Field("gaussian", "The kernel.", one_of("gaussian", "linear"), PAPER),
    "kernel.gammas": Field(
        (1.0,),
        "γ of exp(−γ‖x − y‖²); of several the best on the validation part is chosen.",
        of_numbers("one or more numbers above 0", lambda x: 0 < x < float("inf")),
    ),
    "kernel.ridges": Field(
        (0.0,),
        "Numbers added to the matrix's diagonal, chosen likewise.",
        of_numbers("one or more numbers of 0 or more", lambda x: 0 <= x < float("inf")),
    ),
    "kernel.gamma_scale": Field(
        False, "Whether γ is divided by the mean squared distance of two training examples."
    ),
    "kernel.validation_fraction": Field(
        0.2,
        "Share of the training set on which γ, ridge and features are chosen.",
        within(0.01, 0.9),
    ),
    "kernel.selection_examples": Field(
        SMALL_SET, "Examples of the rest, at most, that candidates are solved on.", within(1, 10**6)
    ),
    "solver.dtype": Field(
        None,
        "Type of the matrix.",
        (Allowed("float32 or float64", lambda value: value in ("float32", "float64")),),
        kind=str,
        unset="float64 up to 20,000 examples, float32 beyond",
        may_change=True,
    ),
    "solver.rank": Field(2000, "Rank of the preconditioner.", within(1, 100_000), may_change=True),
    "solver.tolerance": Field(
        1e-3, "Relative residual at which a solve ends.", within(1e-12, 0.5), may_change=True
    ),
    "solver.max_iterations": Field(
        2000, "Iterations after which a solve fails.", within(1, 10**6), may_change=True
    ),
    "solver.save_seconds": Field(
        60.0, "Seconds from one saved iterate to the next.", within(0, 86_400), may_change=True
    ),
    "grace_seconds": GRACE_SECONDS._replace(allowed=within(0.1, 86_400)),
    "compilation_cache": COMPILATION_CACHE,
}

# Section 2.2 looks at one hidden layer.
_OF_MLP1 = with_defaults(TRAIN, model__name="mlp", model__depth=1)

_RADEMACHER: dict[str, Field] = {
    **_OF_MLP1,
    "experiment": EXPERIMENT._replace(default="rademacher"),
    "rademacher.draws": Field(5, "Draws of random ±1 labels.", within(1, 1000)),
}

_STABILITY: dict[str, Field] = {
    **_OF_MLP1,
    "experiment": EXPERIMENT._replace(default="stability"),
    "stability.replacements": Field(
        3, "Training examples that are replaced, one at a time.", within(1, 1000)
    ),
}

_MINIMUM_NORM: dict[str, Field] = {
    "experiment": EXPERIMENT._replace(default="minimum_norm"),
    "seed": Field(
        0, "Seed of the order of examples and of the random start.", SEED, in_report=False
    ),
    **DATA,
    **_RANDOM_LABELS,
    "sgd.epochs": Field(1000, "Epochs of SGD.", within(1, 10**6)),
    "compilation_cache": COMPILATION_CACHE,
}


class Experiment(NamedTuple):
    """What `config.experiment` names.

    Attributes:
      fields: of its config.
      run: `module:function`, called with config, workdir and name; it is imported when the experiment is run,
        because JAX takes seconds to import.
      group: the group of fields that only its configs have; empty for training.
    """

    fields: Fields
    run: str
    group: str = ""

    def load(self) -> Callable[..., dict[str, Any]]:
        """Imports the function that runs it."""
        function: Callable[..., dict[str, Any]] = pkgutil.resolve_name(self.run)
        return function


EXPERIMENTS = {
    "train": Experiment(TRAIN, "rethink_jax.training.train:run"),
    "evaluate": Experiment(TRAIN, "rethink_jax.training.train:evaluate"),
    "sweep": Experiment(SWEEP, "rethink_jax.sweeps.sweep:run", "sweep"),
    "kernel": Experiment(_KERNEL, "rethink_jax.kernels.interpolation:run", "kernel"),
    "expressivity": Experiment(_EXPRESSIVITY, "rethink_jax.theory.expressivity:run", "theorem"),
    "rademacher": Experiment(_RADEMACHER, "rethink_jax.theory.rademacher:run", "rademacher"),
    "stability": Experiment(_STABILITY, "rethink_jax.theory.stability:run", "stability"),
    "minimum_norm": Experiment(_MINIMUM_NORM, "rethink_jax.theory.minimum_norm:run", "sgd"),
}


def expressivity(data: str) -> ConfigDict:
    """Returns the config of Theorem 1 for a config file.

    Args:
      data: the data set's name, or `synthetic` for as many random points as ImageNet has training images.
    """
    return _of_data(_EXPRESSIVITY, data)


def kernel(data: str, gammas: tuple[float, ...], ridges: tuple[float, ...] = (0.0,)) -> ConfigDict:
    """Returns the config of a minimum-norm kernel interpolation for a config file (section 4, table 3).

    Args:
      data: the data set's name.
      gammas: of the Gaussian kernel; of several the best on the validation part is chosen.
      ridges: added to the matrix's diagonal, likewise.
    """
    config = _of_data(_KERNEL, data)
    config.kernel.update(gammas=gammas, ridges=ridges)
    return config


def rademacher(data: str) -> ConfigDict:
    """Returns the config of a measurement of Rademacher complexity for a config file: a training config.

    Args:
      data: the data set's name.
    """
    return _of_data(_RADEMACHER, data)


def stability(data: str) -> ConfigDict:
    """Returns the config of the complexity measures' table for a config file: a training config.

    Args:
      data: the data set's name.
    """
    return _of_data(_STABILITY, data)


def minimum_norm(data: str) -> ConfigDict:
    """Returns the config of SGD on a linear model, beside the closed form, for a config file (section 5).

    Args:
      data: the data set's name.
    """
    return _of_data(_MINIMUM_NORM, data)


def _of_data(fields: Fields, data: str) -> ConfigDict:
    config = make(fields)
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
