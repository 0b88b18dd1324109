"""Do the initial values keep Inception without BatchNorm from fitting random labels?

    python docs/results/initial_values.py DATA_DIR WORKDIR [INITIALIZER [FIELD=VALUE …]]

Trains small Inception without BatchNorm on random labels of the first 1,000 images of `cifar10_jpeg`, as often
with He's initial kernels as with LeCun's, which are the default, or with one of them (`he_normal`,
`lecun_normal`) and with other fields of the config. LeCun's lose half of the signal's variance at each ReLU;
the paper states neither. Ours, not part of the paper.
"""

import subprocess
import sys

FIELDS = {
    "model.name": "small_inception",
    "model.batch_norm": "false",
    "data.examples": "1000",
    "epochs": "60",
    "evaluate.every_epochs": "10",
}

# ConvUnit's default is made when its module is imported.
RUN = """
import flax.linen as nn
nn.initializers.lecun_normal = nn.initializers.{initializer}
from rethink_jax import main
main.run()
"""


def main(data_dir: str, workdir: str, only: str | None = None, *others: str) -> None:
    """Runs the public command, each time with other initial kernels of the convolutions."""
    fields = FIELDS | dict(other.split("=", 1) for other in others)
    flags = [f"--config.{field}={value}" for field, value in fields.items()]
    for initializer in [only] if only else ("he_normal", "lecun_normal"):
        command = [sys.executable, "-c", RUN.format(initializer=initializer)]
        command += ["--config=configs/random_labels.py:cifar10_jpeg", *flags]
        command += [f"--config.data.data_dir={data_dir}", f"--workdir={workdir}/{initializer}"]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
