"""Signals that ask a run to stop: SIGTERM from a cluster, SIGINT from a keyboard."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# What a stopped run leaves with: BSD's EX_TEMPFAIL, "try again later".
EXIT_CODE = 75

# The part of the grace time after which a run that is still busy is left where it is.
_USABLE = 0.9


class Stopped(BaseException):
    """A run that was asked to stop and lost nothing; the line says how to go on.

    No `Exception`, as `KeyboardInterrupt` is none: whatever code the signal interrupts must let it pass.
    """


class StopRequest:
    """What is known of a request to stop.

    Attributes:
      signal_name: of the signal that came; None before.
      grace_seconds: from the signal to the end of the process, at most.
      saved: in words, what is safe; the last line of a run that has no time to write its own.
      deferred: whether a signal is only noted, because there is something to save.
    """

    def __init__(self, owns_process: bool = False) -> None:
        self.signal_name: str | None = None
        self.grace_seconds = 30.0
        self.saved = "nothing to save yet; run the same command again"
        self.deferred = False
        self._owns_process = owns_process
        self._timer: threading.Timer | None = None

    def raise_if_stopped(self) -> None:
        """Raises `Stopped` where a signal has come."""
        if self.signal_name is not None:
            raise Stopped(f"{self.signal_name}: {self.saved}")

    @contextmanager
    def defer(self) -> Iterator[None]:
        """Has signals noted and no more while there is something to save; whoever uses it has to look."""
        before, self.deferred = self.deferred, True
        try:
            yield
        finally:
            self.deferred = before

    def listen(self) -> None:
        """Installs the handlers; once more where another library has put its own in their place."""
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        if not self.deferred and not self._owns_process:
            self.raise_if_stopped()

    def _watch(self, pipe: int) -> None:
        """Sees signals while the main thread is deep in a compiler, where Python's handlers do not run."""
        while data := os.read(pipe, 1):
            if data[0] not in _SIGNALS:
                continue
            if self._timer is None:
                self.signal_name = signal.Signals(data[0]).name
                if self._owns_process and not self.deferred:
                    self._leave()
                self._timer = threading.Timer(_USABLE * self.grace_seconds, self._leave)
                self._timer.daemon = True
                self._timer.start()
            else:
                self._leave()
        os.close(pipe)

    def _leave(self) -> None:
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
        with contextlib.suppress(OSError):  # nobody may read it
            os.write(2, f"{show_cursor}rethink_jax: {self.signal_name}: {self.saved}\n".encode())
        os._exit(EXIT_CODE)


_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_active: StopRequest | None = None


@contextmanager
def stop_on_signals(owns_process: bool = False) -> Iterator[StopRequest]:
    """Yields a request that the first SIGTERM or SIGINT fills in.

    A second signal, or the end of the grace time, ends the process at once with `EXIT_CODE`. Inside another
    `stop_on_signals` it is that one's request; outside the main thread, where Python takes no
    signals, it is one that nobody fills in.

    Args:
      owns_process: whether the process is there for the run alone. Then a signal ends it at once while there is
        nothing to save; otherwise it raises `Stopped` in the main thread, which some library may swallow.
    """
    global _active
    if _active is not None:
        yield _active
        return
    request = StopRequest(owns_process)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    wakeup = signal.set_wakeup_fd(writer)
    _active = request
    watcher = threading.Thread(target=request._watch, args=(reader,), daemon=True)
    watcher.start()
    request.listen()
    try:
        yield request
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        _active = None
        os.close(writer)
        watcher.join()  # it may have a signal yet to read, and would start the timer
        if request._timer:
            request._timer.cancel()
