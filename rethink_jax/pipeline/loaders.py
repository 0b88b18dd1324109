"""Loaders of batches: from a data set in memory, copied to the devices once, or streamed from disk."""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, corruptions, data
from rethink_jax.data.source import EncodedSplit, read_labels
from rethink_jax.data.subset import choose_records, is_sorted_by_class
from rethink_jax.distributed import parallel
from rethink_jax.errors import UserError, require
from rethink_jax.pipeline import batching, inputs, stream

# Examples in one batch of an evaluation of a data set in memory, on all devices together.
_EVAL_BATCH = 1000
# Batches in one dispatch on several simulated devices of a CPU, and examples of a batch on each. These devices
# are for networks with convolutions, whose maps of more examples fit into no cache. Images of a greater side,
# which may take a second each, have fewer batches, in proportion to their pixels.
_EVAL_OF_SIMULATED_DEVICE, _EVAL_SIDE = (16, 32), 64
# Training images of a stream from which `gaussian` takes its moments. Not in the paper; our choice.
_FOR_MOMENTS = 10_000
# Labels of each split in a stream's fingerprint.
_FOR_FINGERPRINT = 1000


class Dispatch(NamedTuple):
    """What one dispatch of steps takes.

    Attributes:
      examples: in which the loader's `gather` finds the ids' examples.
      ids: int32 [local devices, steps, batch / devices], padding below 0; like the examples on
        accelerators already, so that a dispatch waits for no copy.
      steps: how many steps to take; the rows beyond are padding.
    """

    examples: Any
    ids: jax.Array | np.ndarray
    steps: int


def evaluated(config: ConfigDict, info: data.DatasetInfo, split: str) -> int:
    """Returns how many examples of a split an evaluation takes."""
    n = info.num_test if split == "test" else info.num_train
    return min(n, config.evaluate.examples or n)


def check_part(config: ConfigDict, n: int, labels_at: Callable[[np.ndarray], Any]) -> None:
    """Raises `UserError` where the first examples, which alone are to be evaluated, are of few classes."""
    count = config.evaluate.examples
    if count is not None and count < n:
        allowed = (
            "left out for a set that is sorted by class, whose first examples are of few classes"
        )
        require(not is_sorted_by_class(n, labels_at), "evaluate.examples", count, allowed)


class InMemoryLoader:
    """Loads batches of a data set in memory: both splits lie on every device, and a dispatch sends ids only.

    Attributes:
      info: sizes of the data set.
      fingerprint: of the corrupted data.
      gather: function `(examples, ids) -> (images, labels, true_labels)`, on one device.
      sharded_argnums: which arguments of a step have a leading axis of the local devices.
      train_labels: int32 [n] those trained on, int32 [n] the true ones, and the examples' own ids.
    """

    gather = staticmethod(inputs.gather)
    sharded_argnums = (2,)

    def __init__(self, config: ConfigDict, dataset: data.Dataset):
        """Corrupts a data set as a resolved config says, and copies it to the devices."""
        self._config, self.info = config, dataset.info
        for examples in (dataset.train, dataset.test):
            check_part(config, len(examples.labels), examples.labels.__getitem__)
        prepared = inputs.prepare(config, dataset)
        inputs.log_changes([prepared.train.labels], prepared.train.true_labels)
        self.fingerprint = prepared.fingerprint
        of_train = prepared.train
        self.train_labels = of_train.labels, of_train.true_labels, dataset.train.own_ids
        self._train, self._test = map(parallel.replicate, (prepared.train, prepared.test))

    def train(self, step: int, end: int, max_steps: Callable[[], int]) -> Iterator[Dispatch]:
        """Yields the dispatches of the steps from `step` to `end`, which are of one epoch.

        Args:
          step: the first one.
          end: the one after the last.
          max_steps: returns how many steps the next dispatch may take at most.
        """
        n, batch_size = self.info.num_train, self._config.batch_size
        epoch, first = divmod(step, config_lib.steps_per_epoch(self._config, n))
        batches = batching.epoch_batches(self._config.seed, epoch, n, batch_size)
        batches = batches[first : first + end - step]
        while len(batches):
            part = batches[: max_steps()]
            ids = batching.pad_steps(part, parallel.STEPS_PER_DISPATCH)
            yield Dispatch(self._train, parallel.stage_shards(parallel.shard_ids(ids)), len(part))
            batches = batches[len(part) :]

    def evaluate(self, splits: Sequence[str]) -> Iterator[tuple[str, Dispatch]]:
        """Yields the dispatches of splits, `train` and `test`, each with the name of its split.

        A split is whole, or its first `config.evaluate.examples` by id.
        """
        per_dispatch, batch_size = _evaluated_at_once(self.info.image_shape[0])
        for split in splits:
            n = evaluated(self._config, self.info, split)
            batches = batching.in_batches(np.arange(n), batch_size)
            examples = self._test if split == "test" else self._train
            for i in range(0, len(batches), per_dispatch):
                part = batches[i : i + per_dispatch]
                ids = parallel.shard_ids(batching.pad_steps(part, per_dispatch))
                ids = parallel.stage_shards(ids)
                yield split, Dispatch(examples, ids, len(part))

    def close(self) -> None:
        """Releases nothing; a streaming loader has workers to end."""


