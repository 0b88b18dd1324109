"""The one place that knows of several devices and processes: maps functions over them, moves arrays, agrees."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from rethink_jax.distributed.preemption import StopRequest
from rethink_jax.errors import Diverged, InUse, RunFailed, UserError, one_line, require

# The mapped axis, over which steps and BatchNorm sum.
AXIS = "data"

# Steps in one dispatch on an accelerator: many enough that launching them costs nothing, few enough that a
# signal is answered in time.
_STEPS_PER_DISPATCH = 64

# After so long without a sign of life a process is taken for dead, and the others end.
_HEARTBEAT_SECONDS = 20

# How many processes there are, and which one this is, of Slurm, Open MPI and MPICH; a TPU slice's hosts.
_SIZES = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_INDICES = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_HOSTS = "TPU_WORKER_HOSTNAMES"


def start(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Starts JAX's distributed runtime where this process is one of several, before any other use of JAX.

    Args:
      coordinator_address: host:port of process 0. All three or none: without them the runtime looks whether
        this is a TPU pod, a Slurm step, a Kubernetes or an Open MPI job, and otherwise the process is alone.
      num_processes: how many there are.
      process_id: which one this is, from 0.

    Raises:
      UserError: the coordinator cannot be reached, the environment tells of processes that JAX does not
        find, or there is no device of the kind that `JAX_PLATFORMS` names.
    """
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    except (ValueError, KeyError) as error:
        if coordinator_address is not None:
            raise
        if "coordinator_address" not in str(error):  # JAX's word for there being no cluster
            _refuse_cluster(f"cannot be read: {type(error).__name__}: {error}")
    except RuntimeError as error:
        where = coordinator_address or "that the cluster names"
        raise UserError(f"the coordinator {where} cannot be reached: {error}") from error
    check_platforms()
    if jax.process_count() == 1 and coordinator_address is None and not _says_one_process():
        _refuse_cluster("tells of several processes, but JAX finds no others by it")


def _says_one_process() -> bool:
    """Returns whether no variable of a cluster tells of further processes."""
    try:
        sizes = [int(os.environ.get(name) or 1) for name in _SIZES]
        indices = [int(os.environ.get(name) or 0) for name in _INDICES]
    except ValueError:
        return False
    hosts = os.environ.get(_HOSTS, "").split(",")
    return max(sizes) <= 1 and max(indices) == 0 and len(hosts) == 1


def _refuse_cluster(why: str) -> NoReturn:
    found = {
        name: value
        for name, value in os.environ.items()
        if name
        in (*_SIZES, *_INDICES, _HOSTS, "SLURM_NTASKS", "SLURM_JOB_ID", "SLURM_STEP_NODELIST")
    }
    told = ", ".join(f"{name}={value!r}" for name, value in sorted(found.items()))
    raise UserError(
        f"the cluster's environment {why} ({told}); start the command anew with srun or mpirun, name the "
        "processes with --coordinator_address, or remove these variables to run alone"
    )


def check_platforms() -> None:
    """Raises `UserError` where JAX has none of the platforms that `JAX_PLATFORMS` names."""
    asked = jax.config.values["jax_platforms"]
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        if not asked:
            raise
        jax.config.update("jax_platforms", None)
        available = jax.default_backend()
        jax.config.update("jax_platforms", asked)
        why = f" ({one_line(error)[:200]})" if str(error) else ""
        raise UserError(
            f"JAX_PLATFORMS is {asked!r}, which JAX does not have here{why}; available is {available!r}"
        ) from error


@contextlib.contextmanager
def pin_settings() -> Iterator[None]:
    """Gives JAX the settings on which draws and types depend, whatever the environment has set.

    Also a decorator. `run.json` has what is set besides.
    """
    with (
        jax.enable_x64(False),
        jax.threefry_partitionable(True),
        jax.default_prng_impl("threefry2x32"),
    ):
        yield


