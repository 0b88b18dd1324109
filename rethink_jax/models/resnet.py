"""ResNets for ImageNet (He, Zhang, Ren and Sun 2015, arXiv 1512.03385)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rethink_jax.models.layers import ConvUnit, at_least_float32, dropout
from rethink_jax.models.pooling import max_pool

# Blocks in each of the four groups (their table 1); with 50 layers or more a block has three convolutions.
_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResNet(nn.Module):
    """A 7×7 convolution, max-pool, four groups of residual blocks, mean pool, one linear layer.

    Where a group halves the side, a block of three convolutions does so in its 3×3 convolution and not in the
    first 1×1, as has become common.

    Attributes:
      num_classes: the number of logits.
      layers: 18, 34, 50, 101 or 152.
      dropout: the rate before the linear layer; the original has none.
      dtype: of the computation.
      axis_name: the mapped axis of BatchNorm's sums, or None.
    """

    num_classes: int
    layers: int
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

        def conv(
            x: jax.Array, features: int, kernel: int, stride: int = 1, relu: bool = True
        ) -> jax.Array:
            return ConvUnit(
                features,
                kernel,
                stride,
                dtype=self.dtype,
                axis_name=self.axis_name,
                padding="SAME" if stride == 1 else kernel // 2,
                scale=True,
                epsilon=1e-5,
                relu=relu,
                kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
            )(x, mask, train)

        def block(x: jax.Array, features: int, stride: int) -> jax.Array:
            if self.layers < 50:
                y = conv(conv(x, features, 3, stride), features, 3, relu=False)
            else:
                y = conv(conv(x, features, 1), features, 3, stride)
                y = conv(y, 4 * features, 1, relu=False)
            if x.shape != y.shape:
                x = conv(x, y.shape[-1], 1, stride, relu=False)
            return nn.relu(x + y)

        x = max_pool(conv(images, 64, 7, 2), padding=1)
        for group, blocks in enumerate(_BLOCKS[self.layers]):
            for i in range(blocks):
                x = block(x, 64 * 2**group, stride=2 if group > 0 and i == 0 else 1)
        x = dropout(x.mean(axis=(1, 2)), self.dropout, keys)
        logits = nn.Dense(self.num_classes, dtype=self.dtype)(x)
        return logits.astype(at_least_float32(self.dtype))
