"""The paper's small Inception for CIFAR-10, with and without BatchNorm (figure 3 of the paper)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from rethink_jax.models.layers import ConvUnit, at_least_float32, dropout
from rethink_jax.models.pooling import max_pool


class SmallInception(nn.Module):
    """A 3×3 convolution, eight Inception and two downsampling modules, mean pool, one linear layer.

    Attributes:
      num_classes: the number of logits.
      batch_norm: whether each convolution is followed by BatchNorm.
      dropout: the rate before the linear layer.
      dtype: of the computation.
      axis_name: the mapped axis of BatchNorm's sums, or None.
    """

    num_classes: int
    batch_norm: bool = True
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
        """Maps images [n, height, width, channels] to float32 logits [n, num_classes].

        Args:
          images: floating [n, height, width, channels].
          mask: bool [n], False for padding, which BatchNorm's statistics leave out; None: no padding.
          train: whether BatchNorm uses the batch's statistics and updates its running ones.
          keys: PRNG keys [n], one for each example's dropout; None disables dropout.
        """
        if mask is None:
            mask = jnp.ones(images.shape[0], bool)

        def conv(x: jax.Array, features: int, kernel: int = 3, stride: int = 1) -> jax.Array:
            unit = ConvUnit(features, kernel, stride, self.batch_norm, self.dtype, self.axis_name)
            return unit(x, mask, train)

        x = conv(images, 96)
        for module in (
            partial(_inception, ones=32, threes=32),
            partial(_inception, ones=32, threes=48),
            partial(_downsample, threes=80),
            partial(_inception, ones=112, threes=48),
            partial(_inception, ones=96, threes=64),
            partial(_inception, ones=80, threes=80),
            partial(_inception, ones=48, threes=96),
            partial(_downsample, threes=96),
            partial(_inception, ones=176, threes=160),
            partial(_inception, ones=176, threes=160),
        ):
            x = module(conv, x)
        x = dropout(x.mean(axis=(1, 2)), self.dropout, keys)
        logits = nn.Dense(self.num_classes, dtype=self.dtype)(x)
        return logits.astype(at_least_float32(self.dtype))


def _inception(conv: Callable[..., jax.Array], x: jax.Array, ones: int, threes: int) -> jax.Array:
    return jnp.concatenate([conv(x, ones, kernel=1), conv(x, threes)], axis=-1)


def _downsample(conv: Callable[..., jax.Array], x: jax.Array, threes: int) -> jax.Array:
    # Without the barrier XLA computes parts of the pool's gradient again for each of what follows on a CPU.
    pooled = max_pool(lax.optimization_barrier(x))
    return jnp.concatenate([conv(x, threes, stride=2), pooled], axis=-1)
