"""How much faster do the runs of a sweep train together than one after the other?

    python docs/results/together.py DATA_DIR WORKDIR [REPEATS [SWEEP]]

Trains two sweeps of MLPs on random labels, each both ways in turn and each time in a new process, with programs
compiled before: 64 runs of MLP 1×64 on the digits, and 8 runs of MLP 1×512 on `cifar10_jpeg`, of which DATA_DIR
holds the prepared data set. Prints the medians of the whole time, from the first run's start to the last one's
end, and of the rate of training; WORKDIR holds the runs and `together.json`. Not part of the paper.
"""

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rethink_jax import config
from rethink_jax.data import cache
from rethink_jax.distributed import jax_settings, parallel
from rethink_jax.runs import environment
from rethink_jax.sweeps import sweep

# Data set, width, runs, epochs.
SWEEPS = {"mlp1x64": ("digits", 64, 64, 100), "mlp1x512": ("cifar10_jpeg", 512, 8, 3)}
WAYS = {"together": "auto", "one after the other": "never"}


def train(name: str, together: str, data_dir: str, workdir: str) -> None:
    """Runs a sweep in this process and prints its seconds and images per second as JSON."""
    parallel.start_cpu_devices()
    jax_settings.use_compilation_cache(cache.root() / "compiled")
    data_name, width, runs, epochs = SWEEPS[name]
    settings = config.train(data_name, "random_labels")
    settings.model.update(name="mlp", width=width)
    settings.update(epochs=epochs, stop_when_fitted=False)
    settings.data.data_dir = None if data_name == "digits" else data_dir
    config.as_sweep(settings, name, "full", (config.sweep_entry("run", {}),))
    settings.sweep.update(seeds=runs, together=together)
    started = time.perf_counter()
    sweep.run(settings, workdir)
    seconds = time.perf_counter() - started
    # Without each run's first epoch, which compiles.
    rates = [
        json.loads(line)["images_per_second"]
        for file in Path(workdir).glob("*/metrics.jsonl")
        for line in file.read_text().splitlines()[1:]
    ]
    print(json.dumps({"seconds": seconds, "images_per_second": statistics.harmonic_mean(rates)}))


def measure(name: str, way: str, data_dir: str, workdir: str) -> dict[str, float]:
    """Runs a sweep in a new process; returns what it printed."""
    shutil.rmtree(workdir, ignore_errors=True)
    command = [sys.executable, __file__, "--train", name, WAYS[way], data_dir, workdir]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def compare(name: str, data_dir: str, workdir: str, repeats: int) -> dict[str, Any]:
    """Measures both ways in turn; returns the medians, all measurements and the ratios."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for repeat in range(repeats + 1):
        for way, measured in found.items():
            one = measure(name, way, data_dir, f"{workdir}/{name}")
            if repeat:  # the first one compiles
                measured.append(one)
    medians = {
        way: {key: statistics.median(one[key] for one in measured) for key in measured[0]}
        for way, measured in found.items()
    }
    together, others = (medians[way] for way in WAYS)
    ratios = {
        "whole time": others["seconds"] / together["seconds"],
        "training": together["images_per_second"] / others["images_per_second"],
    }
    print(name, {way: {k: round(v, 1) for k, v in one.items()} for way, one in medians.items()})
    print(name, "ratios:", {key: round(value, 2) for key, value in ratios.items()})
    return {"ratios": ratios, "medians": medians, "measured": found}


def main(data_dir: str, workdir: str, repeats: str = "3", only: str | None = None) -> None:
    """Compares all sweeps, or one, and writes `together.json`."""
    names = [only] if only else [*SWEEPS]
    found = {name: compare(name, data_dir, workdir, int(repeats)) for name in names}
    result = {"sweeps": SWEEPS, "environment": environment.describe(), **found}
    (Path(workdir) / "together.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
