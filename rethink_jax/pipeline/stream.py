"""Batches of data sets that do not fit in memory: read, decoded and cut in worker processes.

What a batch holds is a function of the config and its number alone, so a run resumes at the same example with
any number of processes and workers.
"""

import contextlib
import functools
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from rethink_jax.data.source import (
    DatasetInfo,
    EncodedSplit,
    check_label,
    decode,
    decode_image,
    fetch,
)
from rethink_jax.distributed import preemption
from rethink_jax.errors import UserError
from rethink_jax.pipeline import crops
from rethink_jax.pipeline.batching import PADDING
from rethink_jax.pipeline.shared_buffers import SharedBuffers

# Batches that a worker has ready, and the most that it has on their way, Grain's own buffers included.
READY = 2
AHEAD = 3 * READY + 2
# Of a worker; the devices may have a few batches of it too.
_BUFFERS = AHEAD + 4
_MOST_WORKERS = 64
_LEAST_SHARED = 2**16  # bytes
_NONE = np.zeros(0, np.uint8)
# Keeps the draws of crops apart from all others.
_CROPS = 3
# Which worker this process is.
_worker = 0


class HostBatch(NamedTuple):
    """This process's rows of a batch.

    Attributes:
      images: uint8 [rows, size, size, channels]; zeros where there is no example.
      labels: int32 [rows], the true ones.
      ids: int32 [rows], `PADDING` where there is no example.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True)
class Batches:
    """The batches of a split, as a sequence: batch `i` is the i-th since training began, or of an evaluation.

    Attributes:
      split: encoded.
      info: of the data set; the last of `image_shape` is the number of channels.
      batch_size: the global one.
      rows: which rows of a batch are this process's, int.
      size: side of the square.
      seed: of the order and the crops; None for the order of the ids and the central part.
      count: of the batches.
      random_crop: whether a random part is taken.
      is_inception: which of the two ways of cutting is taken (`crops`).
    """

    split: EncodedSplit
    info: DatasetInfo
    batch_size: int
    rows: np.ndarray
    size: int
    seed: int | None
    count: int
    random_crop: bool
    is_inception: bool

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> HostBatch:
        return self.read(number, np.empty(self.images_shape, np.uint8))

    @property
    def images_shape(self) -> tuple[int, int, int, int]:
        """Of the images of one batch."""
        return len(self.rows), self.size, self.size, self.info.image_shape[-1]

    def read(self, number: int, images: np.ndarray) -> HostBatch:
        """Returns a batch whose images are put in the given array."""
        per_epoch = -(-self.split.count // self.batch_size)
        epoch, within = divmod(int(number), per_epoch)
        ids = self._ids(epoch, within * self.batch_size + self.rows)
        labels = np.zeros(len(ids), np.int32)
        for row, example_id in enumerate(ids.tolist()):
            if example_id == PADDING:
                images[row] = 0
            else:
                image, labels[row] = self._decode(example_id)
                box = self._box(epoch, example_id, *image.shape[:2])
                crops.resize(image, box, images[row])
        return HostBatch(images, labels, ids)

    def _ids(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Returns the ids at positions of an epoch's order: index arithmetic, nothing of the set's size."""
        from grain.experimental import index_shuffle  # slow to import, and for streams alone

        n = self.split.count
        if self.seed is None:
            return np.where(positions < n, positions, PADDING).astype(np.int32)
        (seed,) = np.random.SeedSequence((self.seed, epoch)).generate_state(1)
        shuffle = functools.partial(index_shuffle, max_index=n - 1, seed=int(seed), rounds=4)
        return np.asarray([shuffle(int(p)) if p < n else PADDING for p in positions], np.int32)

    def _box(self, epoch: int, example_id: int, height: int, width: int) -> crops.Box:
        if self.seed is None or not self.random_crop:
            return crops.central_box(height, width, square=not self.is_inception)
        draws = np.random.Philox(key=[self.seed, _CROPS], counter=[0, 0, epoch, example_id])
        rng = np.random.Generator(draws)
        return crops.random_box(height, width, rng, 0.05 if self.is_inception else 0.08)

    def _decode(self, example_id: int) -> tuple[np.ndarray, int]:
        (record,) = fetch(self.split, [example_id])
        to_pixels = functools.partial(decode_image, channels=self.info.image_shape[-1])
        image, label = decode(self.split, example_id, record, to_pixels)
        check_label(self.split, example_id, label, self.info.num_classes)
        return image, label


