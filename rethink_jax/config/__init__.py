"""Configs: every field, its default, what it may hold, and the experiments of the paper."""

from rethink_jax.config.base import base as base, get as get, train as train
from rethink_jax.config.experiments import (
    default_config_for as default_config_for,
    expressivity as expressivity,
    kernel as kernel,
    minimum_norm as minimum_norm,
    rademacher as rademacher,
    stability as stability,
)
from rethink_jax.config.identity import digest as digest, with_todays_names as with_todays_names
from rethink_jax.config.imagenet import (
    LABELS as LABELS,
    imagenet as imagenet,
    imagenet_entry as imagenet_entry,
    imagenet_sweep as imagenet_sweep,
)
from rethink_jax.config.resolve import (
    resolve as resolve,
    steps_per_epoch as steps_per_epoch,
    total_steps as total_steps,
)
from rethink_jax.config.sweeps import (
    LONGER as LONGER,
    NETWORKS as NETWORKS,
    SIZES as SIZES,
    as_sweep as as_sweep,
    cifar10_entry as cifar10_entry,
    data_and_size as data_and_size,
    sweep as sweep,
    sweep_entry as sweep_entry,
    values_in as values_in,
)
from rethink_jax.config.validate import (
    KINDS as KINDS,
    check as check,
    check_fields as check_fields,
    check_seeds as check_seeds,
    fields_of as fields_of,
)
