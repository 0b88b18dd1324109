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
def create(parent: Path) -> Iterator[Path]:
    """Yields an empty folder in `parent`, which is made where it is missing; the folder is removed in the end.

    Folders of killed processes are removed first, unless another process is at work in `parent`. Where
    the file system cannot lock directories (NFS), they stay.

    Raises:
      OSError: `parent` cannot be written.
    """
    parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(parent, os.O_RDONLY)
    try:
        # Whoever is at work shares the lock, so whoever has it alone is the only one there.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for abandoned in parent.glob(f"{PREFIX}*"):
                shutil.rmtree(abandoned, ignore_errors=True)
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        with tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent) as scratch:
            yield Path(scratch)
    finally:
        os.close(lock)


def publish(folder: Path, target: Path) -> None:
    """Renames a folder to its target; if another process published first, its folder stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(target)
    except OSError:
        if not target.exists():
            raise
