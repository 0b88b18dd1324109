"""`python -m rethink_jax.bench --what=input`: how fast examples arrive, beside what limits them.

`input` times the loader of a streamed data set beside a bare loop of OpenCV's decoder on as many
processes and the same JPEGs, and the model's training steps. `step` times the steps alone, beside the
largest matrix product of the device. Without `--config.data.data_dir` the images are made for it.
"""

import contextlib
import dataclasses
import functools
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console
from rich.table import Table

from rethink_jax import command_line, data, models, output, parallel, train
from rethink_jax.config import RunFailed, UserError, require
from rethink_jax.data import Source, cache, crops, made, stream
from rethink_jax.data.examples import Split
from rethink_jax.paper import IMAGENET_TRAIN

DEFAULT_CONFIG = "--config=configs/imagenet/true_labels.py"
WHAT = flags.DEFINE_enum("what", "input", ["input", "step"], "What is timed.")
IMAGES = flags.DEFINE_integer("images", 50_000, "Images that the loader is timed over.", 1)
SECONDS = flags.DEFINE_float("seconds", 20.0, "Time for each of the other measurements.", 0.1)
CONFIG = config_flags.DEFINE_config_file("config", None, "As for rethink_jax.main.")

_MADE_TRAIN, _MADE_TEST = 2000, 10
# JPEGs that the bare loop goes round.
_BARE_IMAGES = 200
_TURNS = 5
_MIB = 2**20

Row = tuple[str, str]


def bare_rate(source: Source, size: int, workers: int, seconds: float) -> tuple[float, float]:
    """Returns what a bare loop decodes and cuts in a second, and its process's memory before that.

    Args:
      source: of JPEGs, the first of which are kept in memory.
      size: side of the squares.
      workers: processes, each with all of them.
      seconds: how long.

    Returns:
      (images a second of all processes together, bytes of one that has the loader's imports).
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
        image = stream.decode_image(jpegs[done % len(jpegs)], channels=3)
        height, width = image.shape[:2]
        crops.resize(image, crops.random_box(height, width, rng, 0.08), square)
        done += 1
    return done / (time.perf_counter() - start), memory


def compare_rates(
    source: Source, batches: stream.Batches, workers: int, images: int, seconds: float
) -> tuple[list[float], list[float], list[float]]:
    """Returns what the bare loop and the loader bring in a second, in turns, and the loader's memory.

    Args:
      source: of JPEGs.
      batches: of the same, more than are read.
      workers: processes of either.
      images: how many the loader is timed over, in all turns together.
      seconds: of the bare loop, likewise.

    Returns:
      (images a second of the bare loop in each turn, of the loader likewise, and bytes of the largest worker
      above a process of the bare loop that has decoded nothing yet, after each turn and before the first one).
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
            for _ in range(ahead):  # what was prepared meanwhile
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
    """Waits until the loader's workers have prepared all that they may."""
    before = None
    while (
        now := [cpu_ticks(child.pid or 0) for child in multiprocessing.active_children()]
    ) != before:
        before = now
        time.sleep(0.5)


