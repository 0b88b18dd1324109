"""Published C-scores (Jiang et al. 2021, arXiv 2002.03206), and how far a run's scores agree with them."""

import math
import re
import zipfile

import numpy as np
from etils import epath

from rethink_jax.errors import UserError, one_line
from rethink_jax.runs.score_table import ScoreTable
from rethink_jax.theory.subsets import rank_correlation

# Below it a published score tells examples apart: three quarters of MNIST's are 1.
HARD = 0.99

_PLACE_IN_CLASS = re.compile(r"train_\D+_(\d+)")


def read_published(file: epath.Path, table: ScoreTable) -> np.ndarray:
    """Reads published scores in the order of a run's examples.

    Args:
      file: a `.npy` of one number for each training example in the order of the data set, or a `.npz` with
        `scores` and `labels`, in that order or in CIFAR-10's original one, which ids such as `train_cat_2970`
        tell.
      table: of the run.

    Returns:
      float64 [n].

    Raises:
      UserError: it cannot be read, or is of other examples.
    """
    loaded = _load(file)
    scores, labels = loaded["scores"], table.true_labels
    if scores.shape != labels.shape:
        raise UserError(
            f"{file} has scores of shape {scores.shape}; the run has {len(labels)} examples"
        )
    if "labels" not in loaded:
        return scores
    own_ids = [] if table.own_ids is None else table.own_ids.tolist()
    places = [_PLACE_IN_CLASS.fullmatch(own_id) for own_id in own_ids]
    order = np.arange(len(labels))
    if places and all(places):
        of_class = {c: np.flatnonzero(loaded["labels"] == c) for c in np.unique(labels)}
        numbers = [int(place[1]) for place in places if place]
        if any(i >= len(of_class[c]) for c, i in zip(labels, numbers, strict=True)):
            raise UserError(f"{file} has too few examples of a class; the run's ids are not of it")
        order = np.array([of_class[c][i] for c, i in zip(labels, numbers, strict=True)])
    if (loaded["labels"][order] != labels).any():
        raise UserError(f"{file} has other labels than the run; its order is another one")
    return scores[order]


def _load(file: epath.Path) -> dict[str, np.ndarray]:
    """Returns a file's arrays; `UserError` where it has no scores."""
    try:
        with file.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            arrays = {"scores": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
        return {**arrays, "scores": np.asarray(arrays["scores"], np.float64)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} has no scores: {one_line(error)}") from error


def within_classes(left: np.ndarray, right: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean of the classes' rank correlations; NaN where a class has none."""
    own = [rank_correlation(left[labels == c], right[labels == c]) for c in np.unique(labels)]
    return float(np.mean([math.nan if value is None else value for value in own]))


def compare(
    scores: np.ndarray, published: np.ndarray, labels: np.ndarray
) -> dict[str, float | None]:
    """Returns the rank correlations of a run's scores with published ones.

    They are over all examples, over those whose published score is below `HARD`, and the mean of those within
    each class; beside them the last one after a shuffle within the classes, as without agreement.

    Args:
      scores: floating [n], NaN where there is none.
      published: floating [n], as `read_published` returns it.
      labels: int [n], the true ones.
    """
    shuffled, rng = published.copy(), np.random.default_rng(0)
    for c in np.unique(labels):
        shuffled[labels == c] = rng.permutation(published[labels == c])
    hard = published < HARD
    return {
        "examples": len(scores),
        "scored": int(np.isfinite(scores).sum()),
        "rank_correlation": rank_correlation(scores, published),
        f"below_{HARD}": rank_correlation(scores[hard], published[hard]),
        "within_classes": within_classes(scores, published, labels),
        "within_classes_shuffled": within_classes(scores, shuffled, labels),
    }