def use_compilation_cache(folder: str | Path) -> None:
    """Has JAX keep compiled programs in a folder, where the next run of the same shapes finds them."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def devices() -> list[jax.Device]:
    """Returns the devices of all processes, over which the global batch is divided."""
    return jax.devices()


def map_over_devices(
    function: Callable, donate_first: bool = False, parts: tuple[int, ...] = (2,)
) -> Callable:
    """Returns `function(state, examples, ids, ...)` mapped over all devices by pmap.

    Args:
      function: written per device, against the axis `AXIS`; what it returns must be equal on all devices.
      donate_first: whether the first argument's memory may hold the result.
      parts: which arguments' leading axis is the local devices'; the others are replicated, and so is the
        result.
    """
    mapped: dict[int, Callable] = {}

    def call(*args: Any) -> Any:
        if len(args) not in mapped:
            mapped[len(args)] = jax.pmap(
                function,
                axis_name=AXIS,
                devices=devices(),
                in_axes=tuple(0 if i in parts else None for i in range(len(args))),
                out_axes=None,
                donate_argnums=(0,) if donate_first else (),
            )
        return _block_on_cpu(mapped[len(args)](*args))

    return call


def map_parts(function: Callable, in_parts: tuple[bool, ...], out_parts: bool) -> Callable:
    """Returns a function mapped over all devices by pmap, some of whose arguments are cut into parts.

    Args:
      function: written per device, against the axis `AXIS`.
      in_parts: for each argument whether its leading axis is the local devices'; the others are replicated.
      out_parts: the same of the result; one that is not must be equal on all devices.
    """
    mapped = jax.pmap(
        function,
        axis_name=AXIS,
        devices=devices(),
        in_axes=tuple(0 if parts else None for parts in in_parts),
        out_axes=0 if out_parts else None,
    )
    return lambda *args: _block_on_cpu(mapped(*args))


def local_parts(rows: np.ndarray) -> np.ndarray:
    """Cuts rows [devices · k, ...] into [local devices, k, ...], the parts of this process's devices."""
    return rows.reshape(len(devices()), -1, *rows.shape[1:])[_local_indices()]


def _block_on_cpu(tree: Any) -> Any:
    # Simulated devices share one pool of threads: a second step waiting in a sum can starve the first.
    if jax.default_backend() == "cpu" and len(_local_devices()) > 1:
        jax.block_until_ready(tree)
    return tree


def replicate(tree: Any) -> Any:
    """Copies a tree of host arrays to every local device."""
    return _put(tree, PartitionSpec())


def put_parts(tree: Any) -> Any:
    """Copies a tree of host arrays, whose leading axis is the local devices', to these devices."""
    return _put(tree, PartitionSpec(AXIS))


def _put(tree: Any, spec: PartitionSpec) -> Any:
    mesh = Mesh(np.asarray(_local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, spec))


def fetch(tree: Any) -> Any:
    """Returns a replicated tree as NumPy arrays, read from one local device."""
    return jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), tree))


def local_count() -> int:
    """Returns how many devices this process has."""
    return len(_local_devices())


def local_rows(batch_size: int) -> np.ndarray:
    """Returns which rows of a global batch are this process's, int [local devices · batch / devices]."""
    return local_parts(np.arange(batch_size)).reshape(-1)


def shard_ids(ids: np.ndarray) -> np.ndarray:
    """Cuts each step's batch into one part a device, and returns those of this process's devices.

    Args:
      ids: int32 [steps, batch], of the global batch.

    Returns:
      int32 [local devices, steps, batch / devices].
    """
    parts = ids.reshape(ids.shape[0], len(devices()), -1).swapaxes(0, 1)
    return parts[_local_indices()]


def steps_per_dispatch() -> int:
    """Returns how many steps one dispatch runs: many on accelerators, one on CPU.

    XLA runs convolutions inside a while-loop many times slower on CPUs.
    """
    return 1 if jax.default_backend() == "cpu" else _STEPS_PER_DISPATCH


