"""Rates of training steps and of large matrix products, and the operations that a step takes."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rethink_jax import data, models
from rethink_jax.distributed import parallel
from rethink_jax.training.experiment import build

Row = tuple[str, str]


def step_rate(config: ConfigDict, seconds: float) -> float:
    """Returns the training steps' images a second on a batch that is already on the devices.

    Args:
      config: resolved.
      seconds: duration, after compilation.
    """
    config = ConfigDict(config.copy_and_resolve_references())
    config.data.update(fake=True, data_dir=None, examples=config.batch_size, workers=0)
    experiment = build(config)
    with contextlib.closing(experiment.loader) as loader:
        examples, ids, _ = next(loader.train(0, 1, lambda: 1))
    examples, ids = parallel.put_shards((examples, ids))
    state = parallel.replicate(experiment.initial_state)

    def step() -> tuple[int, Any]:
        nonlocal state
        state, sums = experiment.train_steps(state, examples, ids, np.int32(1))
        return config.batch_size, sums

    return per_second(step, seconds)


def per_second(call: Callable[[], tuple[float, Any]], seconds: float) -> float:
    """Returns how much calls of a function do in a second.

    Args:
      call: returns how much one call does, and arrays that are ready when it is done.
      seconds: duration, after two calls, the first of which compiles.
    """
    for _ in range(2):
        _, last = call()
    jax.block_until_ready(last)
    start, done = time.perf_counter(), 0.0
    while time.perf_counter() < start + seconds:
        before = last
        amount, last = call()
        done += amount
        jax.block_until_ready(before)  # two are under way
    jax.block_until_ready(last)
    return done / (time.perf_counter() - start)


def training_flops(config: ConfigDict, num_classes: int, channels: int) -> float:
    """Returns the floating-point operations of training on one image, as is common three forward passes.

    Args:
      config: resolved.
      num_classes: of the data set.
      channels: of its images.
    """
    module = models.create(config.model, num_classes)
    # With more images at once CPUs may convolve with fewer operations than the definition has.
    images = jax.ShapeDtypeStruct((1, *2 * (config.data.size,), channels), np.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    with jax.default_device(jax.devices("cpu")[0]):  # on GPUs and TPUs JAX counts nothing
        cost: Any = jax.jit(module.apply).lower(variables, images).cost_analysis()
    return 3 * cost["flops"]


def matmul_rate(dtype: str, seconds: float) -> float:
    """Returns the FLOP/s of products of large square matrices, on all devices independently."""
    side = 1024 if jax.default_backend() == "cpu" else 8192
    devices = parallel.local_count()
    ones = np.ones((devices, side, side), np.float32)
    square = parallel.map_over_devices(
        lambda x: (x @ x).astype(x.dtype) / side, (0,), sharded_output=True
    )
    values = parallel.put_shards(ones.astype(jnp.dtype(dtype)))

    def multiply() -> tuple[float, Any]:
        nonlocal values
        values = square(values)
        return 2 * side**3 * devices, values

    return per_second(multiply, seconds)


def time_step(config: ConfigDict, seconds: float) -> Iterator[Row]:
    """Yields what is measured of the training steps as rows of text; arguments as for `time_input`."""
    info = data.describe(config.data)
    rate = step_rate(config, seconds)
    flops = training_flops(config, info.num_classes, info.image_shape[-1])
    peak = matmul_rate(config.dtype, seconds / 4)
    yield f"training steps, {config.model.name}", f"{rate:,.0f} images/s"
    yield "batch, side, dtype", f"{config.batch_size}, {config.data.size}, {config.dtype}"
    yield "operations an image", f"{flops / 1e9:.2f} GFLOP"
    yield "large matrix products", f"{peak / 1e12:.2f} TFLOP/s"
    yield "share of them", f"{rate * flops / peak:.1%}"
