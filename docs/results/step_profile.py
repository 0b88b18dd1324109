"""What does a training step on a CPU spend its time on, or an evaluation?

    JAX_PLATFORMS=cpu python docs/results/step_profile.py MODEL [train|evaluate]

Prints the operations that take longest for 128 made-up images, a step of training, summed over the devices.
MODEL is one of `python -m rethink_jax.bench --model`. Not part of the paper.
"""

import collections
import os
import re
import sys
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_cpu_enable_xprof_traceme=true"

import jax
from jax.profiler import ProfileData

from rethink_jax.bench import ours, rates
from rethink_jax.distributed import parallel

BATCH, STEPS, SHOWN = 128, 4, 30  # steps, or batches, are at least as many


def main(model: str, what: str = "train") -> None:
    """Prints milliseconds and calls a step, or a batch, of each kind of operation."""
    parallel.start_cpu_devices()
    side = ours.Side(model, 10 * BATCH, BATCH, "float32")
    once = {"train": side._train_once, "evaluate": side._evaluate_once}[what]
    rate = rates.per_second(once, 2.0)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            steps = 0.0
            while steps < STEPS:
                examples, sums = once()
                jax.block_until_ready(sums)
                steps += examples / BATCH
        (file,) = Path(folder).rglob("*.xplane.pb")
        profile = ProfileData.from_file(str(file))
    nanoseconds: collections.Counter[str] = collections.Counter()
    calls: collections.Counter[str] = collections.Counter()
    for plane in profile.planes:
        for line in plane.lines:
            for event in line.events:
                kind = re.sub(r"[.\d]+$", "", event.name)
                nanoseconds[kind] += event.duration_ns
                calls[kind] += 1
    print(f"JAX {jax.__version__}, {len(parallel.devices())} devices, {rate:.0f} images/s")
    for kind, total in nanoseconds.most_common(SHOWN):
        print(f"{total / 1e6 / steps:9.1f} ms {calls[kind] / steps:7.0f} × {kind}")


if __name__ == "__main__":
    main(*sys.argv[1:])
