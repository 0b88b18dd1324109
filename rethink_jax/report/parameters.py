"""Parameters over training examples, p/n: the project's own models beside the paper's counts."""

import functools

from rethink_jax import paper
from rethink_jax.models.parameter_counts import cifar10_counts
from rethink_jax.report.figures import Picture, ratios
from rethink_jax.report.tables import NOTHING, Table

TEXT = (
    "The classical picture, the trade-off between bias and variance, expects a model to generalize that "
    "has fewer parameters p than there are training examples n, and to overfit beyond p = n. All of these "
    "models lie beyond it. The counts for CIFAR-10 are those of this project's models, those for ImageNet "
    "the authors'."
)


@functools.cache
def compare() -> tuple[Table, Picture]:
    """Returns p/n of every model as a table and as a figure."""
    own = cifar10_counts()
    printed = {size.model: size for size in paper.SIZES if size.data == "CIFAR-10"}
    sizes = [
        *((name, "CIFAR-10", count, printed.get(name)) for name, count in own.items()),
        *((s.model, s.data, None, s) for s in paper.SIZES if s.model not in own),
    ]
    rows, models = [], []
    for name, data, count, size in sizes:
        parameters = count or (size.parameters if size else 0)
        n = size.examples if size else paper.CIFAR10_TRAIN
        models.append((name, data, parameters / n))
        rows.append(
            [
                *(name, data, f"{n:,}", f"{count:,}" if count else NOTHING),
                *(f"{size.parameters:,}" if size else NOTHING, f"{parameters / n:.1f}"),
                str(size.ratio) if size and size.ratio else NOTHING,
            ]
        )
    columns = ["model", "data", "n", "p: ours", "paper", "p/n", "paper"]
    return Table(columns, rows), ratios(models)
