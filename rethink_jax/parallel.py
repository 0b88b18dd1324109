"""The one place that maps per-device functions over devices and moves arrays on and off them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from rethink_jax.config import require

# The mapped axis, over which steps and BatchNorm sum.
AXIS = "data"

# Steps in one dispatch on an accelerator: many enough that launching them costs nothing, few enough that a
# signal is answered in time.
_STEPS_PER_DISPATCH = 64


def devices() -> list[jax.Device]:
    """Returns the devices of all processes, over which the global batch is divided."""
    return jax.devices()


def map_over_devices(function: Callable, donate_first: bool = False) -> Callable:
    """Returns `function(state, split, ids, ...)` mapped over all devices by pmap.

    Args:
      function: written per device, against the axis `AXIS`; what it returns must be equal on all devices.
      donate_first: whether the first argument's memory may hold the result.

    Returns:
      A function of the same arguments: the third one's leading axis is the local devices', the others
      are replicated, and so is the result.
    """
    mapped: dict[int, Callable] = {}

    def call(*args: Any) -> Any:
        if len(args) not in mapped:
            mapped[len(args)] = jax.pmap(
                function,
                axis_name=AXIS,
                devices=devices(),
                in_axes=tuple(0 if i == 2 else None for i in range(len(args))),
                out_axes=None,
                donate_argnums=(0,) if donate_first else (),
            )
        return _settle(mapped[len(args)](*args))

    return call


def _settle(tree: Any) -> Any:
    # Simulated devices share one pool of threads: a second step waiting in a sum can starve the first.
    if jax.default_backend() == "cpu" and len(_local_devices()) > 1:
        jax.block_until_ready(tree)
    return tree


def replicate(tree: Any) -> Any:
    """Copies a tree of host arrays to every local device."""
    mesh = Mesh(np.asarray(_local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def fetch(tree: Any) -> Any:
    """Returns a replicated tree as NumPy arrays, read from one local device."""
    return jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), tree))


def shard_ids(ids: np.ndarray) -> np.ndarray:
    """Cuts each step's batch into one part a device, and returns those of this process's devices.

    Args:
      ids: int32 [steps, batch], of the global batch.

    Returns:
      int32 [local devices, steps, batch / devices].
    """
    parts = ids.reshape(ids.shape[0], len(devices()), -1).swapaxes(0, 1)
    return parts[[i for i, device in enumerate(devices()) if device in _local_devices()]]


def steps_per_dispatch() -> int:
    """Returns how many steps one dispatch runs: many on accelerators, one on CPU.

    XLA runs convolutions inside a while-loop many times slower on CPUs.
    """
    return 1 if jax.default_backend() == "cpu" else _STEPS_PER_DISPATCH


def check(config: ConfigDict) -> None:
    """Raises `UserError` for a batch that the devices do not divide."""
    require(
        config.batch_size % len(devices()) == 0,
        "batch_size",
        config.batch_size,
        f"a multiple of the number of devices, {len(devices())}",
    )


def _local_devices() -> list[jax.Device]:
    return [device for device in devices() if device.process_index == jax.process_index()]