def workers_of(data: ConfigDict) -> int:
    """Returns how many worker processes `config.data` asks for; by default one a core, 64 at most."""
    return min(os.cpu_count() or 1, _MOST_WORKERS) if data.workers is None else data.workers


def iterate(
    splits: Sequence[Batches], first: int, workers: int
) -> Generator[HostBatch, None, None]:
    """Yields the batches of splits, one split after the other, from number `first` on, prepared ahead.

    Args:
      splits: whose batches are of one shape.
      first: the number of the first one, counted from the first split's begin.
      workers: processes; with 0 this one prepares each batch when it is asked for.

    Raises:
      UserError: naming a record that cannot be read or does not decode.
    """
    # Only Linux has such memory; elsewhere Grain copies the images to shared memory of its own.
    uses_buffers = workers > 0 and sys.platform == "linux"
    buffers = SharedBuffers(workers, _BUFFERS, splits[0].images_shape) if uses_buffers else None
    source = _InSharedBuffers(splits, buffers)
    if not workers:
        for number in range(first, len(source)):
            yield source[number][1]
        return
    with contextlib.ExitStack() as stack:
        if buffers:
            stack.enter_context(contextlib.closing(buffers))
        arriving = stack.enter_context(contextlib.closing(_from_workers(source, first, workers)))
        for buffer, batch in arriving:
            if buffers and buffer is not None:
                batch = batch._replace(images=buffers.view(buffer, free_after=True))
            yield batch
            del batch  # which would keep its buffer until the next one has come


class _InSharedBuffers:
    """Batches as a worker sends them: the buffer with the images, where one was free, and the rest."""

    def __init__(self, splits: Sequence[Batches], buffers: SharedBuffers | None):
        self._splits, self._buffers = splits, buffers

    def __len__(self) -> int:
        return sum(map(len, self._splits))

    def __getitem__(self, number: int) -> tuple[int | None, HostBatch]:
        remaining = iter(self._splits)
        while number >= len(batches := next(remaining)):
            number -= len(batches)
        buffer = self._buffers.acquire(_worker) if self._buffers else None
        if self._buffers is None or buffer is None:
            return None, batches[number]
        batch = batches.read(number, self._buffers.view(buffer))
        return buffer, batch._replace(images=_NONE)


def _from_workers(source: _InSharedBuffers, first: int, workers: int) -> Generator[Any, None, None]:
    import grain  # slow to import, and for streams alone
    from grain.experimental import DatasetOptions, WithOptionsIterDataset

    # No threads: what prepares ahead are the processes.
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    dataset = grain.MapDataset.source(source).slice(slice(first, None)).to_iter_dataset(options)
    if not flags.FLAGS.is_parsed():  # Grain has flags, and the program that calls may have none
        flags.FLAGS.mark_as_parsed()
    dataset = dataset.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=READY),
        worker_init_fn=_begin_worker,
    )
    # Labels and ids are sent, images lie in shared memory.
    sharing = DatasetOptions(min_shm_size=_LEAST_SHARED)
    iterator = iter(WithOptionsIterDataset(dataset, sharing))
    try:
        with _signals_held_back():
            batch = next(iterator, None)  # begins the workers
        if batch is not None:
            yield batch
        yield from iterator
    finally:
        iterator.close()
        del iterator
        gc.collect()  # Grain's iterators are in cycles, and hold shared memory that would be leaked at the end


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Blocks signals, also in processes that start meanwhile, until they leave signals to their parent."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, preemption.SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check_main_guard() -> None:
    """Raises `UserError` in a worker that imports the script that started it, and so runs it again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(
            "a worker process imports the script that started it; put what the script runs under "
            "`if __name__ == '__main__':`, or set config.data.workers to 0"
        )


def _begin_worker(index: int, count: int) -> None:
    """Starts a worker: it learns its number, leaves signals to its parent and ends with it."""
    global _worker
    _worker = index
    for number in preemption.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
