"""`python -m rethink_jax.models`: the models, their parameters, and how many there are for each example."""

from typing import Any

from rich.console import Console
from rich.table import Table

from rethink_jax import config as config_lib, models

CIFAR10_TRAIN = 50_000
IMAGE_SHAPE = (28, 28, 3)
VARIANTS: dict[str, dict[str, Any]] = {
    "small Inception": {"name": "small_inception"},
    "small Inception w/o BatchNorm": {"name": "small_inception", "batch_norm": False},
    "small AlexNet": {"name": "small_alexnet"},
    "MLP 3×512": {"name": "mlp", "depth": 3},
    "MLP 1×512": {"name": "mlp", "depth": 1},
    "Wide ResNet 28-1": {"name": "wide_resnet"},
}


def parameter_counts() -> dict[str, int]:
    """Returns the parameters of each of the CIFAR-10 models, for 28×28 crops and 10 classes."""
    counts = {}
    for title, fields in VARIANTS.items():
        model = config_lib.base().model
        model.update(fields)
        counts[title] = models.count_parameters(models.create(model, 10), IMAGE_SHAPE)
    return counts


def main() -> None:
    """Prints the table."""
    table = Table(title="Models for CIFAR-10: n = 50,000 training examples, 28×28 crops")
    table.add_column("model")
    table.add_column("--config.model.", style="dim")
    table.add_column("parameters p", justify="right")
    table.add_column("p/n", justify="right")
    for title, count in parameter_counts().items():
        flags = " ".join(f"{field}={value}" for field, value in VARIANTS[title].items())
        table.add_row(title, flags, f"{count:,}", f"{count / CIFAR10_TRAIN:.1f}")
    Console(soft_wrap=True).print(table)


if __name__ == "__main__":
    main()
