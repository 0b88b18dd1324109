"""MLPs trained on subsets of the examples: several on each device, and no sums between them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rethink_jax import config as config_lib
from rethink_jax.corruptions import key_of
from rethink_jax.data import DatasetInfo
from rethink_jax.distributed import parallel
from rethink_jax.pipeline import batching, inputs
from rethink_jax.training import ensemble
from rethink_jax.training.ensemble import Members, Programs

# Is told the part of the work that is done; raises `Stopped` after a signal.
Show = Callable[[float], None]


class Trainer:
    """Trains members on subsets of one training set, and has them answer both splits."""

    def __init__(self, config: ConfigDict, info: DatasetInfo, prepared: inputs.Inputs):
        """Takes a resolved config, and the splits that the members see; copies these to the devices."""
        self._config, self._info = config, info
        self._labels = prepared.train.labels, prepared.test.labels
        self._train, self._test = (
            parallel.replicate(split) for split in (prepared.train, prepared.test)
        )

    def answer(
        self, is_member: np.ndarray, seeds: np.ndarray, show: Show
    ) -> tuple[np.ndarray, np.ndarray]:
        """Trains a member on each subset, and returns the answers of all.

        A member's numbers do not depend on the others, on the devices or on how many train at once, but for the
        rounding of sums, whose order the compiled program decides.

        Args:
          is_member: bool [k, n], equally many of each row true.
          seeds: uint32 [k], of initial weights and order.
          show: is told how much is done.

        Returns:
          int32 [k, n] on the training set and [k, m] on the test set.

        Raises:
          Diverged: a loss is not finite.
        """
        subsets = np.stack([np.nonzero(row)[0] for row in is_member]).astype(np.int32)
        programs = ensemble.programs_of(self._config, self._info, subsets.shape[1])
        states = self._fit(programs, subsets, seeds, show)
        on_train, on_test = (
            self._answers(programs, states, split, len(seeds), show)
            for split in (self._train, self._test)
        )
        return on_train, on_test

    def _fit(self, programs: Programs, subsets: np.ndarray, seeds: np.ndarray, show: Show) -> Any:
        config, size = self._config, subsets.shape[1]
        per_epoch = config_lib.steps_per_epoch(config, size)
        total, step, sums = config_lib.total_steps(config, size), 0, None
        optimizer = config.optimizer
        rate, decay = (
            np.asarray(value, np.float32)
            for value in (optimizer.learning_rate, optimizer.weight_decay)
        )
        differing = ensemble.divide([Members(rate, decay, *self._labels)] * len(seeds))
        initial = [jax.device_get(programs.initialize(key_of(seed))) for seed in seeds]
        states = ensemble.divide(initial)
        while step < total:
            epoch, first = divmod(step, per_epoch)
            end = min(per_epoch, first + total - step, first + parallel.STEPS_PER_DISPATCH)
            if first == 0:
                order = _ids(subsets, seeds, epoch, config.batch_size)
            ids = order[:, first:end]
            shards = ensemble.divide([*batching.pad_steps(ids, parallel.STEPS_PER_DISPATCH)])
            count = parallel.stage_count(end - first)
            states, sums = programs.train_steps(states, differing, self._train, shards, count)
            step += end - first
            show(step / total)
        losses = [
            float(own["loss"][end - first - 1]) for own in ensemble.gather_members(sums, len(seeds))
        ]
        ensemble.check_finite(losses, "config.optimizer.learning_rate", optimizer.learning_rate)
        return states

    def _answers(
        self, programs: Programs, states: Any, split: inputs.Split, count: int, show: Show
    ) -> np.ndarray:
        """Returns the answers of `count` members on a split, int32 [members, examples]."""
        n, parts = len(split.labels), []
        for ids in ensemble.evaluation_ids(n):
            answers = programs.answer_steps(states, split, ids)
            parts.append(np.stack(ensemble.gather_members(answers, count)).reshape(count, -1))
            show(1.0)
        return np.concatenate(parts, axis=1)[:, :n]


def _ids(subsets: np.ndarray, seeds: np.ndarray, epoch: int, batch_size: int) -> np.ndarray:
    """Returns each member's batches of an epoch, int32 [members, steps, batch], the last one padded."""
    positions = batching.epoch_batches_of(seeds.tolist(), epoch, subsets.shape[1], batch_size)
    flat = positions.reshape(len(subsets), -1)
    ids = np.take_along_axis(subsets, np.maximum(flat, 0), axis=1)
    return np.where(flat == batching.PADDING, batching.PADDING, ids).reshape(positions.shape)
