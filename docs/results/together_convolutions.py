"""Does it pay to train runs of networks with convolutions together on a CPU?

    JAX_PLATFORMS=cpu python docs/results/together_convolutions.py

Times training steps of small AlexNet and small Inception on two simulated devices, in turns: one run whose
batch is divided among both, which is what a sweep does; two runs, one on each device and nothing summed; four
runs, two on each device by `vmap`. Prints images per second over all runs. Not part of the paper.
"""

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from rethink_jax import config, data
from rethink_jax.bench.rates import per_second
from rethink_jax.distributed import parallel
from rethink_jax.runs.resolve import resolve
from rethink_jax.training import ensemble, experiment

BATCH, SECONDS, TURNS = 128, 4.0, 3


def alone(settings: Any, dataset: data.Dataset) -> Callable[[], tuple[float, Any]]:
    """Returns a function that takes a step of one run."""
    built = experiment.build(settings, dataset)
    state = parallel.replicate(built.initial_state)
    dispatch = next(built.loader.train(0, 1, lambda: 1))
    count = parallel.stage_count(1)

    def step() -> tuple[float, Any]:
        nonlocal state
        state, sums = built.train_steps(state, dispatch.examples, dispatch.ids, count)
        return BATCH, sums

    return step


def together(settings: Any, dataset: data.Dataset, runs: int) -> Callable[[], tuple[float, Any]]:
    """Returns a function that takes a step of each of some runs."""
    configs = [settings.copy_and_resolve_references() for _ in range(runs)]
    for seed, one in enumerate(configs):
        one.seed = seed
    built = ensemble.build(configs, dataset)
    states = ensemble.divide(built.initial_states)
    members = ensemble.divide(
        [ensemble.Members(*(values[i] for values in built.members)) for i in range(runs)]
    )
    ids = ensemble.divide([*ensemble.training_ids(configs, BATCH, 0, 0, 1)])
    count = parallel.stage_count(1)

    def step() -> tuple[float, Any]:
        nonlocal states
        states, sums = built.train_steps(states, members, built.train, ids, count)
        return BATCH * runs, sums

    return step


def main() -> None:
    """Prints the medians of each network."""
    parallel.start_cpu_devices()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, BATCH)
    dataset = data.from_arrays((images, labels), (images, labels), "made_up")
    for name in ("small_alexnet", "small_inception"):
        settings = config.train("made_up", "random_labels")
        settings.model.name = name
        settings, _ = resolve(settings, dataset)
        with parallel.use_cpu_devices(2):
            ways = {
                "one run on both": alone(settings, dataset),
                "one on each": together(settings, dataset, 2),
                "two on each": together(settings, dataset, 4),
            }
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(TURNS):
                for way, step in ways.items():
                    rates[way].append(per_second(step, SECONDS))
        print(name, {way: round(statistics.median(found), 1) for way, found in rates.items()})


if __name__ == "__main__":
    main()
