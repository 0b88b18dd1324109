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

# The share of wrong labels in the published file.
RATES = {"aggregate": 0.0901, "worst": 0.40208}


def get_config(argument: str = "") -> ConfigDict:
    runs = [
        config.sweep_entry(f"{annotator}-{kind}", {"model.name": "mlp", **fields})
        for annotator, rate in RATES.items()
        for kind, fields in {
            "human": {"corruption.name": "human_labels", "corruption.annotator": annotator},
            "twin": {"corruption.name": "transition_labels", "corruption.annotator": annotator},
            "symmetric": {"corruption.name": "symmetric_labels", "corruption.probability": rate},
        }.items()
    ]
    return config.sweep("human_labels", argument, runs)
