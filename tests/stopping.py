"""Signals that come at a certain progress, and waiting for a process."""

import contextlib
import time

from rethink_jax.distributed import preemption
from rethink_jax.runs import display


def stop_when_shown(monkeypatch, count, part=None):
    """Has a signal come when progress was shown so often, of this part where one is named."""

    @contextlib.contextmanager
    def show_parts():
        seen = []

        def show(shown, fraction):
            seen.append(shown)
            if (len(seen) if part is None else seen.count(part)) == count:
                preemption._active.signal_name = "SIGTERM"

        yield show

    monkeypatch.setattr(display, "show_parts", show_parts)


def wait_for(process, holds):
    """Waits until something holds while a process runs."""
    while not holds():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
