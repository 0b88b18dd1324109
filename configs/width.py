"""Does the test error peak where an MLP just fits noisy labels? Width of one hidden layer, 20 % wrong labels.

    python -m rethink_jax.main --config=configs/width.py --config.sweep.seeds=3 --workdir=runs/width

After Belkin et al. 2019 (arXiv 1812.11118, figure 4), who expect a peak where parameters are as many as n·K,
here 40,000 at a width of 50, and Nakkiran et al. 2020 (arXiv 1912.02292), whose label noise this is. The first
4,000 training images of MNIST. After a colon a data set, a size, or both: `:smoke` (256 digits, three epochs),
`:small` (1,000 examples), `:cifar10_jpeg`. The schedule is ours.
"""

from ml_collections import ConfigDict

from rethink_jax import config

WIDTHS = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024)
DATA = {"smoke": "digits", "small": "mnist", "full": "mnist"}


def get_config(argument: str = "") -> ConfigDict:
    data, size = config.data_and_size(argument, DATA)
    runs = [
        config.sweep_entry(f"width{width}", {"model.name": "mlp", "model.width": width})
        for width in WIDTHS
    ]
    fields = {
        "corruption.name": "symmetric_labels",
        "corruption.probability": 0.2,
        "optimizer.learning_rate": 0.05,
        "optimizer.decay_per_epoch": 0.995,
        "stop_when_fitted": False,
    }
    if size == "full":
        fields |= {"data.examples": 4000, "epochs": 500, "evaluate.every_epochs": 50}
    return config.sweep("width", f"{data},{size}", runs, fields)