def check_one_process(config: ConfigDict) -> None:
    """Raises `UserError` where there are several: the experiment runs in one, on all its devices."""
    if jax.process_count() > 1:
        experiment = config.experiment
        raise UserError(
            f"config.experiment is {experiment!r}; it runs in one process, on all its devices"
        )


def check(config: ConfigDict) -> None:
    """Raises `UserError` for a batch that the devices do not divide."""
    require(
        config.batch_size % len(devices()) == 0,
        "batch_size",
        config.batch_size,
        f"a multiple of the number of devices, {len(devices())}",
    )


def is_primary() -> bool:
    """Returns whether this is the process that writes files and shows progress."""
    return jax.process_index() == 0


def on_primary(function: Callable[[], Any]) -> Any:
    """Calls a function on the primary process and returns its result, which JSON can hold, on all.

    Raises:
      UserError, RunFailed: on all processes, where the function did on the primary one; an `OSError`, a full
        disk for example, becomes a `RunFailed`.
    """

    def call() -> Any:
        try:
            return function()
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise RunFailed(f"{where}{error.strerror or error}") from error

    if jax.process_count() == 1:
        return call()
    outcome: dict[str, Any] = {}
    if is_primary():
        try:
            outcome = {"value": call()}
        except (UserError, RunFailed) as error:
            outcome = {type(error).__name__: str(error)}
    outcome = json.loads(_broadcast_bytes(json.dumps(outcome).encode()))
    for kind in (UserError, InUse, RunFailed, Diverged):
        if kind.__name__ in outcome:
            raise kind(outcome[kind.__name__])
    return outcome["value"]


def on_all(function: Callable[[], Any]) -> Any:
    """Calls a function on every process; where it fails on one it fails on all, so that none waits in vain.

    Raises:
      UserError, RunFailed: the function's own, or a `RunFailed` for another process's.
    """
    error, result = None, None
    try:
        result = function()
    except (UserError, RunFailed) as own:
        error = own
    (failed,) = maxima([float(error is not None)])
    if error is not None:
        raise error
    if failed:
        raise RunFailed("another process cannot go on; its own line says why")
    return result


def broadcast(tree: Any) -> Any:
    """Returns the primary process's tree of NumPy arrays on all processes, which bring shapes and dtypes.

    It travels as bytes: a sum over processes, which is how it travels, would make +0 of −0.
    """
    if jax.process_count() == 1:
        return tree
    as_bytes = jax.tree.map(lambda x: np.atleast_1d(np.asarray(x)).view(np.uint8), tree)
    sent = multihost_utils.broadcast_one_to_all(as_bytes)
    return jax.tree.map(lambda x, b: np.asarray(b).view(x.dtype).reshape(x.shape), tree, sent)


def maxima(values: list[float]) -> list[float]:
    """Returns the greatest of each value over all processes."""
    if jax.process_count() == 1:
        return values
    gathered = multihost_utils.process_allgather(np.asarray(values, np.float32))
    return [float(x) for x in gathered.max(axis=0)]


def raise_if_stopped(stop_request: StopRequest) -> None:
    """Raises `Stopped` on all processes where a signal has come to one."""
    (stop,) = maxima([float(stop_request.signal_name is not None)])
    if stop and stop_request.signal_name is None:
        stop_request.signal_name = "a signal to another process"
    stop_request.raise_if_stopped()


def _broadcast_bytes(data: bytes) -> bytes:
    size = broadcast(np.asarray(len(data), np.int32))
    filled = np.zeros(int(size), np.uint8)
    if is_primary():
        filled[:] = np.frombuffer(data, np.uint8)
    return broadcast(filled).tobytes()


def _local_indices() -> list[int]:
    return [i for i, device in enumerate(devices()) if device in _local_devices()]


def _local_devices() -> list[jax.Device]:
    return [device for device in devices() if device.process_index == jax.process_index()]
