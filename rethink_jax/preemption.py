"""Signals that ask a run to stop: SIGTERM from a cluster, SIGINT from a keyboard."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# What a stopped run leaves with: BSD's EX_TEMPFAIL, "try again later".
EXIT_CODE = 75


class Stopped(Exception):
    """A run that was asked to stop and has saved; the line says how to go on."""


class StopRequest:
    """Whether a signal has come, and which."""

    signal_name: str | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Yields a request that the first SIGTERM or SIGINT fills in; a second one ends the process at once."""
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request.signal_name is not None:
            os._exit(EXIT_CODE)
        request.signal_name = signal.Signals(number).name

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
