"""Times this project's steps and PyTorch's in turns, each side in a process of its own."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from rethink_jax.bench.worker import MARK
from rethink_jax.errors import RunFailed

Result = dict[str, Any]

# Examples in memory: few enough that the turns cover whole epochs.
EXAMPLES = 10_000


class Worker:
    """A process that answers requests; see `rethink_jax.bench.worker`.

    Attributes:
      facts: what it reports about itself.
    """

    def __init__(self, process: subprocess.Popen, name: str):
        self._process, self._name = process, name
        self.facts: dict[str, Any] = self._read()

    def ask(self, word: str) -> float:
        """Sends a word to the worker and returns the number that it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise RunFailed(f"the worker of {self._name} ended; its own lines above say why")


@contextmanager
def start(
    side: str, model: str, dtype: str, examples: int, batch_size: int, seconds: float
) -> Iterator[Worker]:
    """Yields a worker that is ready, and ends it afterwards."""
    command = [sys.executable, "-m", "rethink_jax.bench.worker", f"--side={side}"]
    command += [f"--model={model}", f"--dtype={dtype}", f"--examples={examples}"]
    command += [f"--batch_size={batch_size}", f"--seconds={seconds}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Worker(process, f"{side}, {model}")
        finally:
            process.kill()


def compare(
    model: str,
    what: Sequence[str],
    sides: Sequence[tuple[str, str]],
    repeats: int,
    batch_size: int,
    seconds: float,
) -> list[Result]:
    """Times one model on several sides in turns: each repeat asks every side once.

    Args:
      model: one of `task.MODELS`.
      what: `train`, `eval` or both.
      sides: pairs of a side, `ours`, `torch` or `loop`, and a dtype; the first is `ours`.
      repeats: number of turns, over which medians are taken.
      batch_size: examples in one step.
      seconds: duration of each measurement.

    Returns:
      One result for each side: its facts; `rates`, for each thing timed one rate in images/s a turn; `memory`,
      its peak in bytes; and for `ours` also `peak`, the FLOP/s of a large product.
    """
    with ExitStack() as stack:
        workers = [
            stack.enter_context(start(side, model, dtype, EXAMPLES, batch_size, seconds))
            for side, dtype in sides
        ]
        results: list[Result] = [
            {"side": side, "dtype": dtype, "model": model, "rates": {}, **worker.facts}
            for (side, dtype), worker in zip(sides, workers, strict=True)
        ]
        for word in what:
            asked = [
                (worker, result)
                for worker, result in zip(workers, results, strict=True)
                if word == "train" or result["side"] != "loop"
            ]
            for _ in range(repeats):
                for worker, result in asked:
                    result["rates"].setdefault(word, []).append(worker.ask(word))
        results[0]["peak"] = workers[0].ask("peak")
        for worker, result in zip(workers, results, strict=True):
            result["memory"] = worker.ask("memory")
    return results


def ratios(results: Sequence[Result], word: str) -> list[float | None]:
    """Returns each result's median over the turns of our rate divided by its rate; None if it has none."""
    ours = results[0]["rates"][word]
    return [
        statistics.median(a / b for a, b in zip(ours, result["rates"][word], strict=True))
        if word in result["rates"]
        else None
        for result in results
    ]
