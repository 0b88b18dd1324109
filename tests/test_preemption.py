import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from rethink_jax import preemption
from rethink_jax.preemption import Stopped, stop_on_signals

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)


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
    header = "import time\nfrom rethink_jax.preemption import stop_on_signals\n"
    process = subprocess.Popen(
        [sys.executable, "-c", header + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


# A sleep goes on after a handler that returns, as a compiler does.
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
        process.wait(0.5)
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
