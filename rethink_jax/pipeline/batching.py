"""The ids of batches in memory: an epoch's order, cut into batches and padded."""

import jax
import numpy as np

from rethink_jax import corruptions

# The id of a row that holds no example.
PADDING = -1


@corruptions.pinned
def epoch_batches(seed: int, epoch: int, n: int, batch_size: int) -> np.ndarray:
    """Returns the ids of an epoch's batches: a permutation that depends on the seed and the epoch alone.

    Args:
      seed: `config.seed`.
      epoch: from 0.
      n: the number of training examples.
      batch_size: the global one.

    Returns:
      int32 [⌈n / batch_size⌉, batch_size]; the last batch is filled up with `PADDING`.
    """
    key = jax.random.fold_in(corruptions.key_of(seed), epoch)
    return in_batches(np.asarray(jax.random.permutation(key, n)), batch_size)


def in_batches(ids: np.ndarray, batch_size: int) -> np.ndarray:
    """Cuts ids [n] into int32 [⌈n / batch_size⌉, batch_size], the last one filled up with `PADDING`."""
    padding = -len(ids) % batch_size
    padded = np.pad(ids.astype(np.int32), (0, padding), constant_values=PADDING)
    return padded.reshape(-1, batch_size)