def cpu_ticks(pid: int) -> int:
    """Returns the processor's time that a process has had, in ticks of the system's clock (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def _largest_worker() -> float:
    return max(resident_bytes(child.pid or 0) for child in multiprocessing.active_children())


def resident_bytes(pid: int) -> float:
    """Returns the resident memory of a process, shared memory included (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def step_rate(config: ConfigDict, seconds: float) -> float:
    """Returns the training steps' images a second, with a batch that is on the devices already.

    Args:
      config: settled.
      seconds: how long, after the compilation.
    """
    config = ConfigDict(config.copy_and_resolve_references())
    config.data.update(fake=True, data_dir=None, examples=config.batch_size, workers=0)
    experiment = train.build(config)
    with contextlib.closing(experiment.feed) as feed:
        examples, ids, _ = next(feed.train(0, 1, lambda: 1))
    examples, ids = parallel.put_parts((examples, ids))
    state = parallel.replicate(experiment.initial_state)

    def step(state: Any) -> tuple[Any, Any]:
        return experiment.train_steps(state, examples, ids, np.int32(1))

    return config.batch_size * _calls_per_second(step, state, seconds)


def _calls_per_second(call: Callable[[Any], tuple[Any, Any]], carry: Any, seconds: float) -> float:
    """Times a function of what it returned first the last time; what it returns second is waited for."""
    for _ in range(2):  # the first one compiles
        carry, last = call(carry)
    jax.block_until_ready(last)
    start, count = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        before = last
        carry, last = call(carry)
        jax.block_until_ready(before)  # two are under way
        count += 1
    jax.block_until_ready(last)
    return count / (time.perf_counter() - start)


def training_flops(config: ConfigDict, num_classes: int, channels: int) -> float:
    """Returns the floating-point operations of training on one image: three forward passes, as is common.

    Args:
      config: settled.
      num_classes: of the data set.
      channels: of its images.
    """
    module = models.create(config.model, num_classes)
    images = jax.ShapeDtypeStruct((1, *2 * (config.data.size,), channels), np.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    with jax.default_device(jax.devices("cpu")[0]):  # GPUs' and TPUs' clients count nothing
        cost: Any = jax.jit(module.apply).lower(variables, images).cost_analysis()
    return 3 * cost["flops"]


def matmul_rate(dtype: str, seconds: float) -> float:
    """Returns the FLOP/s of products of large square matrices on all devices, each by itself."""
    side = 1024 if jax.default_backend() == "cpu" else 8192
    devices = parallel.local_count()
    ones = np.ones((devices, side, side), np.float32)
    square = parallel.map_parts(lambda x: (x @ x).astype(x.dtype) / side, (True,), out_parts=True)
    values = parallel.put_parts(ones.astype(jnp.dtype(dtype)))
    rate = _calls_per_second(lambda x: 2 * (square(x),), values, seconds)
    return 2 * side**3 * devices * rate


def time_input(config: ConfigDict, images: int, seconds: float) -> Iterator[Row]:
    """Yields what is measured of a stream, in words: the loader and the bare loop in turns.

    Args:
      config: settled.
      images: that the loader is timed over.
      seconds: for each of the others.
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


def _as_many_as_imagenet(split: Split) -> Split:
    """Returns a split of as many examples, the given ones again and again: shuffling few takes longer."""
    fetch = functools.partial(_fetch_again, split)
    return dataclasses.replace(split, count=max(split.count, IMAGENET_TRAIN), fetch=fetch)


def _fetch_again(split: Split, positions: Sequence[int]) -> Sequence[Any]:
    return split.fetch([position % split.count for position in positions])


def _listed(values: list[float], form: str) -> str:
    return ", ".join(form.format(value) for value in values)


def time_step(config: ConfigDict, seconds: float) -> Iterator[Row]:
    """Yields what is measured of the training steps, in words; as `time_input`."""
    info = data.describe(config.data)
    rate = step_rate(config, seconds)
    flops = training_flops(config, info.num_classes, info.image_shape[-1])
    peak = matmul_rate(config.dtype, seconds / 4)
    yield f"training steps, {config.model.name}", f"{rate:,.0f} images/s"
    yield "batch, side, dtype", f"{config.batch_size}, {config.data.size}, {config.dtype}"
    yield "operations an image", f"{flops / 1e9:.2f} GFLOP"
    yield "large matrix products", f"{peak / 1e12:.2f} TFLOP/s"
    yield "share of them", f"{rate * flops / peak:.1%}"


def main(argv: list[str]) -> None:
    """Prints a table of what `--what` names."""
    if command_line.names_no_config(argv):
        argv = [argv[0], DEFAULT_CONFIG, *argv[1:]]  # its fields are flags only after it
    command_line.parse(argv)
    config = CONFIG.value
    require(config.experiment == "train", "experiment", config.experiment, "train")
    require(config.data.stream, "data.stream", config.data.stream, "True")
    parallel.use_compilation_cache(config.compilation_cache or cache.root() / "compiled")
    with tempfile.TemporaryDirectory() as folder:
        if config.data.data_dir is None and not config.data.fake and WHAT.value == "input":
            made.prepare(Path(folder), _MADE_TRAIN, _MADE_TEST)
            config.data.data_dir = folder
        if WHAT.value == "step":
            config.data.fake = True
        settled, _ = train.settle(config)
        rows = (
            time_step(settled, SECONDS.value)
            if WHAT.value == "step"
            else time_input(settled, IMAGES.value, SECONDS.value)
        )
        device = jax.devices()[0].device_kind
        table = Table(
            title=f"{WHAT.value}: {jax.device_count()} × {device}, {os.cpu_count()} cores",
            show_header=False,
        )
        for row in rows:
            table.add_row(*row)
    Console(soft_wrap=True).print(table)


if __name__ == "__main__":
    output.drop_what_cannot_be_written()
    try:
        main(sys.argv)
    except (UserError, RunFailed) as error:
        print(f"rethink_jax: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)
