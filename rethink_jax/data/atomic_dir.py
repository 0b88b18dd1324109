"""Folders that are filled under a temporary name and renamed to their own when they are complete."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Spelled out, because the parent may be a folder of the user's.
PREFIX = "incomplete-rethink_jax-"


@contextlib.contextmanager
def folder(parent: Path) -> Iterator[Path]:
    """Makes `parent` and, while the context lasts, an empty folder in it.

    What killed processes left there is removed first, unless another process is at work there. Where
    the file system cannot lock directories (NFS), it stays.

    Raises `OSError` where `parent` cannot be written.
    """
    parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(parent, os.O_RDONLY)
    try:
        # Whoever is at work shares the lock, so whoever has it alone is the only one there.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in parent.glob(f"{PREFIX}*"):
                shutil.rmtree(left, ignore_errors=True)
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        with tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent) as scratch:
            yield Path(scratch)
    finally:
        os.close(lock)


def move(made: Path, target: Path) -> None:
    """Renames a folder into its place; if another process was first, its folder stays there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(target)
    except OSError:
        if not target.exists():
            raise
