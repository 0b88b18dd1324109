"""What the parts of a kernel run share, and the inner products that a solve begins with."""

import functools
import time
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import data
from rethink_jax.distributed import processes
from rethink_jax.kernels.features import Features
from rethink_jax.kernels.matrix import NO_CHOICE, InnerProducts, default_dtype
from rethink_jax.runs import files
from rethink_jax.runs.own_files import SECONDS
from rethink_jax.runs.run_in_parts import Show

# The file has gigabytes.
_SAVE_PRODUCTS_SECONDS = 600


class Session(NamedTuple):
    """A kernel run underway.

    Attributes:
      config: of the run.
      path: its directory.
      dataset: with both splits.
      show: is told in words which part is computed and its fraction done; raises `Stopped` after a signal.
      started: `time.monotonic()` at the start, less what the run took before it was interrupted.
    """

    config: ConfigDict
    path: epath.Path
    dataset: data.Dataset
    show: Show
    started: float

    def seconds(self) -> float:
        """Returns how long the run took so far, with the time before interruptions."""
        return time.monotonic() - self.started

    def keep_seconds(self) -> None:
        """Writes the seconds so far, for a run that resumes."""
        files.write_json(self.path / SECONDS, {"seconds": self.seconds()})


def seconds_before(path: epath.Path) -> float:
    """Returns the seconds that a run in this directory took before it was interrupted."""
    return files.read_json(path / SECONDS).get("seconds", 0) if (path / SECONDS).exists() else 0


class LabelledProducts(NamedTuple):
    """Inner products of some examples' features, and the examples' labels.

    Attributes:
      products: of training examples with each other and with test points.
      labels: int32 [n].
      test_labels: int32 [m], of the test points.
    """

    products: InnerProducts
    labels: np.ndarray
    test_labels: np.ndarray


def compute_products(
    session: Session,
    features: Features,
    examples: data.Examples,
    test_points: data.Examples,
    title: str,
    checked: np.ndarray | None = None,
    file: epath.Path | None = None,
    choice: str = NO_CHOICE,
) -> LabelledProducts:
    """Computes the inner products of examples with each other and with test points.

    Args:
      session: of the run.
      features: what the kernel sees of the images.
      examples: of the training set.
      test_points: of the test set, or held out of the training set.
      title: of what is shown.
      checked: as for `InnerProducts`.
      file: keeps the products; parts that it has already are not computed again.
      choice: tells the features from others, whose products the file may have.
    """
    n, solver = len(examples.labels), session.config.solver
    dtype = np.dtype(solver.dtype or default_dtype(n))
    centered = session.config.kernel.name != "linear"
    products = InnerProducts(n, len(test_points.labels), dtype, checked, centered)
    images = np.concatenate([examples.images, test_points.images])
    first = products.restore(file, choice) if file is not None and file.exists() else 0
    halves_done, saved_at = 2 * first, time.monotonic()

    def show(fraction: float) -> None:
        session.show(f"{title}: matrix", (halves_done + fraction) / (2 * features.parts))

    for part in range(first, features.parts):
        values = features.compute(images, part, n, show)
        halves_done += 1
        products.add(values, show)
        halves_done += 1
        is_due = time.monotonic() > saved_at + _SAVE_PRODUCTS_SECONDS
        if file is not None and (is_due or part == features.parts - 1):
            save = functools.partial(products.save, parts=part + 1, choice=choice)
            processes.on_primary(functools.partial(files.write_whole, file, save))
            processes.on_primary(session.keep_seconds)
            saved_at = time.monotonic()
    return LabelledProducts(products, examples.labels, test_points.labels)


def solver_settings(config: ConfigDict) -> dict[str, Any]:
    """Returns the settings that decide whether a solve reaches its tolerance."""
    return {name: value for name, value in config.solver.items() if name != "save_seconds"}
