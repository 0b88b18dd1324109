"""How the examples reach the devices: all of them once, before training, or batch by batch."""

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
from rethink_jax.data.source import Split as EncodedSplit, read_labels
from rethink_jax.data.subset import choose_records, is_sorted_by_class
from rethink_jax.distributed import parallel
from rethink_jax.errors import UserError, require
from rethink_jax.pipeline import inputs, stream

# Examples in one batch of an evaluation of a resident data set, on all devices together.
_EVAL_BATCH = 1000
# Of a stream: the training images whose pixels `gaussian` has its moments from; ours.
_FOR_MOMENTS = 10_000
# Of each split: how many labels the fingerprint of a stream has.
_FOR_FINGERPRINT = 1000


class Dispatch(NamedTuple):
    """What one dispatch of steps takes.

    Attributes:
      examples: what `look_up` finds its examples in.
      ids: int32 [local devices, steps, batch / devices], padding below 0.
      steps: how many of them are to be taken; what is beyond is padding.
    """

    examples: Any
    ids: np.ndarray
    steps: int


def evaluated(config: ConfigDict, info: data.DatasetInfo, split: str) -> int:
    """Returns how many examples of a split an evaluation takes."""
    n = info.num_test if split == "test" else info.num_train
    return min(n, config.evaluate.examples or n)


def _check_part(config: ConfigDict, n: int, labels_at: Callable[[np.ndarray], Any]) -> None:
    """Raises `UserError` where the first examples, which alone are to be evaluated, are of few classes."""
    count = config.evaluate.examples
    if count is not None and count < n:
        allowed = (
            "left out for a set that is sorted by class, whose first examples are of few classes"
        )
        require(not is_sorted_by_class(n, labels_at), "evaluate.examples", count, allowed)


