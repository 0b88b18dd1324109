"""VGG networks for ImageNet (Simonyan and Zisserman 2014, arXiv 1409.1556)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rethink_jax.models.convolution import convolve
from rethink_jax.models.layers import at_least_float32, dropout
from rethink_jax.models.pooling import max_pool

# Convolutions in each of the five groups (their table 1, configurations A, B, D and E).
_CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
_FEATURES = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Five groups of 3×3 convolutions and a 2×2 max-pool, then 4096-4096-K dense.

    Attributes:
      num_classes: the number K of logits.
      layers: 11, 13, 16 or 19.
      dropout: the rate after each hidden dense layer; the original's is 0.5.
      dtype: of the computation.
    """

    num_classes: int
    layers: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

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
        x = images
        for features, convolutions in zip(_FEATURES, _CONVOLUTIONS[self.layers], strict=True):
            for _ in range(convolutions):
                conv = nn.Conv(
                    features,
                    (3, 3),
                    kernel_init=nn.initializers.he_normal(),
                    dtype=self.dtype,
                    conv_general_dilated=convolve,
                )
                x = nn.relu(conv(x))
            x = max_pool(x, 2, padding=0)
        x = x.reshape(x.shape[0], -1)
        for i in range(2):
            x = nn.relu(nn.Dense(4096, dtype=self.dtype)(x))
            x = dropout(x, self.dropout, keys, layer=i)
        logits = nn.Dense(self.num_classes, dtype=self.dtype)(x)
        return logits.astype(at_least_float32(self.dtype))
