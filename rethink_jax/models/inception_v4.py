"""Inception V4 for ImageNet (Szegedy, Ioffe, Vanhoucke and Alemi 2016, arXiv 1602.07261)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rethink_jax.models.layers import Conv, at_least_float32, conv_units, dropout
from rethink_jax.models.pooling import max_pool, mean_pool


class InceptionV4(nn.Module):
    """A stem, fourteen Inception and two reduction modules, mean pool, one linear layer; for images of 299×299.

    Attributes:
      num_classes: the number of logits; 1,001 in the original, one of them for no class.
      dropout: the rate before the linear layer; the original's is 0.2.
      dtype: of the computation.
      axis_name: the mapped axis of BatchNorm's sums, or None.
    """

    num_classes: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        mask: jax.Array | None = None,
        train: bool = False,
        keys: jax.Array | None = None,
    ) -> jax.Array:
        """Returns float32 logits [n, num_classes] of floating images [n, height, width, channels].

        The arguments are those of `SmallInception`.
        """
        if mask is None:
            mask = jnp.ones(images.shape[0], bool)

        conv = conv_units(mask, train, self.dtype, self.axis_name)
        x = _stem(conv, images)
        for module in (
            *4 * [_thirty_five],
            _to_seventeen,
            *7 * [_seventeen],
            _to_eight,
            *3 * [_eight],
        ):
            x = module(conv, x)
        x = dropout(x.mean(axis=(1, 2)), self.dropout, keys)
        logits = nn.Dense(self.num_classes, dtype=self.dtype)(x)
        return logits.astype(at_least_float32(self.dtype))


def _join(*parts: jax.Array) -> jax.Array:
    return jnp.concatenate(parts, axis=-1)


def _pool(x: jax.Array) -> jax.Array:
    return mean_pool(x, 3, padding=1, count_padding=False)


def _stem(conv: Conv, x: jax.Array) -> jax.Array:
    """Figure 3 there."""
    x = conv(conv(conv(x, 32, 3, 2, "VALID"), 32, 3, padding="VALID"), 64, 3)
    x = _join(max_pool(x, padding=0), conv(x, 96, 3, 2, "VALID"))
    threes = conv(conv(x, 64), 96, 3, padding="VALID")
    sevens = conv(conv(conv(x, 64), 64, (1, 7)), 64, (7, 1))
    x = _join(threes, conv(sevens, 96, 3, padding="VALID"))
    return _join(conv(x, 192, 3, 2, "VALID"), max_pool(x, padding=0))


def _thirty_five(conv: Conv, x: jax.Array) -> jax.Array:
    """Figure 4 there."""
    parts = [conv(x, 96), conv(conv(x, 64), 96, 3), conv(conv(conv(x, 64), 96, 3), 96, 3)]
    return _join(*parts, conv(_pool(x), 96))


def _to_seventeen(conv: Conv, x: jax.Array) -> jax.Array:
    """Figure 7 there."""
    once = conv(x, 384, 3, 2, "VALID")
    twice = conv(conv(conv(x, 192), 224, 3), 256, 3, 2, "VALID")
    return _join(once, twice, max_pool(x, padding=0))


def _seventeen(conv: Conv, x: jax.Array) -> jax.Array:
    """Figure 5 there."""
    ones = conv(x, 384)
    once = conv(conv(conv(x, 192), 224, (1, 7)), 256, (7, 1))
    twice = conv(conv(conv(x, 192), 192, (7, 1)), 224, (1, 7))
    twice = conv(conv(twice, 224, (7, 1)), 256, (1, 7))
    return _join(ones, once, twice, conv(_pool(x), 128))


def _to_eight(conv: Conv, x: jax.Array) -> jax.Array:
    """Figure 8 there."""
    threes = conv(conv(x, 192), 192, 3, 2, "VALID")
    sevens = conv(conv(conv(x, 256), 256, (1, 7)), 320, (7, 1))
    return _join(threes, conv(sevens, 320, 3, 2, "VALID"), max_pool(x, padding=0))


def _eight(conv: Conv, x: jax.Array) -> jax.Array:
    """Figure 6 there."""
    ones, once = conv(x, 256), conv(x, 384)
    parts = [conv(once, 256, (1, 3)), conv(once, 256, (3, 1))]
    twice = conv(conv(conv(x, 384), 448, (3, 1)), 512, (1, 3))
    parts += [conv(twice, 256, (1, 3)), conv(twice, 256, (3, 1))]
    return _join(ones, *parts, conv(_pool(x), 256))
