"""Layers that several model families share, and those in which flax differs from what the paper needs."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rethink_jax.corruptions import pinned
from rethink_jax.models.convolution import convolve


def at_least_float32(dtype: Any) -> Any:
    """Returns the dtype of the statistics and logits of a computation in `dtype`."""
    return jnp.float32 if jnp.dtype(dtype).itemsize < 4 else dtype


class BatchNorm(nn.Module):
    """Batch normalization with an offset, whose statistics ignore padding.

    Sums and counts over the examples of all devices are added and divided once, so the result does not depend
    on the number of devices or on how many examples each has. Flax's own averages per-device means. The
    paper's models have no scale, as its parameter counts show.

    Attributes:
      axis_name: the mapped axis to sum over, or None.
      momentum: of the running mean and variance. Not stated in the paper; our choice.
      epsilon: added to the variance. Not stated in the paper; our choice.
      scale: whether there is a scale beside the offset.
    """

    axis_name: str | None
    momentum: float = 0.9
    epsilon: float = 1e-3
    scale: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, train: bool) -> jax.Array:
        """Normalizes each channel.

        Args:
          x: floating [n, height, width, channels].
          mask: bool [n], False for padding.
          train: whether to use and record this batch's statistics; otherwise the running ones are used.

        Returns:
          An array like `x`.
        """
        channels, precise = x.shape[-1], at_least_float32(x.dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, precise)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, precise)
        offset = self.param("bias", nn.initializers.zeros, (channels,), precise)
        if train:
            mean, var = self._statistics(x.astype(precise), mask)
            if not self.is_initializing():
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * var
        else:
            mean, var = running_mean.value, running_var.value
        scale = lax.rsqrt(var + self.epsilon)
        if self.scale:
            scale *= self.param("scale", nn.initializers.ones, (channels,), precise)
        shape = (1, 1, 1, channels)
        normalized = x.astype(precise) - mean.reshape(shape)
        normalized = normalized * scale.reshape(shape) + offset.reshape(shape)
        return normalized.astype(x.dtype)

    def _statistics(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        def total(value: jax.Array) -> jax.Array:
            alone = self.axis_name is None or self.is_initializing()
            return value if alone else lax.psum(value, self.axis_name)

        weight = mask.astype(x.dtype)
        count = total(weight.sum()) * (x.shape[1] * x.shape[2])
        mean = total(weight @ x.sum(axis=(1, 2))) / count
        # Deviations from the mean add up to 0, so that the variance's gradient by the mean is 0.
        centered = x - lax.stop_gradient(mean)[None, None, None]
        var = total(weight @ jnp.square(centered).sum(axis=(1, 2))) / count
        return mean, var


class ConvUnit(nn.Module):
    """Convolution, BatchNorm, ReLU: the unit of the paper's Inception (figure 3).

    With BatchNorm the convolution has no bias; without, it has one instead of BatchNorm's offset.

    Attributes:
      features: the number of filters.
      kernel: side of the filters, or their height and width.
      stride: of the convolution.
      batch_norm: whether there is a BatchNorm.
      dtype: of the computation.
      axis_name: the mapped axis of BatchNorm's sums, or None.
      padding: as flax's Conv takes it.
      scale: as BatchNorm's.
      epsilon: as BatchNorm's.
      relu: whether there is a ReLU.
      kernel_init: of the filters.
    """

    features: int
    kernel: int | tuple[int, int] = 3
    stride: int = 1
    batch_norm: bool = True
    dtype: Any = jnp.float32
    axis_name: str | None = None
    padding: Any = "SAME"
    scale: bool = False
    epsilon: float = 1e-3
    relu: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, train: bool) -> jax.Array:
        """Maps [n, height, width, channels]; with SAME to [n, ⌈height/stride⌉, ⌈width/stride⌉, features]."""
        x = nn.Conv(
            self.features,
            2 * (self.kernel,) if isinstance(self.kernel, int) else self.kernel,
            (self.stride, self.stride),
            self.padding,
            use_bias=not self.batch_norm,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            conv_general_dilated=convolve,
        )(x)
        if self.batch_norm:
            norm = BatchNorm(self.axis_name, epsilon=self.epsilon, scale=self.scale)
            x = norm(x, mask, train)
        return nn.relu(x) if self.relu else x


Conv = Callable[..., jax.Array]


def conv_units(mask: jax.Array, train: bool, dtype: Any, axis_name: str | None) -> Conv:
    """Returns a function that applies a new `ConvUnit` of ImageNet's Inceptions, whose BatchNorm has a scale.

    Call it inside a module's `__call__`; the function takes x, features, kernel, stride and padding.

    Args:
      mask: as ConvUnit's.
      train: as ConvUnit's.
      dtype: of the computation.
      axis_name: the mapped axis of BatchNorm's sums, or None.
    """

    def conv(
        x: jax.Array,
        features: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: Any = "SAME",
    ) -> jax.Array:
        unit = ConvUnit(
            features,
            kernel,
            stride,
            dtype=dtype,
            axis_name=axis_name,
            padding=padding,
            scale=True,
            kernel_init=nn.initializers.he_normal(),
        )
        return unit(x, mask, train)

    return conv


def dropout(x: jax.Array, rate: float, keys: jax.Array | None, layer: int = 0) -> jax.Array:
    """Zeroes values at a rate and scales up the others. Flax's own draws by position in the batch, this by key.

    Args:
      x: floating [n, ...].
      rate: in [0, 1).
      keys: PRNG keys [n], one for each example; None disables dropout.
      layer: keeps the draws of several layers apart.
    """
    if keys is None or not rate:
        return x

    @pinned
    def keep(key: jax.Array) -> jax.Array:
        chance = jnp.float32(1 - rate)
        return jax.random.bernoulli(jax.random.fold_in(key, layer), chance, x.shape[1:])

    return jnp.where(jax.vmap(keep)(keys), x / (1 - rate), jnp.zeros_like(x))


def local_response_normalization(
    x: jax.Array, radius: int = 4, bias: float = 1.0, alpha: float = 0.001 / 9, beta: float = 0.75
) -> jax.Array:
    """Divides by (bias + alpha Σ x²)^beta, the sum over the channels within a radius (Krizhevsky et al. 2012).

    The sum over neighbouring channels is one product with a banded matrix.

    Args:
      x: floating [..., channels].
      radius: channels on either side.
      bias: added to the sum.
      alpha: weight of each square.
      beta: exponent.

    Returns:
      An array like `x`.
    """
    channel = np.arange(x.shape[-1])
    band = np.abs(channel[:, None] - channel) <= radius
    sums = jnp.square(x) @ jnp.asarray(band, x.dtype)
    return x * jnp.exp(
        -beta * jnp.log(bias + alpha * sums)
    )  # XLA's power takes three times as long on a CPU
