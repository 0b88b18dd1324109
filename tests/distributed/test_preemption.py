import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from rethink_jax.distributed import preemption
from rethink_jax.distributed.preemption import Stopped, stop_on_signals

BOTH = pytest.mark.parametrize("number", preemption.SIGNALS, ids=lambda n: n.name)


@pytest.fixture(autouse=True)
def signals_are_not_ignored():
    """Has signals do what they do by default, also where `nohup` started the tests."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in preemption.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@BOTH
def test_a_signal_raises_where_nothing_is_to_save(number):
    with pytest.raises(Stopped, match=f"^{number.name}: nothing to save yet"), stop_on_signals():
        os.kill(os.getpid(), number)


def test_no_except_exception_takes_it():
    with pytest.raises(Stopped), stop_on_signals(), contextlib.suppress(Exception):
        os.kill(os.getpid(), signal.SIGTERM)


@BOTH
def test_a_deferred_signal_is_noted(number):
    with stop_on_signals() as request:
        with request.defer():
            assert request.signal_name is None
            os.kill(os.getpid(), number)
            assert request.signal_name == number.name
        request.saved = "all is saved"
        with pytest.raises(Stopped, match="all is saved"):
            request.raise_if_stopped()


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert preemption._active is None


def test_the_grace_time_ends_with_the_block(monkeypatch):
    monkeypatch.setattr(preemption.StopRequest, "_leave", lambda self: pytest.fail("left"))
    for _ in range(50):
        with pytest.raises(Stopped), stop_on_signals() as request:
            os.kill(os.getpid(), signal.SIGTERM)
        assert request._timer.finished.is_set()


def test_inside_another_it_is_the_same():
    with stop_on_signals() as outer:
        with stop_on_signals() as inner:
            assert inner is outer
        assert preemption._active is outer


def test_in_another_thread_nobody_fills_it_in():
    found = []

    def run():
        with stop_on_signals() as request:
            found.append(request.signal_name)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [None]


def other_process(program):
    """Runs a program that prints when it is ready for its signals."""
    header = "import time\nfrom rethink_jax.distributed.preemption import stop_on_signals\n"
    process = subprocess.Popen(
        [sys.executable, "-c", header + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


# A sleep continues after a handler that returns, as a compiler does.
BUSY = """
with stop_on_signals({}) as request, request.defer():
    request.grace_seconds = {}
    request.saved = "step 5 is saved"
    print("ready", flush=True)
    time.sleep(60)
"""


def test_the_end_of_the_grace_time_ends_a_busy_process():
    process = other_process(BUSY.format("", 0.3))
    process.terminate()
    _, error = process.communicate(timeout=20)
    assert process.returncode == preemption.EXIT_CODE
    assert error == "rethink_jax: SIGTERM: step 5 is saved\n"


def test_a_second_signal_ends_a_busy_process_at_once():
    process = other_process(BUSY.format("owns_process=True", 1000))
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(preemption._ONE_REQUEST + 0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == preemption.EXIT_CODE
    assert error == "rethink_jax: SIGINT: step 5 is saved\n"


def test_a_process_of_its_own_leaves_at_once_where_nothing_is_to_save():
    process = other_process(
        "with stop_on_signals(owns_process=True):\n    print('ready', flush=True)\n    time.sleep(60)"
    )
    process.terminate()
    _, error = process.communicate(timeout=20)
    assert process.returncode == preemption.EXIT_CODE
    assert error == "rethink_jax: SIGTERM: nothing to save yet; run the same command again\n"


def test_the_same_request_twice_does_not_end_what_is_being_saved():
    """`timeout` signals the process group, and `uv run` sends on what it gets."""
    process = other_process(
        "with stop_on_signals(owns_process=True) as request, request.defer():\n"
        "    print('ready', flush=True)\n"
        "    while request.signal_name is None: time.sleep(0.01)\n"
        "    time.sleep(1)\n"
        "    print('saved', flush=True)\n"
    )
    process.terminate()
    time.sleep(0.3)
    process.terminate()
    process.send_signal(signal.SIGUSR2)
    output, error = process.communicate(timeout=20)
    assert (process.returncode, output, error) == (0, "saved\n", "")


def test_the_same_request_twice_is_raised_once():
    ended = []

    def run():
        with stop_on_signals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                ended.append(True)

    with pytest.raises(Stopped):
        run()
    assert ended


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert request.signal_name is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_dead_watcher_is_told_and_signals_are_heard_all_the_same(monkeypatch, capfd):
    def read(*arguments):
        raise OSError("no such pipe")

    monkeypatch.setattr(preemption.os, "read", read)
    with stop_on_signals() as request, request.defer():
        request._watcher.join()
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal_name == "SIGTERM"
    assert request._timer.finished.is_set()
    assert capfd.readouterr().err == (
        "rethink_jax: signals are heard between two steps only from now on: OSError: no such pipe\n"
    )


def test_without_a_thread_more_signals_are_heard_all_the_same(monkeypatch, capfd):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with stop_on_signals() as request:
        with request.defer():
            os.kill(os.getpid(), signal.SIGUSR1)
        assert request.signal_name == "SIGUSR1"
    assert capfd.readouterr().err == (
        "rethink_jax: nothing ends this process when its grace time is over: can't start new thread\n"
    )


def test_a_process_that_ends_still_answers():
    """Between the last file and the end of the interpreter a signal is one that lost nothing."""
    process = other_process(
        "with stop_on_signals(owns_process=True) as request:\n    request.saved = 'all is saved'\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    process.terminate()
    _, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (75, "rethink_jax: SIGTERM: all is saved\n")
