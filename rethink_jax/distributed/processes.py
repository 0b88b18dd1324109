"""Starts the processes of a job and has them agree: on results, errors and stops."""

import json
import os
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from rethink_jax.distributed import parallel
from rethink_jax.distributed.jax_settings import check_platforms
from rethink_jax.distributed.preemption import StopRequest
from rethink_jax.errors import Diverged, InUse, RunFailed, UserError

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
    if not jax.distributed.is_initialized():
        parallel.start_cpu_devices()
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
    variables = {
        name: value
        for name, value in os.environ.items()
        if name
        in (*_SIZES, *_INDICES, _HOSTS, "SLURM_NTASKS", "SLURM_JOB_ID", "SLURM_STEP_NODELIST")
    }
    listed = ", ".join(f"{name}={value!r}" for name, value in sorted(variables.items()))
    raise UserError(
        f"the cluster's environment {why} ({listed}); start the command anew with srun or mpirun, name the "
        "processes with --coordinator_address, or remove these variables to run alone"
    )


def check_one_process(config: ConfigDict) -> None:
    """Raises `UserError` where there are several: the experiment runs in one, on all its devices."""
    if jax.process_count() > 1:
        experiment = config.experiment
        raise UserError(
            f"config.experiment is {experiment!r}; it runs in one process, on all its devices"
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


def all_or_fail(function: Callable[[], Any]) -> Any:
    """Calls a function on every process; a failure on one fails all, so that none waits for it forever.

    Raises:
      UserError, RunFailed: the function's own, or a `RunFailed` for another process's.
    """
    error, result = None, None
    try:
        result = function()
    except (UserError, RunFailed) as own:
        error = own
    (failed,) = all_reduce_max([float(error is not None)])
    if error is not None:
        raise error
    if failed:
        raise RunFailed("another process cannot go on; its own line says why")
    return result


def broadcast(tree: Any) -> Any:
    """Returns the primary process's tree of NumPy arrays on all processes; theirs give shapes and dtypes.

    It is sent as bytes: JAX broadcasts by a sum over processes, which would turn −0 into +0.
    """
    if jax.process_count() == 1:
        return tree
    as_bytes = jax.tree.map(lambda x: np.atleast_1d(np.asarray(x)).view(np.uint8), tree)
    sent = multihost_utils.broadcast_one_to_all(as_bytes)
    return jax.tree.map(lambda x, b: np.asarray(b).view(x.dtype).reshape(x.shape), tree, sent)


def all_reduce_max(values: list[float]) -> list[float]:
    """Returns the greatest of each value over all processes."""
    if jax.process_count() == 1:
        return values
    gathered = multihost_utils.process_allgather(np.asarray(values, np.float32))
    return [float(x) for x in gathered.max(axis=0)]


def raise_if_stopped(stop_request: StopRequest) -> None:
    """Raises `Stopped` on all processes where a signal has come to one."""
    (stop,) = all_reduce_max([float(stop_request.signal_name is not None)])
    if stop and stop_request.signal_name is None:
        stop_request.signal_name = "a signal to another process"
    stop_request.raise_if_stopped()


def _broadcast_bytes(data: bytes) -> bytes:
    size = broadcast(np.asarray(len(data), np.int32))
    filled = np.zeros(int(size), np.uint8)
    if is_primary():
        filled[:] = np.frombuffer(data, np.uint8)
    return broadcast(filled).tobytes()
