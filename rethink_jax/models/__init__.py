"""The paper's models, each a flax module `(images, mask, train, keys) -> logits`."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rethink_jax.config import require
from rethink_jax.models.alexnet import SmallAlexNet
from rethink_jax.models.inception import SmallInception
from rethink_jax.models.mlp import MLP
from rethink_jax.models.wide_resnet import WideResNet

# Name -> constructor; what it takes of `config.model`, beside the name, comes with it.
MODELS: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "mlp": (MLP, ("depth", "width", "initial_std", "dropout")),
    "small_alexnet": (SmallAlexNet, ("dropout",)),
    "small_inception": (SmallInception, ("batch_norm", "dropout")),
    "wide_resnet": (WideResNet, ("dropout",)),
}

# Of an MLP; with more a compilation takes hours or no memory is large enough.
_MOST = {"depth": 1000, "width": 2**20}


def create(
    model: ConfigDict, num_classes: int, dtype: Any = jnp.float32, axis_name: str | None = None
) -> nn.Module:
    """Returns the flax module that `config.model` names.

    Args:
      model: `config.model`.
      num_classes: the number of logits.
      dtype: of the computation; parameters are float32.
      axis_name: the mapped axis over which BatchNorm sums, or None outside of one.
    """
    constructor, fields = MODELS[model.name]
    extra = {field: model[field] for field in fields}
    if "axis_name" in constructor.__annotations__:
        extra["axis_name"] = axis_name
    return constructor(num_classes=num_classes, dtype=dtype, **extra)


def count_parameters(module: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Returns the number of parameters of a model for images [height, width, channels]."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def check(config: ConfigDict) -> None:
    """Raises `UserError` for an unknown model, or a size or initial value that it cannot have."""
    model = config.model
    names = ", ".join(MODELS)
    require(model.name is None or model.name in MODELS, "model.name", model.name, f"one of {names}")
    for field, most in _MOST.items():
        require(model[field] >= 1, f"model.{field}", model[field], "1 or more")
        require(model[field] <= most, f"model.{field}", model[field], f"at most {most}")
    std = model.initial_std
    require(std is None or 0 < std <= 1, "model.initial_std", std, "in (0, 1]")
    is_mlp = model.name in (None, "mlp")
    require(
        std is None or is_mlp,
        "model.initial_std",
        std,
        f"left out for {model.name}, which has its own",
    )
