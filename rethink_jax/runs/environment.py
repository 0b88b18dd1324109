"""What `run.json` tells of the machine and the code."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from rethink_jax.distributed import parallel

# Of variables that may change what a run computes.
_PREFIXES = ("JAX_", "XLA_", "LIBTPU_", "NVIDIA_TF32_", "TF_CUDNN_", "TF_XLA_")

# JAX's settings that may do so, and their values where nothing sets them.
JAX_DEFAULTS: dict[str, Any] = {
    "jax_enable_x64": False,
    "jax_threefry_partitionable": True,
    "jax_default_prng_impl": "threefry2x32",
    "jax_enable_custom_prng": False,
    "jax_random_seed_offset": 0,
    "jax_default_matmul_precision": None,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_exec_time_optimization_effort": 0.0,
    "jax_memory_fitting_effort": 0.0,
    "jax_softmax_custom_jvp": False,
    "jax_optimization_level": "UNKNOWN",
    "jax_memory_fitting_level": "O2",
    "jax_default_device": None,
}
_PACKAGES = ("rethink_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe(**more: Any) -> dict[str, Any]:
    """Returns what `run.json` tells of the machine and the code, with `more` beside it."""
    return {
        "git": _git_revision(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": parallel.cores(),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in parallel.devices()],
        "processes": jax.process_count(),
        "variables": _variables(),
        "jax_settings": _jax_settings(),
        "matmul_precision": jax.config.values["jax_default_matmul_precision"] or "default",
        **more,
    }


def _variables() -> dict[str, str]:
    """Returns the variables of the environment that JAX, XLA and their libraries read."""
    return {name: os.environ[name] for name in sorted(os.environ) if name.startswith(_PREFIXES)}


def _jax_settings() -> dict[str, Any]:
    """Returns the settings of `JAX_DEFAULTS` that have another value now."""
    values = {name: jax.config.values.get(name) for name in JAX_DEFAULTS}
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in values.items()
        if value != JAX_DEFAULTS[name]
    }


def _cpu_model() -> str:
    """Returns the processor's name; Python's own `platform.processor` does not know it on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git_revision() -> dict[str, Any] | None:
    """Returns the project's revision; None for an installed package, whatever repository it lies in."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        if Path(git("rev-parse", "--show-toplevel")) != Path(__file__).resolve().parents[2]:
            return None
        revision = git("rev-parse", "HEAD")
        return {"revision": revision, "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
