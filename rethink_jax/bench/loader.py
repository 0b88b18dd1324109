"""The rate of a stream's examples, beside a bare loop of OpenCV's decoder on as many processes."""

import contextlib
import dataclasses
import functools
import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ml_collections import ConfigDict

from rethink_jax import data
from rethink_jax.bench.rates import Row, step_rate
from rethink_jax.data import Source
from rethink_jax.data.source import EncodedSplit, decode_image
from rethink_jax.paper import IMAGENET_TRAIN
from rethink_jax.pipeline import crops, stream

# How many JPEGs the bare loop decodes over and over.
_BARE_IMAGES = 200
_TURNS = 5
_MIB = 2**20


def bare_rate(source: Source, size: int, workers: int, seconds: float) -> tuple[float, float]:
    """Returns how many images a bare loop decodes and crops in a second, and its process's memory before.

    Args:
      source: has JPEGs, the first of which are kept in memory.
      size: side of the squares.
      workers: number of processes, each with all of them.
      seconds: duration.

    Returns:
      (images a second of all processes together, bytes of a process with the loader's imports).
    """
    count = min(source.train.count, _BARE_IMAGES)
    jpegs = [source.train.parse(record)[0] for record in source.train.fetch(range(count))]
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as pool:
        results = [pool.apply_async(_decode, (jpegs, size, seconds)) for _ in range(workers)]
        rates, memories = zip(*(result.get() for result in results), strict=True)
    return sum(rates), max(memories)


def _decode(jpegs: list[bytes], size: int, seconds: float) -> tuple[float, float]:
    memory = resident_bytes(os.getpid())
    cv2.setNumThreads(1)
    rng, square = np.random.default_rng(0), np.empty((size, size, 3), np.uint8)
    start, done = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        image = decode_image(jpegs[done % len(jpegs)], channels=3)
        height, width = image.shape[:2]
        crops.resize(image, crops.random_box(height, width, rng, 0.08), square)
        done += 1
    return done / (time.perf_counter() - start), memory


def compare_rates(
    source: Source, batches: stream.Batches, workers: int, images: int, seconds: float
) -> tuple[list[float], list[float], list[float]]:
    """Returns the images a second of the bare loop and the loader, measured in turns, and the loader's memory.

    Args:
      source: has JPEGs.
      batches: of the same JPEGs, more than are read.
      workers: number of processes of each.
      images: how many the loader delivers in all turns together.
      seconds: duration of the bare loop in all turns together.

    Returns:
      (images a second of the bare loop in each turn, of the loader in each turn, and by how many bytes the
      largest worker exceeds a process of the bare loop that has decoded nothing yet, before the first and after
      each turn).
    """
    bare: list[float] = []
    loaded: list[float] = []
    memory: list[float] = []
    ahead = workers * stream.AHEAD
    count = math.ceil(images / batches.batch_size / _TURNS)
    with contextlib.closing(stream.iterate([batches], 0, workers)) as iterator:
        next(iterator)
        for _ in range(_TURNS):
            _wait_for_idle_workers()
            rate, baseline = bare_rate(source, batches.size, workers, seconds / _TURNS)
            bare.append(rate)
            for _ in range(ahead):  # which were prepared meanwhile
                next(iterator)
            if not memory:
                memory.append(_largest_worker() - baseline)
            start = time.perf_counter()
            for _ in range(count):
                next(iterator)
            loaded.append(count * batches.batch_size / (time.perf_counter() - start))
            memory.append(_largest_worker() - baseline)
    return bare, loaded, memory


def _wait_for_idle_workers() -> None:
    """Waits until the loader's workers have filled their buffers."""
    before = None
    while (
        now := [cpu_ticks(child.pid or 0) for child in multiprocessing.active_children()]
    ) != before:
        before = now
        time.sleep(0.5)


def cpu_ticks(pid: int) -> int:
    """Returns the CPU time of a process, in ticks of the system's clock (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def _largest_worker() -> float:
    return max(resident_bytes(child.pid or 0) for child in multiprocessing.active_children())


def resident_bytes(pid: int) -> float:
    """Returns the resident memory of a process, shared memory included (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def time_input(config: ConfigDict, images: int, seconds: float) -> Iterator[Row]:
    """Yields what is measured of a stream as rows of text: the loader and the bare loop in turns.

    Args:
      config: resolved.
      images: how many the loader delivers.
      seconds: duration of each of the other measurements.
    """
    source = data.open_source(config.data)
    workers, size = stream.workers_of(config.data), config.data.size
    batches = stream.Batches(
        split=_as_many_as_imagenet(source.train),
        info=source.info,
        batch_size=config.batch_size,
        rows=np.arange(config.batch_size),
        size=size,
        seed=0,
        count=2**31,
        random_crop=True,
        is_inception=False,
    )
    yield "worker processes", f"{workers}"
    bare, loaded, memory = compare_rates(source, batches, workers, images, seconds)
    shares = [ours / theirs for ours, theirs in zip(loaded, bare, strict=True)]
    rate = statistics.median(loaded)
    yield "bare decoder and crop, in turns", _listed(bare, "{:,.0f}") + " images/s"
    yield f"loader, over {images:,} images", _listed(loaded, "{:,.0f}") + " images/s"
    yield "loader / bare decoder", f"{statistics.median(shares):.1%} ({_listed(shares, '{:.1%}')})"
    in_mib = [bytes_ / _MIB for bytes_ in memory]
    yield "a worker's memory above a bare one's", _listed(in_mib, "{:,.0f}") + " MiB"
    steps = step_rate(config, seconds)
    slower = "the loader" if rate < steps else "the steps"
    yield f"training steps, {config.model.name}", f"{steps:,.0f} images/s"
    yield "what limits", f"{slower}: {min(rate, steps):,.0f} images/s"


def _as_many_as_imagenet(split: EncodedSplit) -> EncodedSplit:
    """Returns a split as large as ImageNet's that repeats the given examples: shuffling a few takes longer."""
    fetch = functools.partial(_fetch_again, split)
    return dataclasses.replace(split, count=max(split.count, IMAGENET_TRAIN), fetch=fetch)


def _fetch_again(split: EncodedSplit, positions: Sequence[int]) -> Sequence[Any]:
    return split.fetch([position % split.count for position in positions])


def _listed(values: list[float], form: str) -> str:
    return ", ".join(form.format(value) for value in values)
