"""The paper's models, each a flax module `(images, mask, train, keys) -> logits`."""

import math
import pkgutil
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict


class Model(NamedTuple):
    """What a name in `config.model` stands for.

    Attributes:
      module: its class, in a file of this folder, which is not imported before it is needed.
      fields: the fields of `config.model` that it takes, beside the name.
      fixed: its other settings.
      smallest_side: the smallest side of the images, in pixels.
      hidden_dense: whether there are dense layers before the last one.
      convolutions: whether there are any.
    """

    module: str
    fields: tuple[str, ...]
    fixed: dict[str, Any] = {}  # noqa: RUF012
    smallest_side: int = 1
    hidden_dense: bool = False
    convolutions: bool = True


_DROPOUT = ("dropout",)
MODELS = {
    "mlp": Model(
        "mlp:MLP",
        ("depth", "width", "initial_std", "dropout"),
        hidden_dense=True,
        convolutions=False,
    ),
    "small_alexnet": Model("alexnet:SmallAlexNet", _DROPOUT, hidden_dense=True),
    "small_inception": Model("inception:SmallInception", ("batch_norm", "dropout")),
    "wide_resnet": Model("wide_resnet:WideResNet", _DROPOUT),
    "alexnet": Model("alexnet:AlexNet", _DROPOUT, smallest_side=63, hidden_dense=True),
    "inception_v3": Model("inception_v3:InceptionV3", ("dropout", "auxiliary"), smallest_side=75),
    "inception_v4": Model("inception_v4:InceptionV4", _DROPOUT, smallest_side=75),
    **{
        f"resnet{layers}": Model("resnet:ResNet", _DROPOUT, {"layers": layers})
        for layers in (18, 34, 50, 101, 152)
    },
    **{
        f"vgg{layers}": Model(
            "vgg:VGG", _DROPOUT, {"layers": layers}, smallest_side=32, hidden_dense=True
        )
        for layers in (11, 13, 16, 19)
    },
}


def create(
    model: ConfigDict, num_classes: int, dtype: Any = jnp.float32, axis_name: str | None = None
) -> nn.Module:
    """Returns the flax module that `config.model` names.

    Args:
      model: `config.model`.
      num_classes: the number of logits.
      dtype: of the computation; parameters are float32.
      axis_name: the mapped axis over which BatchNorm sums; None where nothing is mapped.

    Example:
      >>> from rethink_jax import config
      >>> fields = config.base().model
      >>> fields.update(name="mlp", depth=3)
      >>> module = create(fields, num_classes=10)
      >>> count_parameters(module, (28, 28, 3))
      1735178
    """
    module, fields, fixed, *_ = MODELS[model.name]
    constructor = pkgutil.resolve_name(f"{__name__}.{module}")
    extra = fixed | {field: model[field] for field in fields}
    if "axis_name" in constructor.__annotations__:
        extra["axis_name"] = axis_name
    return constructor(num_classes=num_classes, dtype=dtype, **extra)


def count_parameters(module: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Returns the number of parameters of a model for images [height, width, channels]."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
