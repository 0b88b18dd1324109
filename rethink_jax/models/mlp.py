"""The paper's multilayer perceptrons: 1×512 and 3×512 (section 2.1 and appendix A)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rethink_jax.models.layers import at_least_float32, dropout


class MLP(nn.Module):
    """Fully connected ReLU layers, then one linear layer, biases everywhere.

    Attributes:
      num_classes: the number of logits.
      depth: the number of hidden layers.
      width: units in each.
      dropout: the rate after each hidden layer.
      dtype: of the computation.
    """

    num_classes: int
    depth: int = 1
    width: int = 512
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
        """Maps images [n, height, width, channels] to float32 logits [n, num_classes]."""
        x = images.reshape(images.shape[0], -1)
        for i in range(self.depth):
            x = nn.relu(nn.Dense(self.width, dtype=self.dtype)(x))
            x = dropout(x, self.dropout, keys, layer=i)
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(at_least_float32(self.dtype))
