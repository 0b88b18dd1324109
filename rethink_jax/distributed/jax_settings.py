"""What JAX is told before a run: the settings that its numbers depend on, the cache, the platform."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax

from rethink_jax.errors import UserError, one_line


@contextlib.contextmanager
def pin_settings() -> Iterator[None]:
    """Pins the JAX settings on which draws and dtypes depend, whatever the environment sets.

    Also a decorator. `run.json` records the other settings.
    """
    with (
        jax.enable_x64(False),
        jax.threefry_partitionable(True),
        jax.default_prng_impl("threefry2x32"),
    ):
        yield


def use_compilation_cache(folder: str | Path) -> None:
    """Keeps compiled programs in a folder, for the next run with the same shapes."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


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
