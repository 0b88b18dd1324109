"""Wide ResNet 28-1, which the paper's authors train in their public demonstration instead of the paper's
models.

Zagoruyko and Komodakis 2016 (arXiv 1605.07146): pre-activation blocks of two 3×3 convolutions.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rethink_jax.models.convolution import convolve
from rethink_jax.models.layers import BatchNorm, at_least_float32, dropout

_BLOCKS = 4  # in each of three groups: 28 layers
_FEATURES = (16, 32, 64)  # times a widening of 1


class WideResNet(nn.Module):
    """A 3×3 convolution, three groups of four residual blocks, mean pool, one linear layer.

    Attributes:
      num_classes: the number of logits.
      dropout: the rate before the linear layer.
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

        def conv(x: jax.Array, features: int, kernel: int = 3, stride: int = 1) -> jax.Array:
            return nn.Conv(
                features,
                (kernel, kernel),
                (stride, stride),
                use_bias=False,
                kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
                dtype=self.dtype,
                conv_general_dilated=convolve,
            )(x)

        def activate(x: jax.Array) -> jax.Array:
            return nn.relu(BatchNorm(self.axis_name, epsilon=1e-5, scale=True)(x, mask, train))

        def block(x: jax.Array, features: int, stride: int) -> jax.Array:
            active = activate(x)
            y = conv(activate(conv(active, features, stride=stride)), features)
            same = x.shape[-1] == features
            return y + (x if same else conv(active, features, kernel=1, stride=stride))

        x = conv(images, _FEATURES[0])
        for group, features in enumerate(_FEATURES):
            for i in range(_BLOCKS):
                x = block(x, features, stride=2 if group > 0 and i == 0 else 1)
        x = dropout(activate(x).mean(axis=(1, 2)), self.dropout, keys)
        logits = nn.Dense(self.num_classes, dtype=self.dtype)(x)
        return logits.astype(at_least_float32(self.dtype))
