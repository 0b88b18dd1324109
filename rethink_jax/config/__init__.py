"""Configs: every field, its default, what it may hold, and the experiments of the paper."""

from rethink_jax.config.base import base as base, get as get, train as train
from rethink_jax.config.experiments import (
    expressivity as expressivity,
    kernel as kernel,
    minimum_norm as minimum_norm,
    rademacher as rademacher,
    reference_of as reference_of,
    stability as stability,
)
from rethink_jax.config.imagenet import (
    LABELS as LABELS,
    imagenet as imagenet,
    imagenet_run as imagenet_run,
    imagenet_sweep as imagenet_sweep,
)
from rethink_jax.config.resolve import (
    digest as digest,
    settle as settle,
    steps_per_epoch as steps_per_epoch,
    total_steps as total_steps,
)
from rethink_jax.config.sweeps import (
    LONGER as LONGER,
    NETWORKS as NETWORKS,
    SIZES as SIZES,
    as_sweep as as_sweep,
    data_and_size as data_and_size,
    named_run as named_run,
    paper_run as paper_run,
    sweep as sweep,
    values_in as values_in,
)
from rethink_jax.config.validate import (
    KINDS as KINDS,
    check as check,
    check_fields as check_fields,
    check_seeds as check_seeds,
    fields_of as fields_of,
)