class Resident:
    """Both splits on every device; a dispatch brings ids alone.

    Attributes:
      info: sizes of the data set.
      fingerprint: of the corrupted data.
      look_up: of `examples` and ids, on one device, to the examples.
      sharded_argnums: which arguments of a step have a leading axis of the local devices.
    """

    look_up = staticmethod(inputs.gather)
    sharded_argnums = (2,)

    def __init__(self, config: ConfigDict, dataset: data.Dataset):
        """Corrupts a data set as a resolved config says, and copies it to the devices."""
        self._config, self.info = config, dataset.info
        for examples in (dataset.train, dataset.test):
            _check_part(config, len(examples.labels), examples.labels.__getitem__)
        prepared = inputs.prepare(config, dataset)
        self.fingerprint = prepared.fingerprint
        self._train, self._test = map(parallel.replicate, (prepared.train, prepared.test))

    def train(self, step: int, end: int, most: Callable[[], int]) -> Iterator[Dispatch]:
        """Yields the dispatches of the steps from `step` to `end`, which are of one epoch.

        Args:
          step: the first one.
          end: the one after the last.
          most: how many steps the next dispatch may take.
        """
        n, batch_size = self.info.num_train, self._config.batch_size
        epoch, first = divmod(step, config_lib.steps_per_epoch(self._config, n))
        batches = inputs.epoch_batches(self._config.seed, epoch, n, batch_size)
        batches = batches[first : first + end - step]
        while len(batches):
            part = batches[: most()]
            padding = [(0, parallel.steps_per_dispatch() - len(part)), (0, 0)]
            ids = np.pad(part, padding, constant_values=inputs.PADDING)
            yield Dispatch(self._train, parallel.shard_ids(ids), len(part))
            batches = batches[len(part) :]

    def evaluate(self, splits: Sequence[str]) -> Iterator[tuple[str, Dispatch]]:
        """Yields the dispatches of splits, `train` and `test`, each with the name of its split.

        A split is whole, or its first `config.evaluate.examples` by id.
        """
        devices = len(parallel.devices())
        per_dispatch = parallel.steps_per_dispatch()
        for split in splits:
            n = evaluated(self._config, self.info, split)
            batches = inputs.in_batches(np.arange(n), -(-_EVAL_BATCH // devices) * devices)
            examples = self._test if split == "test" else self._train
            for i in range(0, len(batches), per_dispatch):
                part = batches[i : i + per_dispatch]
                yield split, Dispatch(examples, parallel.shard_ids(part), len(part))

    def close(self) -> None:
        """Has nothing to release."""


class StreamedBatch(NamedTuple):
    """One batch of a stream on a device, not corrupted yet.

    Attributes:
      images: uint8 [n, size, size, channels].
      labels: int32 [n], the true ones.
      key: of the split's corruption, uint32 [2].
    """

    images: Any
    labels: Any
    key: Any


class Streamed:
    """Examples that are read, decoded and cut in worker processes; a dispatch brings one batch.

    What happens to an example after that, its corruption first, happens on the devices.

    Attributes:
      as of `Resident`.
    """

    sharded_argnums = (1, 2)

    def __init__(self, config: ConfigDict, source: data.Source):
        """Opens a data set as a resolved config says; for `gaussian` its first images are read."""
        self._config = config
        self.info, self._splits = _first(source, config.data.examples)
        for encoded in self._splits.values():
            labels_at = functools.partial(read_labels, encoded, self.info.num_classes)
            _check_part(config, encoded.count, labels_at)
        self._keys = {
            split: np.asarray(jax.random.key_data(corruptions.split_key(config.corruption, split)))
            for split in self._splits
        }
        self._iterator: Generator[stream.HostBatch, None, None] | None = None
        self._next = -1
        self.look_up = _corrupt_on_device(config, self.info.num_classes, self._moments())
        self.fingerprint = _digest_of_labels(config, self.info, self._splits, source.version)

    def train(self, step: int, end: int, most: Callable[[], int]) -> Iterator[Dispatch]:
        """Yields the dispatches of the steps from `step` to `end`, each of one step, as `Resident.train`."""
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
        """Yields the dispatches of splits in the order of their ids, as `Resident.evaluate`."""
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

        def parts(rows: np.ndarray) -> np.ndarray:
            return rows.reshape(devices, -1, *rows.shape[1:])

        keys = np.broadcast_to(self._keys[split], (devices, 2))
        examples = StreamedBatch(parts(batch.images), parts(batch.labels), keys)
        return Dispatch(examples, parts(batch.ids)[:, None], 1)

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
            corruptions.pixel_counts(batch.images[batch.ids != inputs.PADDING])
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
) -> Resident | Streamed:
    """Returns the feed that a resolved config asks for, of what `open_data` has opened for it."""
    if opened is None:
        opened = open_data(config)
    if isinstance(opened, data.Source):
        return Streamed(config, opened)
    return Resident(config, opened)


def fingerprint(config: ConfigDict, opened: data.Dataset | data.Source) -> str:
    """Returns the fingerprint that `make`'s feed has, and leaves nothing on the devices."""
    if isinstance(opened, data.Dataset):
        return inputs.prepare(config, opened).fingerprint
    return _digest_of_labels(config, *_first(opened, config.data.examples), opened.version)


def check(config: ConfigDict) -> None:
    """Raises `UserError` for a stream that there cannot be."""
    stream.check(config)
    if config.data.stream:
        before = config.corruption.before_crop
        require(
            not before, "corruption.before_crop", before, "False for a stream, which is cut first"
        )


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
    found: list[Any] = [dataclasses.asdict(info), version]
    for split, encoded in splits.items():
        ids = range(min(encoded.count, _FOR_FINGERPRINT))
        labels = read_labels(encoded, info.num_classes, ids)
        corrupted = inputs.corrupt_labels(config.corruption, split, labels, info.num_classes)
        found += [labels.tolist(), corrupted.tolist()]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _corrupt_on_device(
    config: ConfigDict, num_classes: int, moments: corruptions.Moments | None
) -> Callable[[StreamedBatch, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    corrupt = corruptions.from_config(config.corruption, num_classes, moments)

    def look_up(batch: StreamedBatch, ids: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        key = jax.random.wrap_key_data(batch.key, impl="threefry2x32")
        images, labels = corrupt(key, ids, batch.images, batch.labels)
        return images, labels, batch.labels

    return look_up
