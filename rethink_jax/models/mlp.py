"""The paper's multilayer perceptrons: 1×512 and 3×512 (section 2.1 and appendix A)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rethink_jax.models.layers import at_least_float32, dropout


class MLP(nn.Module):
    """Fully connected ReLU layers, then one linear layer, all with biases.

    The paper prints no initial values. Ours are LeCun's, a truncated normal of variance 1/inputs, and zero for
    biases.

    Attributes:
      num_classes: the number of logits.
      depth: the number of hidden layers.
      width: the number of units in each.
      initial_std: standard deviation of all kernels, before truncation at twice that; None for LeCun's.
      dropout: the rate after each hidden layer.
      dtype: of the computation.
    """

    num_classes: int
    depth: int = 1
    width: int = 512
    initial_std: float | None = None
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
        init = nn.initializers.lecun_normal()
        if self.initial_std is not None:
            init = nn.initializers.truncated_normal(self.initial_std)
        x = images.reshape(images.shape[0], -1)
        for i in range(self.depth):
            x = nn.relu(nn.Dense(self.width, kernel_init=init, dtype=self.dtype)(x))
            x = dropout(x, self.dropout, keys, layer=i)
        logits = nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype)(x)
        return logits.astype(at_least_float32(self.dtype))