def _evaluated_at_once(side: int) -> tuple[int, int]:
    """Returns how many batches one dispatch of an evaluation has, and of how many examples on all devices.

    A CPU may take seconds for each batch, and a signal is answered between dispatches.
    """
    devices, is_cpu = len(parallel.devices()), jax.default_backend() == "cpu"
    if is_cpu and devices > 1:
        batches, on_each = _EVAL_OF_SIMULATED_DEVICE
        affordable = batches * _EVAL_SIDE**2 // side**2
        return max(1, min(batches, affordable)), on_each * devices
    return 1 if is_cpu else parallel.STEPS_PER_DISPATCH, -(-_EVAL_BATCH // devices) * devices


class StreamingBatch(NamedTuple):
    """One batch of a stream on a device, not corrupted yet.

    Attributes:
      images: uint8 [n, size, size, channels].
      labels: int32 [n], the true ones.
      key: of the split's corruption, uint32 [2].
    """

    images: Any
    labels: Any
    key: Any


class StreamingLoader:
    """Loads batches of a data set on disk: worker processes read, decode and cut, a dispatch sends one batch.

    Corruption and augmentation follow on the devices.

    Attributes:
      info: sizes of the data set.
      fingerprint: of the sizes and the first labels, true and corrupted.
      gather: function `(batch, ids) -> (images, labels, true_labels)`, on one device; it corrupts the batch.
      sharded_argnums: which arguments of a step have a leading axis of the local devices.
    """

    sharded_argnums = (1, 2)

    def __init__(self, config: ConfigDict, source: data.Source):
        """Opens a data set as a resolved config says; for `gaussian` its first images are read."""
        self._config = config
        self.info, self._splits = _first(source, config.data.examples)
        for encoded in self._splits.values():
            labels_at = functools.partial(read_labels, encoded, self.info.num_classes)
            check_part(config, encoded.count, labels_at)
        self._keys = {
            split: np.asarray(jax.random.key_data(inputs.split_key(config.corruption, split)))
            for split in self._splits
        }
        self._iterator: Generator[stream.HostBatch, None, None] | None = None
        self._next = -1
        self.gather = _corrupt_on_device(config, self.info, self._moments())
        self.fingerprint = _digest_of_labels(config, self.info, self._splits, source.version)

    def train(self, step: int, end: int, max_steps: Callable[[], int]) -> Iterator[Dispatch]:
        """Yields the dispatches of the steps from `step` to `end`, each of one step.

        The arguments are those of `InMemoryLoader.train`; `max_steps` is not asked.
        """
        if self._next != step:
            self.close()
            batches = self._batches(
                "train", config_lib.total_steps(self._config, self.info.num_train)
            )
            self._next = step
            self._iterator = stream.iterate([batches], step, stream.workers_of(self._config.data))
        assert self._iterator is not None
        while self._next < end:
            batch = _next(self._iterator)
            self._next += 1
            yield self._dispatch("train", batch)

    def evaluate(self, splits: Sequence[str]) -> Iterator[tuple[str, Dispatch]]:
        """Yields the dispatches of splits in the order of their ids; see `InMemoryLoader.evaluate`."""
        batches = {split: self._batches(split) for split in splits}
        workers = stream.workers_of(self._config.data)
        with contextlib.closing(stream.iterate([*batches.values()], 0, workers)) as iterator:
            for split, each in batches.items():
                for _ in range(len(each)):
                    yield split, self._dispatch(split, _next(iterator))

    def close(self) -> None:
        """Ends the worker processes."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator, self._next = None, -1

    def _batches(self, split: str, steps: int | None = None) -> stream.Batches:
        """Returns the batches of `steps` steps of training, or of an evaluation."""
        config, encoded = self._config, self._splits[split]
        if steps is None:
            count = evaluated(config, self.info, split)
            encoded = dataclasses.replace(encoded, count=count)
        return stream.Batches(
            split=encoded,
            info=self.info,
            batch_size=config.batch_size,
            rows=parallel.local_rows(config.batch_size),
            size=config.data.size,
            seed=None if steps is None else config.seed,
            count=steps or -(-encoded.count // config.batch_size),
            random_crop=config.augment.random_crop,
            is_inception=config.model.name.startswith("inception_"),
        )

    def _dispatch(self, split: str, batch: stream.HostBatch) -> Dispatch:
        devices = parallel.local_count()

        def shards(rows: np.ndarray) -> np.ndarray:
            return rows.reshape(devices, -1, *rows.shape[1:])

        keys = np.broadcast_to(self._keys[split], (devices, 2))
        examples = StreamingBatch(shards(batch.images), shards(batch.labels), keys)
        examples, ids = parallel.stage_shards((examples, shards(batch.ids)[:, None]))
        return Dispatch(examples, ids, 1)

    def _moments(self) -> corruptions.Moments | None:
        if self._config.corruption.name != "gaussian":
            return None
        batches = dataclasses.replace(
            self._batches("train"),
            split=self._splits["train"],
            rows=np.arange(self._config.batch_size),
            count=-(-min(self.info.num_train, _FOR_MOMENTS) // self._config.batch_size),
        )
        counts: Any = sum(
            corruptions.pixel_counts(batch.images[batch.ids != batching.PADDING])
            for batch in stream.iterate([batches], 0, stream.workers_of(self._config.data))
        )
        return corruptions.moments_of(counts, self._config.corruption.per_channel)


def _next(iterator: Iterator[stream.HostBatch]) -> stream.HostBatch:
    """Returns the next batch; of several processes one that has none must not wait for the others to leave."""
    try:
        return next(iterator)
    except UserError as error:
        if jax.process_count() == 1:
            raise
        raise RuntimeError(str(error)) from error


def open_data(
    config: ConfigDict, dataset: data.Dataset | None = None
) -> data.Dataset | data.Source:
    """Returns the data that a config asks for, of its own data set or of one that is handed over.

    Raises:
      UserError: as `rethink_jax.data.load` and `.as_asked`.
    """
    if dataset is not None:
        return data.as_asked(dataset, config.data)
    return data.open_source(config.data) if config.data.stream else data.load(config.data)


def make(
    config: ConfigDict, opened: data.Dataset | data.Source | None = None
) -> InMemoryLoader | StreamingLoader:
    """Returns the loader that a resolved config asks for, of the data that `open_data` opened for it."""
    if opened is None:
        opened = open_data(config)
    if isinstance(opened, data.Source):
        return StreamingLoader(config, opened)
    return InMemoryLoader(config, opened)


def fingerprint(config: ConfigDict, opened: data.Dataset | data.Source) -> str:
    """Returns the fingerprint of the loader that `make` would return, and leaves nothing on the devices."""
    if isinstance(opened, data.Dataset):
        return inputs.prepare(config, opened).fingerprint
    return _digest_of_labels(config, *_first(opened, config.data.examples), opened.version)


def _first(
    source: data.Source, examples: int | None
) -> tuple[data.DatasetInfo, dict[str, EncodedSplit]]:
    """Returns the sizes and the splits of so many examples, as `data.take` of a data set in memory."""
    info, splits = source.info, {"train": source.train, "test": source.test}
    if examples is not None:
        titles = {"train": "training", "test": "test"}
        splits = {
            name: choose_records(
                *(split, examples, info.num_classes, f"{info.name}'s {titles[name]} examples")
            )
            for name, split in splits.items()
        }
    counted = dataclasses.replace(
        info, num_train=splits["train"].count, num_test=splits["test"].count
    )
    return counted, splits


def _digest_of_labels(
    config: ConfigDict, info: data.DatasetInfo, splits: dict[str, EncodedSplit], version: str
) -> str:
    """Returns a digest of a stream's sizes and of its first labels, true and corrupted.

    Of its images `Source.fingerprint` has some; a run compares both.
    """
    content: list[Any] = [dataclasses.asdict(info), version]
    for split, encoded in splits.items():
        ids = range(min(encoded.count, _FOR_FINGERPRINT))
        labels = read_labels(encoded, info.num_classes, ids)
        corrupted = inputs.corrupt_labels(config.corruption, split, labels, info)
        content += [labels.tolist(), corrupted.tolist()]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _corrupt_on_device(
    config: ConfigDict, info: data.DatasetInfo, moments: corruptions.Moments | None
) -> Callable[[StreamingBatch, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    corrupt = inputs.from_config(config.corruption, info, moments)

    def gather(batch: StreamingBatch, ids: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        key = jax.random.wrap_key_data(batch.key, impl="threefry2x32")
        images, labels = corrupt(key, ids, batch.images, batch.labels)
        return images, labels, batch.labels

    return gather
