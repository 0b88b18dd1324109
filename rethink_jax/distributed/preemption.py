"""Signals that ask a run to stop: SIGINT from a keyboard, SIGHUP from a terminal, the others from a cluster."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# What a stopped run leaves with: BSD's EX_TEMPFAIL, "try again later".
EXIT_CODE = 75

# SIGUSR1 is what jobs of Slurm commonly ask for, SIGUSR2 what submitit does.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

# `nohup` ignores the first; the others are ignored where somebody meant it.
_MAY_BE_IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

# The part of the grace time after which a run that is still busy is left where it is.
_USABLE = 0.9

# `timeout`, `srun` and a terminal signal the whole process group, and `uv run` sends on what it gets; Slurm
# sends SIGTERM right after a job's own signal. Within so many seconds of the first it is the same request.
_ONE_REQUEST = 1.5


class Stopped(BaseException):
    """A run stopped on request and lost nothing; the line says how to resume.

    No `Exception`, as `KeyboardInterrupt` is none: whatever code the signal interrupts must let it pass.
    """


class StopRequest:
    """What is known of a request to stop.

    Attributes:
      signal_name: of the signal that came; None before.
      grace_seconds: from the signal to the end of the process, at most.
      saved: in words, what is saved; a run without time for its own last line prints this.
      deferred: whether a signal is only noted, because there is something to save.
    """

    def __init__(self, owns_process: bool = False) -> None:
        self.signal_name: str | None = None
        self.grace_seconds = 30.0
        self.saved = "nothing to save yet; run the same command again"
        self.deferred = False
        self._owns_process = owns_process
        self._timer: threading.Timer | None = None
        self._watcher: threading.Thread | None = None
        self._handled: set[int] = set()
        self._came: float | None = None  # when the first signal did
        self._seen = False  # by the main thread

    def raise_if_stopped(self) -> None:
        """Raises `Stopped` where a signal has come."""
        if self.signal_name is not None:
            raise Stopped(f"{self.signal_name}: {self.saved}")

    @contextmanager
    def defer(self) -> Iterator[None]:
        """While active, a signal only sets `signal_name`; the caller polls it and saves."""
        before, self.deferred = self.deferred, True
        try:
            yield
        finally:
            self.deferred = before

    def listen(self) -> None:
        """Installs the handlers; once more where another library has put its own in their place."""
        for number in self._handled:
            signal.signal(number, self._handle)

    def _begin(self, pipe: int, handled: set[int]) -> None:
        self._handled = handled
        watcher = threading.Thread(target=self._watch, args=(pipe,), daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread more: Python's handlers do alone
            watcher.start()
            self._watcher = watcher
        self.listen()

    def _end(self) -> None:
        if self._watcher is not None:
            self._watcher.join()  # it may have a signal yet to read, and would start the timer
        if self._timer is not None:
            self._timer.cancel()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._watcher is None or not self._watcher.is_alive():
            self._note(number)
        self.signal_name = self.signal_name or signal.Signals(number).name
        was_seen, self._seen = self._seen, True
        if not (
            was_seen or self.deferred or self._owns_process
        ):  # once: the run may be ending already
            self.raise_if_stopped()

    def _watch(self, pipe: int) -> None:
        """Sees signals while the main thread is deep in a compiler, where Python's handlers do not run."""
        try:
            while data := os.read(pipe, 1):
                if data[0] in self._handled:
                    self._note(data[0])
            os.close(pipe)
        except Exception as error:
            line = f"{type(error).__name__}: {error}"
            _print(f"rethink_jax: signals are heard between two steps only from now on: {line}")

    def _note(self, number: int) -> None:
        """Starts the clock at the first signal; leaves at another one, unless it is the same request."""
        now = time.monotonic()
        if self._came is not None:
            if now > self._came + _ONE_REQUEST:
                self._leave()
            return
        self._came = now
        self.signal_name = signal.Signals(number).name
        if self._owns_process and not self.deferred:
            self._leave()
        self._timer = threading.Timer(_USABLE * self.grace_seconds, self._leave)
        self._timer.daemon = True
        try:
            self._timer.start()
        except RuntimeError as error:  # no thread more; the signal counts all the same
            self._timer = None
            _print(f"rethink_jax: nothing ends this process when its grace time is over: {error}")

    def _leave(self) -> None:
        show_cursor = "\x1b[?25h" if os.isatty(2) else ""
        _print(f"{show_cursor}rethink_jax: {self.signal_name}: {self.saved}")
        os._exit(EXIT_CODE)


def _print(line: str) -> None:
    """Prints to stderr past Python's streams, whose locks the main thread may hold."""
    with contextlib.suppress(OSError):  # nobody may read it
        os.write(2, f"{line}\n".encode())


_active: StopRequest | None = None


@contextmanager
def stop_on_signals(owns_process: bool = False) -> Iterator[StopRequest]:
    """Yields a request that the first of `SIGNALS` fills in.

    A second signal, or the end of the grace time, ends the process at once with `EXIT_CODE`; what comes
    within a second and a half is the same request. Inside another `stop_on_signals` it is that one's request;
    outside the main thread, where Python takes no signals, it is one that nobody fills in. What is ignored, as
    `nohup` has SIGHUP, stays ignored.

    Args:
      owns_process: whether the process is there for the run alone, and ends after it. Then a signal ends it at
        once while there is nothing to save, and until its end; otherwise it raises `Stopped` in the main
        thread, which some library may swallow.
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
    handlers = {
        number: handler
        for number in SIGNALS
        if (handler := signal.getsignal(number)) != signal.SIG_IGN or number not in _MAY_BE_IGNORED
    }
    wakeup = signal.set_wakeup_fd(writer)
    _active = request
    request._begin(reader, {*handlers})
    try:
        yield request
    finally:
        if not owns_process:  # which ends now, and answers signals until then
            for number, handler in handlers.items():
                signal.signal(number, handler or signal.SIG_DFL)
            signal.set_wakeup_fd(wakeup)
            _active = None
            os.close(writer)
            request._end()
