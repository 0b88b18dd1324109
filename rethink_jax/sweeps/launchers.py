"""A sweep's runs as jobs of their own, through submitit: what a job asks for, and how it is requeued."""

import signal
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from rethink_jax import output
from rethink_jax.data import cache
from rethink_jax.distributed import jax_settings, parallel, preemption

_DEFAULT_MINUTES = 24 * 60


def parameters_of(config: ConfigDict) -> dict[str, Any]:
    """Returns the arguments of `update_parameters` of submitit's `AutoExecutor`, for a checked config."""
    slurm = config.slurm
    words = [word.removeprefix("--").partition("=") for word in (slurm.parameters or "").split()]
    arguments = {
        "name": config.sweep.name,
        "timeout_min": slurm.minutes or _DEFAULT_MINUTES,
        "gpus_per_node": slurm.gpus,
        "mem_gb": slurm.memory_gb,
        "cpus_per_task": slurm.cpus,
        "slurm_partition": slurm.partition,
        "slurm_additional_parameters": {
            name: value if equals else True for name, equals, value in words
        },
    }
    return {name: value for name, value in arguments.items() if value not in (None, {})}


class Job:
    """What a job does, in a process of its own; submitit requeues one that is preempted or out of time."""

    def __init__(self, attempt: Callable[[ConfigDict, str], Any], stopped: Any):
        """Takes the function that runs a config in a directory, and what a stopped run's result is."""
        self._attempt, self._stopped = attempt, stopped

    def __call__(self, fields: dict[str, Any], path: str) -> Any:
        """Runs a config's fields in a run directory; what it returns is the job's result."""
        output.drop_what_cannot_be_written()
        config = ConfigDict(fields)
        parallel.start_cpu_devices()
        jax_settings.use_compilation_cache(config.compilation_cache or cache.root() / "compiled")
        with preemption.stop_on_signals() as stop_request:
            try:
                return self._attempt(config, path)
            except preemption.Stopped:
                name = stop_request.signal_name or "SIGTERM"
        number = signal.Signals[name]
        # Submitit's handler, which it has for one of these, requeues the job and ends the process.
        if number in (signal.SIGUSR1, signal.SIGUSR2) and callable(signal.getsignal(number)):
            signal.raise_signal(number)
        return self._stopped

    def checkpoint(self, fields: dict[str, Any], path: str) -> Any:
        """Returns what submitit starts when it requeues the job: the same, which resumes."""
        from submitit.helpers import DelayedSubmission  # an extra

        return DelayedSubmission(self, fields, path)
