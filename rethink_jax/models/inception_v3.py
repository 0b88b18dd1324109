"""Inception V3 for ImageNet (Szegedy et al. 2015, arXiv 1512.00567)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rethink_jax.models.layers import Conv, at_least_float32, conv_units, dropout
from rethink_jax.models.pooling import max_pool, mean_pool

# The smallest side of the images, in pixels, on whose maps the second classifier's 5×5 convolution fits.
AUXILIARY_SIDE = 299


class InceptionV3(nn.Module):
    """Five convolutions, eleven Inception modules, mean pool, one linear layer; for images of 299×299.

    Attributes:
      num_classes: the number of logits.
      auxiliary: whether there is a second classifier after the last 17×17 module. Its logits are sown as
        `auxiliary_logits` into the `intermediates`. It needs images of at least 299×299.
      dropout: the rate before the linear layer; the original's is 0.2.
      dtype: of the computation.
      axis_name: the mapped axis of BatchNorm's sums, or None.
    """

    num_classes: int
    auxiliary: bool = False
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

        def classify(x: jax.Array) -> jax.Array:
            logits = nn.Dense(self.num_classes, dtype=self.dtype)(x.mean(axis=(1, 2)))
            return logits.astype(at_least_float32(self.dtype))

        x = conv(conv(images, 32, 3, 2, "VALID"), 32, 3, padding="VALID")
        x = max_pool(conv(x, 64, 3), padding=0)
        x = max_pool(conv(conv(x, 80), 192, 3, padding="VALID"), padding=0)
        for pooled in (32, 64, 64):
            x = _thirty_five(conv, x, pooled)
        x = _to_seventeen(conv, x)
        for inner in (128, 160, 160, 192):
            x = _seventeen(conv, x, inner)
        if self.auxiliary:
            y = conv(mean_pool(x, 5, 3), 128)
            y = classify(conv(y, 768, 5, padding="VALID"))
            self.sow("intermediates", "auxiliary_logits", y)
        x = _eight(conv, _eight(conv, _to_eight(conv, x)))
        x = dropout(x.mean(axis=(1, 2), keepdims=True), self.dropout, keys)
        return classify(x)


def _pool(x: jax.Array) -> jax.Array:
    return mean_pool(x, 3, padding=1)


def _thirty_five(conv: Conv, x: jax.Array, pooled: int) -> jax.Array:
    """The module of 35×35 maps (figure 5 there)."""
    parts = [conv(x, 64), conv(conv(x, 48), 64, 5), conv(conv(conv(x, 64), 96, 3), 96, 3)]
    return jnp.concatenate([*parts, conv(_pool(x), pooled)], axis=-1)


def _to_seventeen(conv: Conv, x: jax.Array) -> jax.Array:
    parts = [conv(x, 384, 3, 2, "VALID"), conv(conv(conv(x, 64), 96, 3), 96, 3, 2, "VALID")]
    return jnp.concatenate([*parts, max_pool(x, padding=0)], axis=-1)


def _seventeen(conv: Conv, x: jax.Array, inner: int) -> jax.Array:
    """The module of 17×17 maps (figure 6 there)."""
    ones = conv(x, 192)
    once = conv(conv(conv(x, inner), inner, (1, 7)), 192, (7, 1))
    twice = conv(conv(conv(x, inner), inner, (7, 1)), inner, (1, 7))
    twice = conv(conv(twice, inner, (7, 1)), 192, (1, 7))
    return jnp.concatenate([ones, once, twice, conv(_pool(x), 192)], axis=-1)


def _to_eight(conv: Conv, x: jax.Array) -> jax.Array:
    threes = conv(conv(x, 192), 320, 3, 2, "VALID")
    sevens = conv(conv(conv(x, 192), 192, (1, 7)), 192, (7, 1))
    sevens = conv(sevens, 192, 3, 2, "VALID")
    return jnp.concatenate([threes, sevens, max_pool(x, padding=0)], axis=-1)


def _eight(conv: Conv, x: jax.Array) -> jax.Array:
    """The module of 8×8 maps (figure 7 there)."""
    parts = [conv(x, 320)]
    once = conv(x, 384)
    parts += [conv(once, 384, (1, 3)), conv(once, 384, (3, 1))]
    twice = conv(conv(x, 448), 384, 3)
    parts += [conv(twice, 384, (1, 3)), conv(twice, 384, (3, 1))]
    return jnp.concatenate([*parts, conv(_pool(x), 192)], axis=-1)
