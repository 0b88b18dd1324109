"""Labels that people gave CIFAR-10 (Wei et al. 2022), beside labels that are drawn: MLP 1×512.

    python -m rethink_jax.main --config=configs/human_labels.py --config.corruption.file=CIFAR-10_human.pt \
      --workdir=runs/human_labels

The file is the authors' (github.com/UCSC-REAL/cifar-10-100n), or an archive of arrays of the same names. `twin`
is drawn from the transition matrix of the same file, `symmetric` from all other classes at the rate of the
published file. After a colon a data set, a size, or both: `:cifar10_jpeg`, `:small` (1,000 examples),
`:cifar10_jpeg,smoke` (256 examples, three epochs). The digits have no such labels. Not in the paper.
"""

from ml_collections import ConfigDict

from rethink_jax import config
from rethink_jax.config import sweep_entry as entry

# The share of wrong labels in the published file.
RATES = {"aggregate": 0.0901, "worst": 0.40208}


def get_config(argument: str = "") -> ConfigDict:
    runs = []
    for annotator, rate in RATES.items():
        by_file = {"model.name": "mlp", "corruption.annotator": annotator}
        drawn = {"model.name": "mlp", "corruption.probability": rate}
        runs += [
            entry(f"{annotator}-human", {**by_file, "corruption.name": "human_labels"}),
            entry(f"{annotator}-twin", {**by_file, "corruption.name": "transition_labels"}),
            entry(f"{annotator}-symmetric", {**drawn, "corruption.name": "symmetric_labels"}),
        ]
    return config.sweep("human_labels", argument, runs)
