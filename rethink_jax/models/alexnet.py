"""The paper's AlexNet for CIFAR-10 (section 2.1 and appendix A), and AlexNet for ImageNet."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rethink_jax.models.convolution import convolve
from rethink_jax.models.layers import at_least_float32, dropout, local_response_normalization
from rethink_jax.models.pooling import max_pool


class SmallAlexNet(nn.Module):
    """Two stages of 5×5 convolution, 3×3/2 max-pool and local response normalization, then 384-192-K dense.

    The paper prints no initial values. Ours are truncated normals with a standard deviation of 0.05 for
    convolutions and 0.04 for dense layers, and zero for biases.

    Attributes:
      num_classes: the number K of logits.
      dropout: the rate after each hidden dense layer.
      dtype: of the computation.
    """

    num_classes: int
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
        conv_init = nn.initializers.truncated_normal(0.05)
        dense_init = nn.initializers.truncated_normal(0.04)
        x = images
        for _ in range(2):
            conv = nn.Conv(
                64,
                (5, 5),
                kernel_init=conv_init,
                dtype=self.dtype,
                conv_general_dilated=convolve,
            )
            x = nn.relu(conv(x))
            x = local_response_normalization(max_pool(x))
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate((384, 192)):
            x = nn.relu(nn.Dense(width, kernel_init=dense_init, dtype=self.dtype)(x))
            x = dropout(x, self.dropout, keys, layer=i)
        logits = nn.Dense(self.num_classes, kernel_init=dense_init, dtype=self.dtype)(x)
        return logits.astype(at_least_float32(self.dtype))


class AlexNet(nn.Module):
    """Five convolutions with three max-pools, then 4096-4096-K dense (Krizhevsky 2014, arXiv 1404.5997).

    The one-column form, without the two halves and the response normalization of 2012.

    Attributes:
      num_classes: the number K of logits.
      dropout: the rate before each hidden dense layer; the original's is 0.5.
      dtype: of the computation.
    """

    num_classes: int
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

        def conv(
            x: jax.Array, features: int, kernel: int, stride: int = 1, padding: Any = "SAME"
        ) -> jax.Array:
            return nn.relu(
                nn.Conv(
                    features,
                    (kernel, kernel),
                    (stride, stride),
                    padding,
                    kernel_init=nn.initializers.he_normal(),
                    dtype=self.dtype,
                    conv_general_dilated=convolve,
                )(x)
            )

        x = max_pool(conv(images, 64, 11, 4, 2), padding=0)
        x = max_pool(conv(x, 192, 5), padding=0)
        x = conv(conv(conv(x, 384, 3), 256, 3), 256, 3)
        x = max_pool(x, padding=0)
        x = x.reshape(x.shape[0], -1)
        for i in range(2):
            x = dropout(x, self.dropout, keys, layer=i)
            x = nn.relu(nn.Dense(4096, dtype=self.dtype)(x))
        logits = nn.Dense(self.num_classes, dtype=self.dtype)(x)
        return logits.astype(at_least_float32(self.dtype))
