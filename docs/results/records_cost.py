"""How much longer does a run take that keeps records?

    python docs/results/records_cost.py DATA_DIR WORKDIR

Trains MLP 1×512 on all of `cifar10_jpeg` in turns with and without records of every epoch, eight epochs each,
and prints the seconds of the last seven, evaluations included, and the ratios of neighbouring runs. Nothing
else may run beside it. Not in the paper.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

EPOCHS, TURNS = 8, 5


def seconds(data_dir: str, path: Path, every_epochs: int) -> float:
    """Trains one run and returns what its epochs but the first took."""
    command = [
        sys.executable,
        "-m",
        "rethink_jax.main",
        "--config=configs/true_labels.py:cifar10_jpeg",
    ]
    command += [f"--config.data.data_dir={data_dir}", "--config.model.name=mlp"]
    command += [f"--config.epochs={EPOCHS}", f"--workdir={path}"]
    command += [f"--config.records.every_epochs={every_epochs}"] if every_epochs else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return float(records[-1]["seconds"] - records[0]["seconds"])


def main(data_dir: str, workdir: str) -> None:
    """Prints each pair and the median of the ratios."""
    ratios = []
    for turn in range(TURNS):
        without, with_records = (
            seconds(data_dir, Path(workdir) / f"{turn}-{every}", every) for every in (0, 1)
        )
        ratios.append(with_records / without)
        print(f"{without:.2f} s without, {with_records:.2f} s with: {ratios[-1]:.3f}", flush=True)
    print(f"median {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
