"""Standard output that never ends a run: not when its reader is gone, its disk full or its stream closed."""

import contextlib
import io
import os
import select
import sys
from typing import Any


class _Dropping(io.FileIO):
    """A file descriptor whose writes never fail; it drops what cannot be written."""

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # non-blocking, and full
                select.select([], [self], [])
            return written
        except OSError:
            return memoryview(data).nbytes


def drop_what_cannot_be_written() -> None:
    """Makes `sys.stdout` and `sys.stderr` drop what cannot be written, and opens them where they are closed.

    A closed descriptor is opened on the null device. Otherwise a run's file could get its number, and with it
    whatever a library prints.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)
            if null > 2:
                os.close(null)
    sys.stdout, sys.stderr = _dropping(sys.stdout, 1), _dropping(sys.stderr, 2)


def _dropping(stream: Any, number: int) -> Any:
    if stream is None:  # closed when Python started; the descriptor may be another file by now
        return open(os.devnull, "w")
    try:
        if stream.fileno() != number:  # replaced by the caller, a notebook for example
            return stream
    except (OSError, ValueError):
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    raw = _Dropping(number, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
