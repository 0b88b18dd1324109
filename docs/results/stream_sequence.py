"""Whether one process and two see the same ids and labels of a stream, in the same order.

    python -m rethink_jax.data.synthetic_imagenet --data_dir=runs/made-imagenet --train=2000 --test=200
    python docs/results/stream_sequence.py runs/made-imagenet runs/stream_sequence

Both have four simulated devices in all, and go through two epochs of random labels; what is compared are the
ids and the labels that the devices had.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np


def main(data_dir: str, out: str, *process: str) -> None:
    """Compares one process with two, or is one of them: its number, how many, and the coordinator."""
    if process:
        _record(data_dir, Path(out), *process)
        return
    Path(out).mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for count in (1, 2):
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={4 // count}",
        }
        started = [
            subprocess.Popen(
                [sys.executable, __file__, data_dir, out, str(index), str(count), address],
                env=environment,
            )
            for index in range(count)
        ]
        if any(each.wait() for each in started):
            sys.exit(1)
    one, first, second = (np.load(f"{out}/{name}.npz") for name in ("0-of-1", "0-of-2", "1-of-2"))
    for name in ("ids", "labels"):
        both = np.empty_like(one[name])
        for part in (first, second):
            both[:, part["rows"]] = part[name]
        print(f"{name}: {np.sum(both == one[name]):,} of {both.size:,} equal")


def _record(data_dir: str, out: Path, index: str, count: str, address: str) -> None:
    from rethink_jax import config as config_lib
    from rethink_jax.distributed import parallel, processes
    from rethink_jax.pipeline import loaders
    from rethink_jax.runs.resolve import resolve

    if int(count) > 1:
        processes.start(address, int(count), int(index))
    config = config_lib.imagenet("imagenet2012", "random_labels")
    config.update_from_flattened_dict(
        {
            "data.data_dir": data_dir,
            "data.size": 64,
            "data.workers": 1,
            "model.name": "resnet18",
            "batch_size": 128,
            "epochs": 2,
        }
    )
    resolved, info = resolve(config)
    streaming = loaders.make(resolved, None)
    gather = parallel.map_over_devices(
        lambda examples, ids: streaming.gather(examples, ids[0])[1], (0, 1), sharded_output=True
    )
    ids, labels = [], []
    for dispatch in streaming.train(0, config_lib.total_steps(resolved, info.num_train), lambda: 1):
        found = gather(dispatch.examples, dispatch.ids)
        ids.append(dispatch.ids.reshape(-1))
        labels.append(np.stack([part.data for part in found.addressable_shards]).reshape(-1))
    streaming.close()
    rows = parallel.local_rows(resolved.batch_size)
    np.savez(out / f"{index}-of-{count}.npz", ids=np.stack(ids), labels=np.stack(labels), rows=rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
