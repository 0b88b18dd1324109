"""From a data set's name to uint8 arrays. An example's position in its split is its stable id."""

from rethink_jax.data.arrays import (
    as_asked as as_asked,
    describe as describe,
    describe_as_asked as describe_as_asked,
    from_arrays as from_arrays,
    load as load,
    open_source as open_source,
    take as take,
)
from rethink_jax.data.source import (
    Dataset as Dataset,
    DatasetInfo as DatasetInfo,
    Examples as Examples,
    Source as Source,
)
