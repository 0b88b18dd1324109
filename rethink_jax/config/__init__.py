"""Configs: every field, its default, what it may hold, and the experiments of the paper."""

from rethink_jax.config.base import (
    SMALL_SET as SMALL_SET,
    SYNTHETIC as SYNTHETIC,
    base as base,
    get as get,
    train as train,
)
from rethink_jax.config.defaults import (
    default_size as default_size,
    fill_in as fill_in,
    steps_per_epoch as steps_per_epoch,
    total_steps as total_steps,
)
from rethink_jax.config.experiments import (
    EXPERIMENTS as EXPERIMENTS,
    default_config_for as default_config_for,
    experiment as experiment,
    experiment_of as experiment_of,
    experiments_like as experiments_like,
    fields_for as fields_for,
)
from rethink_jax.config.identity import (
    digest as digest,
    may_change as may_change,
    with_todays_names as with_todays_names,
)
from rethink_jax.config.imagenet import (
    LABELS as LABELS,
    imagenet as imagenet,
    imagenet_entry as imagenet_entry,
    imagenet_sweep as imagenet_sweep,
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
    fields_of as fields_of,
)
