"""How many parameters the models have, counted by their shapes."""

from typing import Any

from rethink_jax import config as config_lib, models

IMAGE_SHAPE = (28, 28, 3)
VARIANTS: dict[str, dict[str, Any]] = {
    "small Inception": {"name": "small_inception"},
    "small Inception w/o BatchNorm": {"name": "small_inception", "batch_norm": False},
    "small AlexNet": {"name": "small_alexnet"},
    "MLP 3×512": {"name": "mlp", "depth": 3},
    "MLP 1×512": {"name": "mlp", "depth": 1},
    "Wide ResNet 28-1": {"name": "wide_resnet"},
}

# The side of the images and the number of classes, if the original's differ from 224 pixels and 1,000.
_SIDES = {"inception_v3": 299, "inception_v4": 299}
_CLASSES = {"inception_v4": 1001}
IMAGENET = {
    "alexnet": "AlexNet",
    "inception_v3": "Inception V3",
    "inception_v4": "Inception V4, 1,001 classes",
    **{f"resnet{layers}": f"ResNet-{layers}" for layers in (18, 34, 50, 101, 152)},
    **{f"vgg{layers}": f"VGG-{layers}" for layers in (11, 13, 16, 19)},
}


def count(fields: dict[str, Any], num_classes: int, image_shape: tuple[int, int, int]) -> int:
    """Returns the parameters of a model with these fields of `config.model`."""
    model = config_lib.base().model
    model.update(fields)
    return models.count_parameters(models.create(model, num_classes), image_shape)


def cifar10_counts() -> dict[str, int]:
    """Returns the parameters of each of the CIFAR-10 models, for 28×28 crops and 10 classes."""
    return {title: count(fields, 10, IMAGE_SHAPE) for title, fields in VARIANTS.items()}


def imagenet_counts() -> dict[str, int]:
    """Returns the parameters of each of the ImageNet models, by its name in `config.model`."""
    return {
        name: count({"name": name}, _CLASSES.get(name, 1000), (*2 * (_SIDES.get(name, 224),), 3))
        for name in IMAGENET
    }
