"""A data set's name → uint8 arrays whose positions are the examples' stable ids."""

from rethink_jax.data.arrays import check as check
from rethink_jax.data.arrays import describe as describe
from rethink_jax.data.arrays import from_arrays as from_arrays
from rethink_jax.data.arrays import load as load
from rethink_jax.data.examples import Dataset as Dataset
from rethink_jax.data.examples import DatasetInfo as DatasetInfo
from rethink_jax.data.examples import Examples as Examples
