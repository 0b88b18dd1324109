"""How much of a score can a classifier without training tell? Margins of a ridge on random features.

    python docs/results/ridge_scores.py DATA DATA_DIR OUT

DATA is `mnist` or `cifar10_jpeg`. A ridge on 2,000 random ReLU features of the whitened images is solved on
either half of the training set, and its margins on the other half are written to OUT/scores.csv as `margin`,
which `cscores.py OUT PUBLISHED margin` compares with published C-scores. Not in the paper.
"""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import Ridge

from rethink_jax import config, data
from rethink_jax.pipeline import preprocess
from rethink_jax.runs import score_table

FEATURES, RIDGE = 2000, 1.0


def features(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns random ReLU features with a mean square of about ½, float32 [n, FEATURES]."""
    pixels = np.concatenate(
        [
            np.asarray(preprocess.whiten(jnp.asarray(part))).reshape(len(part), -1)
            for part in np.array_split(images, 20)
        ]
    )
    directions = rng.standard_normal((pixels.shape[1], FEATURES), np.float32)
    return np.maximum(pixels @ (directions / np.sqrt(pixels.shape[1])), 0)


def margins(values: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns each example's label's output less the greatest other one, of a ridge on the other half."""
    targets, found = np.eye(labels.max() + 1)[labels], np.zeros(len(labels))
    halves = np.array_split(rng.permutation(len(labels)), 2)
    for here, there in (halves, halves[::-1]):
        outputs = Ridge(alpha=RIDGE).fit(values[there], targets[there]).predict(values[here])
        rows = np.arange(len(here))
        own = outputs[rows, labels[here]]
        outputs[rows, labels[here]] = -np.inf
        found[here] = own - outputs.max(axis=1)
    return found


def main(name: str, data_dir: str, out: str) -> None:
    """Writes the table of scores."""
    settings = config.train(name, corruption="true_labels")
    settings.data.data_dir = data_dir
    train = data.load(settings.data).train
    rng = np.random.default_rng(0)
    found = margins(features(train.images, rng), train.labels, rng)
    table = score_table.ScoreTable(train.labels, train.labels, train.own_ids, {"margin": found})
    Path(out).mkdir(parents=True, exist_ok=True)
    (Path(out) / "scores.csv").write_text(score_table.to_csv(table))
    print(f"right on {np.mean(found > 0):.2%} of the other halves")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
