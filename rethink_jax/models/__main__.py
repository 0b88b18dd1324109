"""`python -m rethink_jax.models`: the models, their parameters, and how many there are for each example."""

import sys

import jax
from rich.console import Console
from rich.table import Table

from rethink_jax import errors, output, paper
from rethink_jax.models.parameter_counts import IMAGENET, VARIANTS, cifar10_counts, imagenet_counts


def _print(title: str, examples: int, rows: list[tuple[str, str, int]]) -> None:
    table = Table(title=title)
    table.add_column("model")
    table.add_column("--config.model.", style="dim")
    table.add_column("parameters p", justify="right")
    table.add_column("p/n", justify="right")
    for name, flags, parameters in rows:
        table.add_row(name, flags, f"{parameters:,}", f"{parameters / examples:.1f}")
    Console(soft_wrap=True).print(table)


def _flags(fields: dict[str, object]) -> str:
    return " ".join(f"{field}={value}" for field, value in fields.items())


def main(argv: list[str]) -> None:
    """Prints the tables."""
    if argv:
        raise errors.UserError(f"{argv[0]!r} is given; there are no arguments")
    _print(
        f"Models for CIFAR-10: n = {paper.CIFAR10_TRAIN:,} training examples, 28×28 crops",
        paper.CIFAR10_TRAIN,
        [(title, _flags(VARIANTS[title]), number) for title, number in cifar10_counts().items()],
    )
    _print(
        f"Models for ImageNet: n = {paper.IMAGENET_TRAIN:,} training examples",
        paper.IMAGENET_TRAIN,
        [(IMAGENET[name], f"name={name}", number) for name, number in imagenet_counts().items()],
    )


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # for shapes, which need no accelerator
    output.drop_what_cannot_be_written()
    with errors.exit_on_error():
        main(sys.argv[1:])
