"""How far a run of two processes, killed and resumed by one process, differs from an undisturbed run.

    python -m rethink_jax.data.synthetic_imagenet --data_dir=runs/made-imagenet --train=2000 --test=200
    python docs/results/stream_resume.py runs/made-imagenet runs/stream_resume

ResNet-18 at 64 pixels on random labels, ten steps of 128 images on four simulated devices in all. `resumed` is
the killed run. `two devices` is an undisturbed process that divides the same batches between two devices, so
that only the order of float32's sums differs. Both are compared with an undisturbed run of one process: after
each step, the difference of the momentum over its norm.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

STEPS, KILLED_AFTER = 10, 4
FIELDS = (
    *("model.name=resnet18", "data.size=64", "data.workers=1", "dtype=float32", "batch_size=128"),
    *(f"steps={STEPS}", "checkpoint.every_steps=1", f"checkpoint.keep={STEPS}"),
    *("optimizer.learning_rate=0.05", "optimizer.warmup_epochs=1"),
)


def start(data_dir: str, path: Path, devices: int, *more: str) -> subprocess.Popen:
    """Starts or resumes the run in a directory, and appends what it prints to `<path>.log`."""
    command = [sys.executable, "-m", "rethink_jax.main", f"--workdir={path}", *more]
    command += ["--config=configs/imagenet/random_labels.py", f"--config.data.data_dir={data_dir}"]
    command += [f"--config.{field}" for field in FIELDS]
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    with open(f"{path}.log", "ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def disturb(data_dir: str, path: Path) -> list[int]:
    """Kills one of two processes after its checkpoint, and returns both exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        together = (f"--coordinator_address=127.0.0.1:{free.getsockname()[1]}", "--num_processes=2")
    pair = [start(data_dir, path, 2, *together, f"--process_id={i}") for i in range(2)]
    while not (path / "checkpoints" / f"{KILLED_AFTER}").exists():
        if any(process.poll() for process in pair):
            sys.exit(f"a process has ended; see {path}.log")
        time.sleep(0.02)
    pair[1].kill()
    return [process.wait() for process in pair]


def momentum(path: Path, step: int) -> np.ndarray:
    """Returns the optimizer's momentum of all parameters after a step, float64."""
    folder = (path / "checkpoints" / f"{step}" / "state").resolve()
    restored = ocp.StandardCheckpointer().restore(folder)["opt_state"]
    leaves = [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(restored)]
    return np.concatenate(leaves)


def main(data_dir: str, out: str) -> None:
    """Trains all three and prints a table."""
    folder = Path(out)
    folder.mkdir(parents=True)
    whole, fewer, resumed = (folder / name for name in ("whole", "two-devices", "resumed"))
    for path, devices in ((whole, 4), (fewer, 2)):
        if start(data_dir, path, devices).wait():
            sys.exit(f"see {path}.log")
    print(f"left with {disturb(data_dir, resumed)}")
    if start(data_dir, resumed, 4).wait():
        sys.exit(f"see {resumed}.log")
    print(*(line for line in Path(f"{resumed}.log").read_text().splitlines() if "resuming" in line))
    print("step  resumed  two devices")
    for step in range(1, STEPS + 1):
        there = momentum(whole, step)
        found = [momentum(path, step) - there for path in (resumed, fewer)]
        ratios = [np.linalg.norm(each) / np.linalg.norm(there) for each in found]
        print(f"{step:4d}  {ratios[0]:.1e}  {ratios[1]:.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
