"""How far do the scores of a run agree with published C-scores?

    python docs/results/cscores.py RUN TRUTH_FILE [SCORE]

RUN is the directory of a finished run of `configs/cscores.py`, or of a training run with records, and SCORE a
column of its `scores.csv`, by default `c_score`. The user brings TRUTH_FILE: a `.npy` of one number for each
training example in the order of the data set, or a `.npz` with `scores` and `labels`, in that order or in
CIFAR-10's original one, which ids such as `train_cat_2970` tell. Jiang et al. publish such files. Prints JSON:
the rank correlation over all examples, over those whose published score is below 0.99, and the mean of those
within each class; beside them the last one after a shuffle within the classes, as without agreement. Not in the
paper.
"""

import csv
import json
import math
import re
import sys
from pathlib import Path

import numpy as np

from rethink_jax.theory.subsets import rank_correlation

# Below it a published score tells examples apart: three quarters of MNIST's are 1.
HARD = 0.99


def read_scores(run: Path, score: str = "c_score") -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns a run's scores, NaN where there is none, labels, and what the examples are called."""
    with (run / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    if score not in rows[0]:
        sys.exit(f"{run}/scores.csv has no column {score!r}; it has {', '.join(rows[0])}")
    scores = [float(row[score] or "nan") for row in rows]
    labels = [int(row["label"]) for row in rows]
    return np.asarray(scores), np.asarray(labels), [row.get("own_id", "") for row in rows]


def read_truth(file: Path, labels: np.ndarray, own_ids: list[str]) -> np.ndarray:
    """Returns the published scores; ends the program where they are not those of these examples."""
    loaded = np.load(file)
    truth = np.asarray(loaded["scores"] if file.suffix == ".npz" else loaded, np.float64)
    if truth.shape != labels.shape:
        sys.exit(f"{file} has scores of shape {truth.shape}; the run has {len(labels)} examples")
    ranks = [re.fullmatch(r"train_\D+_(\d+)", own_id) for own_id in own_ids]
    if file.suffix == ".npz" and all(ranks):
        places = {c: np.flatnonzero(loaded["labels"] == c) for c in np.unique(labels)}
        return truth[
            [places[c][int(rank[1])] for c, rank in zip(labels, ranks, strict=True) if rank]
        ]
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
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    scores, labels, own_ids = read_scores(Path(sys.argv[1]), *sys.argv[3:])
    truth = read_truth(Path(sys.argv[2]), labels, own_ids)
    print(json.dumps(compare(scores, truth, labels), indent=2))


if __name__ == "__main__":
    main()
