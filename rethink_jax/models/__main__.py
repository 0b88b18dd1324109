"""`python -m rethink_jax.models`: the models, their parameters, and how many there are for each example."""

import sys
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from rethink_jax import config as config_lib, models, output

CIFAR10_TRAIN, IMAGENET_TRAIN = 50_000, 1_281_167
IMAGE_SHAPE = (28, 28, 3)
VARIANTS: dict[str, dict[str, Any]] = {
    "small Inception": {"name": "small_inception"},
    "small Inception w/o BatchNorm": {"name": "small_inception", "batch_norm": False},
    "small AlexNet": {"name": "small_alexnet"},
    "MLP 3×512": {"name": "mlp", "depth": 3},
    "MLP 1×512": {"name": "mlp", "depth": 1},
    "Wide ResNet 28-1": {"name": "wide_resnet"},
}


# The side of the images, and the number of classes, where the original differs from 224 pixels and 1,000.
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


def parameter_counts() -> dict[str, int]:
    """Returns the parameters of each of the CIFAR-10 models, for 28×28 crops and 10 classes."""
    return {title: count(fields, 10, IMAGE_SHAPE) for title, fields in VARIANTS.items()}


def imagenet_counts() -> dict[str, int]:
    """Returns the parameters of each of the ImageNet models, by its name in `config.model`."""
    return {
        name: count({"name": name}, _CLASSES.get(name, 1000), (*2 * (_SIDES.get(name, 224),), 3))
        for name in IMAGENET
    }


def _print(title: str, examples: int, rows: list[tuple[str, str, int]]) -> None:
    table = Table(title=title)
    table.add_column("model")
    table.add_column("--config.model.", style="dim")
    table.add_column("parameters p", justify="right")
    table.add_column("p/n", justify="right")
    for name, flags, parameters in rows:
        table.add_row(name, flags, f"{parameters:,}", f"{parameters / examples:.1f}")
    Console(soft_wrap=True).print(table)


def main() -> None:
    """Prints the tables."""
    _print(
        "Models for CIFAR-10: n = 50,000 training examples, 28×28 crops",
        CIFAR10_TRAIN,
        [
            (
                title,
                " ".join(f"{field}={value}" for field, value in VARIANTS[title].items()),
                number,
            )
            for title, number in parameter_counts().items()
        ],
    )
    _print(
        "Models for ImageNet: n = 1,281,167 training examples",
        IMAGENET_TRAIN,
        [(IMAGENET[name], f"name={name}", number) for name, number in imagenet_counts().items()],
    )


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # for shapes, which need no accelerator
    output.drop_what_cannot_be_written()
    if sys.argv[1:]:
        print(f"rethink_jax: {sys.argv[1]!r} is given; there are no arguments", file=sys.stderr)
        sys.exit(2)
    main()
