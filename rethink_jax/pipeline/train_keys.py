"""The random keys of training: a draw depends on the seed, the epoch or step, and the example's id alone."""

import jax

from rethink_jax.corruptions import key_of, pinned

# Keep the draws apart from each other and from the data's order, which has the seed's own key.
AUGMENT, DROPOUT = 1, 2


@pinned
def example_keys(seed: int, purpose: int, time: jax.Array, ids: jax.Array) -> jax.Array:
    """Returns a key for each example of a batch.

    Args:
      seed: `config.seed`.
      purpose: `AUGMENT` or `DROPOUT`.
      time: int32 scalar, the epoch or the step.
      ids: int32 [n]; those of padding give keys like any other.

    Returns:
      threefry2x32 keys [n].
    """
    key = jax.random.fold_in(key_of(seed), purpose)
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, time), ids)
