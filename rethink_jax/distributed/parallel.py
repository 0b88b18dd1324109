"""Several devices: the one pmap, and arrays on their way to the devices and back."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rethink_jax.distributed import memory_maps

# The mapped axis, over which steps and BatchNorm sum.
AXIS = "data"

# Steps in one dispatch at most: many enough that launching them and, on a CPU, the system's zeros in new memory
# cost nothing.
STEPS_PER_DISPATCH = 64


# How many of a CPU's simulated devices are used; None where `start_cpu_devices` did not start them.
_used: int | None = None


def cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_cpu_devices() -> None:
    """Has JAX simulate a device for each core of a CPU, of which one is used until `use_cpu_devices` says more.

    Call it before JAX starts a backend. It changes nothing where the environment says how many there are.
    """
    global _used
    is_told = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not is_told and jax.config.values["jax_num_cpu_devices"] == -1:
        jax.config.update("jax_num_cpu_devices", cores())
        _used = 1


def most_cpu_devices() -> int | None:
    """Returns how many devices a run may use; None on accelerators, and where the user says how many."""
    found = jax.devices()
    return len(found) if _used is not None and found[0].platform == "cpu" else None


def use_cpu_devices_for(members: int) -> contextlib.AbstractContextManager[None]:
    """Uses as many of a CPU's devices as there are members, if there are so many.

    On accelerators, and where the user says how many devices there are, it changes nothing.
    """
    most = most_cpu_devices()
    return contextlib.nullcontext() if most is None else use_cpu_devices(min(most, members))


@contextlib.contextmanager
def use_cpu_devices(count: int) -> Iterator[None]:
    """Uses so many of the devices that `start_cpu_devices` started."""
    global _used
    before, _used = _used, count
    try:
        yield
    finally:
        _used = before


def devices() -> list[jax.Device]:
    """Returns the devices of all processes, over which the global batch is divided."""
    found = jax.devices()
    return found[:_used] if found[0].platform == "cpu" else found


def map_over_devices(
    function: Callable,
    sharded_argnums: tuple[int, ...] = (2,),
    *,
    sharded_output: bool = False,
    donate_first: bool = False,
) -> Callable:
    """Returns a function mapped over all devices of all processes by pmap; the only pmap there is.

    Args:
      function: written for one device, with sums over `AXIS`.
      sharded_argnums: the positions of the arguments whose leading axis is the local devices'. Each device gets
        its slice of these, without that axis, and all of the other arguments.
      sharded_output: whether results differ between devices; they are returned with a leading axis of the local
        devices. Otherwise they must be equal on all devices and are returned once, replicated.
      donate_first: whether the first argument's memory may be used for the result.
    """
    by_arity: dict[int, Callable] = {}

    def call(*args: Any) -> Any:
        if len(args) not in by_arity:
            memory_maps.drop_if_many()
            by_arity[len(args)] = jax.pmap(
                function,
                axis_name=AXIS,
                devices=devices(),
                in_axes=tuple(0 if i in sharded_argnums else None for i in range(len(args))),
                out_axes=0 if sharded_output else None,
                donate_argnums=(0,) if donate_first else (),
            )
        return _block_on_cpu(by_arity[len(args)](*args))

    return call


def local_shards(rows: np.ndarray) -> np.ndarray:
    """Cuts rows [devices · k, ...] into [local devices, k, ...], the shards of this process's devices."""
    return rows.reshape(len(devices()), -1, *rows.shape[1:])[_local_indices()]


def _block_on_cpu(tree: Any) -> Any:
    # Simulated devices share one pool of threads: a second step waiting in a sum can starve the first.
    if jax.default_backend() == "cpu" and len(_local_devices()) > 1:
        jax.block_until_ready(tree)
    return tree


def replicate(tree: Any) -> Any:
    """Copies a tree of host arrays to every local device."""
    return _put(tree, PartitionSpec())


def stage_shards(tree: Any) -> Any:
    """Copies shards to their devices ahead of a dispatch, which then waits for no copy.

    On a CPU there is nothing to copy, and a step of a small network would take half as long again.
    """
    return put_shards(tree) if _is_staged() else tree


def stage_count(count: int) -> jax.Array | np.int32:
    """Returns an int32 scalar for a dispatch, on the devices where `stage_shards` puts shards there."""
    return _count_on(count, tuple(_local_devices())) if _is_staged() else np.int32(count)


def _is_staged() -> bool:
    return jax.default_backend() != "cpu"


@functools.lru_cache(maxsize=256)
def _count_on(count: int, devices: tuple[jax.Device, ...]) -> jax.Array:
    scalar: jax.Array = jax.device_put(np.int32(count), _sharding(devices, PartitionSpec()))
    return scalar


def put_shards(tree: Any) -> Any:
    """Copies a tree of host arrays, whose leading axis is the local devices', to these devices."""
    return _put(tree, PartitionSpec(AXIS))


def _put(tree: Any, spec: PartitionSpec) -> Any:
    return jax.device_put(tree, _sharding(tuple(_local_devices()), spec))


@functools.cache
def _sharding(devices: tuple[jax.Device, ...], spec: PartitionSpec) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(devices), (AXIS,)), spec)


def fetch(tree: Any) -> Any:
    """Returns a replicated tree as NumPy arrays, read from one local device."""
    return jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), tree))


def local_count() -> int:
    """Returns how many devices this process has."""
    return len(_local_devices())


def local_rows(batch_size: int) -> np.ndarray:
    """Returns which rows of a global batch are this process's, int [local devices · batch / devices]."""
    return local_shards(np.arange(batch_size)).reshape(-1)


def shard_ids(ids: np.ndarray) -> np.ndarray:
    """Cuts each step's batch into one shard per device, and returns those of this process's devices.

    Args:
      ids: int32 [steps, batch], of the global batch.

    Returns:
      int32 [local devices, steps, batch / devices].
    """
    shards = ids.reshape(ids.shape[0], len(devices()), -1).swapaxes(0, 1)
    return shards[_local_indices()]


def _local_indices() -> list[int]:
    return [i for i, device in enumerate(devices()) if device in _local_devices()]


def _local_devices() -> list[jax.Device]:
    return [device for device in devices() if device.process_index == jax.process_index()]
