"""How far do the C-scores of a run agree with published ones?

    python docs/results/cscores.py RUN TRUTH_FILE

RUN is the directory of a finished run of `configs/cscores.py`, and TRUTH_FILE a file of scores in the order of
the data set, which the user brings: a `.npy` of one number for each training example, or a `.npz` with `scores`
and `labels`. Jiang et al. publish such files. Prints JSON: the rank correlation over all examples, over those
whose published score is below 0.99, and the mean of those within each class; beside them the last one after a
shuffle within the classes, which is what no agreement gives. Not part of the paper.
"""

import csv
import json
import math
import sys
from pathlib import Path

import numpy as np

from rethink_jax.theory.subsets import rank_correlation

# Below it a published score tells examples apart: three quarters of MNIST's are 1.
HARD = 0.99


def read_scores(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns a run's C-scores, NaN where there is none, and labels."""
    with (run / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["c_score"] or "nan") for row in rows]
    return np.asarray(scores), np.asarray([int(row["label"]) for row in rows])


def read_truth(file: Path, labels: np.ndarray) -> np.ndarray:
    """Returns the published scores; ends the program where they are not those of these examples."""
    loaded = np.load(file)
    truth = np.asarray(loaded["scores"] if file.suffix == ".npz" else loaded, np.float64)
    if truth.shape != labels.shape:
        sys.exit(f"{file} has scores of shape {truth.shape}; the run has {len(labels)} examples")
    if file.suffix == ".npz" and (np.asarray(loaded["labels"]) != labels).any():
        sys.exit(f"{file} has other labels than the run; its order is another one")
    return truth


def within_classes(scores: np.ndarray, truth: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean of the classes' rank correlations."""
    own = [rank_correlation(scores[labels == c], truth[labels == c]) for c in np.unique(labels)]
    return float(np.mean([math.nan if value is None else value for value in own]))


def compare(scores: np.ndarray, truth: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Returns the rank correlations of two sets of scores."""
    shuffled, rng = truth.copy(), np.random.default_rng(0)
    for c in np.unique(labels):
        shuffled[labels == c] = rng.permutation(truth[labels == c])
    hard = truth < HARD
    return {
        "examples": len(scores),
        "scored": int(np.isfinite(scores).sum()),
        "rank_correlation": rank_correlation(scores, truth),
        f"below_{HARD}": rank_correlation(scores[hard], truth[hard]),
        "within_classes": within_classes(scores, truth, labels),
        "within_classes_shuffled": within_classes(scores, shuffled, labels),
    }


def main() -> None:
    """Compares the files that the command line names."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    scores, labels = read_scores(Path(sys.argv[1]))
    print(json.dumps(compare(scores, read_truth(Path(sys.argv[2]), labels), labels), indent=2))


if __name__ == "__main__":
    main()
