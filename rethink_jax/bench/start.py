"""How long a run of one step takes from the command to its end, and how much memory it needs."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from rethink_jax.bench.rates import Row
from rethink_jax.bench.worker import MAXRSS_UNIT


def time_start(arguments: Sequence[str], repeats: int) -> Iterator[Row]:
    """Yields the time and the memory of `rethink_jax.main` with `--config.steps=1`, as rows of text.

    The run evaluates both splits. One run before the first that is timed fills the caches.

    Args:
      arguments: `--config` and its fields, as for `rethink_jax.main`.
      repeats: of which the medians are taken.

    Raises:
      SystemExit: with the code of a run that fails, and has said why.
    """
    seconds, peaks = zip(*[_one(arguments) for _ in range(repeats + 1)][1:], strict=True)
    yield "command to end, one step and an evaluation", f"{statistics.median(seconds):.1f} s"
    yield "peak memory", f"{statistics.median(peaks) / 2**30:.2f} GiB"


def _one(arguments: Sequence[str]) -> tuple[float, int]:
    """Returns the seconds and the peak memory in bytes of one run."""
    with tempfile.TemporaryDirectory() as folder:
        own = ["--config.steps=1", f"--workdir={folder}/run"]
        command = [sys.executable, "-m", "rethink_jax.main", *arguments, *own]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    return seconds, usage.ru_maxrss * MAXRSS_UNIT
