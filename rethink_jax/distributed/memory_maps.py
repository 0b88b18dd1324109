"""Compiled programs and the memory maps that they take, of which a process may have so many."""

import gc
from pathlib import Path

import jax

_OF_PROCESS = Path("/proc/self/maps")
_MOST = Path("/proc/sys/vm/max_map_count")
# The rest is for the programs of one network, and what else asks for maps.
_SHARE_FOR_PROGRAMS = 0.5


def drop_if_many() -> None:
    """Drops all compiled programs once they take half of the memory maps that Linux allows a process.

    Each program takes some, those of a run of small Inception about 4,000, and JAX keeps them all. Where none
    is left, XLA ends the process in the middle of a compilation. Programs that are needed again are compiled
    again, or come from the compilation cache. Among several processes, which must compile alike, and on other
    systems nothing is dropped.
    """
    if jax.process_count() > 1 or not (_OF_PROCESS.exists() and _MOST.exists()):
        return
    if _count() > _SHARE_FOR_PROGRAMS * int(_MOST.read_text()):
        jax.clear_caches()
        gc.collect()


def _count() -> int:
    return _OF_PROCESS.read_bytes().count(b"\n")
