"""One model of this project for the comparison in turns: its own steps on made-up images in memory."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from rethink_jax import data
from rethink_jax.bench import rates, task
from rethink_jax.distributed import parallel, preemption
from rethink_jax.pipeline.loaders import Dispatch
from rethink_jax.runs import cpu_devices
from rethink_jax.runs.resolve import resolve
from rethink_jax.training.experiment import build
from rethink_jax.training.loop import StopPoll


class Side:
    """Training and evaluation steps of one model.

    Attributes:
      parameters: how many are trained.
      form: how the steps are run, in words.
      flops: floating-point operations of training on one image.
      compile_seconds: duration of the first training step, less that of a later one.
    """

    def __init__(self, model: str, examples: int, batch_size: int, dtype: str):
        images, labels = task.make(model, examples)
        dataset = data.from_arrays((images, labels), (images[:100], labels[:100]), "made_up")
        config = task.recipe(model, examples, batch_size, dtype)
        self._config, info = resolve(config, dataset)
        self._devices = contextlib.ExitStack()  # which stay in use until the process ends
        self._devices.enter_context(cpu_devices.use(self._config))
        experiment = build(self._config, dataset)
        self._experiment, self._examples = experiment, examples
        self.parameters = experiment.parameters
        most = parallel.STEPS_PER_DISPATCH
        self.form = f"{len(parallel.devices())} devices, up to {most} steps a dispatch"
        self._poll = StopPoll(preemption.StopRequest())  # says as in a run how many steps to take
        self.flops = rates.training_flops(self._config, info.num_classes, info.image_shape[-1])
        self._state = parallel.replicate(experiment.initial_state)
        self._train, self._evaluate = self._forever(self._epoch), self._forever(self._split)
        first, second = (self._seconds(self._train_once) for _ in range(2))
        self.compile_seconds = first - second

    def train(self, seconds: float) -> float:
        """Returns the training steps' images a second."""
        return rates.per_second(self._train_once, seconds)

    def evaluate(self, seconds: float) -> float:
        """Returns the evaluation steps' images a second."""
        return rates.per_second(self._evaluate_once, seconds)

    def peak(self, seconds: float) -> float:
        """Returns the FLOP/s of a large matrix product in the same dtype."""
        return rates.matmul_rate(self._config.dtype, seconds)

    def _epoch(self) -> Iterator[Dispatch]:
        steps = -(-self._examples // self._config.batch_size)
        return self._experiment.loader.train(0, steps, lambda: self._poll.max_steps)

    def _split(self) -> Iterator[Dispatch]:
        return (dispatch for _, dispatch in self._experiment.loader.evaluate(["train"]))

    def _forever(self, once: Callable[[], Iterator[Dispatch]]) -> Iterator[tuple[Dispatch, int]]:
        """Yields dispatches and how many examples each has, without a look at the devices."""
        while True:
            left = self._examples
            for dispatch in once():
                size = min(left, dispatch.ids.size // dispatch.ids.shape[1] * dispatch.steps)
                left -= size
                yield dispatch, size

    def _train_once(self) -> tuple[int, Any]:
        (examples, ids, taken), size = next(self._train)
        count = parallel.stage_count(taken)
        self._state, sums = self._experiment.train_steps(self._state, examples, ids, count)
        self._poll.update(taken)
        return size, sums

    def _evaluate_once(self) -> tuple[int, Any]:
        (examples, ids, _), size = next(self._evaluate)
        return size, self._experiment.eval_steps(self._state, examples, ids)

    def _seconds(self, once: Callable[[], tuple[int, Any]]) -> float:
        start = time.perf_counter()
        jax.block_until_ready(once()[1])
        return time.perf_counter() - start
