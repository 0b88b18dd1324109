"""Settings of JAX that a user's environment may bring change no draw, and what they are is recorded."""

import contextlib
import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rethink_jax import config as config_lib, corruptions, models
from rethink_jax.corruptions import key_of
from rethink_jax.distributed import jax_settings
from rethink_jax.models.layers import dropout
from rethink_jax.pipeline import batching, inputs, preprocess
from rethink_jax.runs import environment, files
from rethink_jax.training import train, train_state
from rethink_jax.training.optimizer import make_optimizer
from tests.data_helpers import of_size
from tests.entry_point import make_place, start

IDS = np.array([4, 0, 1, 3, 2], np.int32)
HOSTILE = {
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_RANDOM_SEED_OFFSET": "5",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_ENABLE_CUSTOM_PRNG": "1",
}


@contextlib.contextmanager
def hostile_settings():
    """What the variables of `HOSTILE` do, for this process and for a while."""
    before = jax.config.values["jax_random_seed_offset"]
    jax.config.update("jax_random_seed_offset", 5)
    try:
        with (
            jax.threefry_partitionable(False),
            jax.enable_x64(True),
            jax.default_prng_impl("rbg"),
            jax.enable_custom_prng(True),
        ):
            yield
    finally:
        jax.config.update("jax_random_seed_offset", before)


def all_settings():
    config = config_lib.base()
    config.data.size = 8
    config.seed = 2**32 - 1
    config.augment.update(random_crop=True, flip=True, rotation_degrees=25.0, color=True)
    return config


def augmented():
    images = np.random.default_rng(0).integers(0, 256, (5, 10, 10, 3)).astype(np.uint8)
    augment = preprocess.make_augment(all_settings(), steps_per_epoch=4)
    return augment(np.int32(9), IDS, images)


def with_dropout():
    keys = preprocess.example_keys(3, preprocess.DROPOUT, np.int32(2), IDS)
    return dropout(jnp.ones((5, 40), jnp.float32), 0.3, keys, layer=1)


def initial(name):
    model = config_lib.base().model
    model.update(name=name, width=8)
    side = models.MODELS[name].smallest_side
    optimizer = make_optimizer(config_lib.fill_in(config_lib.base(), 9, 8), lambda _: 0.1)
    module = models.create(model, 10)
    initialize = train_state.make_initialize(module, optimizer, (max(side, 8), max(side, 8), 3))
    return initialize(key_of(2**32 - 1))


def corrupted(name):
    corruption = config_lib.train("toy", name, probability=0.5).corruption
    rng = np.random.default_rng(0)
    images, labels = (
        rng.integers(0, 256, (5, 6, 6, 3)).astype(np.uint8),
        np.arange(5, dtype=np.int32),
    )
    key, moments = corruptions.corruption_key(1), corruptions.pixel_moments(images)
    if name == "transition_labels":  # which reads a file
        corrupt = functools.partial(corruptions.transition_labels, matrix=np.eye(10) / 2 + 0.05)
    else:
        info = of_size(name="cifar10").info
        corrupt = inputs.from_config(corruption, info, moments, key, labels[::-1])
    return corrupt(inputs.split_key(corruption, "train"), IDS, images, labels)


DRAWS = {
    "augmentation": augmented,
    "dropout": with_dropout,
    "order": lambda: batching.epoch_batches(seed=2**32 - 1, epoch=3, n=50, batch_size=8),
    **{f"weights of {name}": lambda name=name: initial(name) for name in ("mlp", "small_alexnet")},
    **{name: lambda name=name: corrupted(name) for name in corruptions.CORRUPTIONS},
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_draws_are_pinned_in_generator_and_type(draw):
    expected = jax.device_get(draw())
    with hostile_settings():
        found = jax.device_get(draw())
    assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_key_is_that_of_its_seed():
    for seed in (0, 7, 2**32 - 1):
        key = jax.random.key(np.uint32(seed), impl="threefry2x32")
        assert corruptions.key_of(seed) == key


def test_a_run_in_python_is_pinned_and_leaves_the_settings(toy, tmp_path):
    config = config_lib.train("toy", "random_labels")
    config.update_from_flattened_dict(
        {"model.name": "mlp", "model.width": 8, "model.dropout": 0.2, "epochs": 1}
    )
    config.augment.update(flip=True, rotation_degrees=10.0)
    expected = train.run(config, tmp_path / "plain", toy)
    with hostile_settings():
        found = train.run(config, tmp_path / "hostile", toy)
        again = train.evaluate(config, tmp_path / "hostile", toy)
        assert jnp.ones(1).dtype == jnp.float64
    clock = ("seconds", "images_per_second")
    assert {k: v for k, v in found.items() if k not in clock} == {
        k: v for k, v in expected.items() if k not in clock
    }
    assert again["train_loss"] == expected["train_loss"]


COMMAND = [
    *("--config=configs/random_labels.py:digits", "--workdir=run", "--config.epochs=1"),
    *("--config.model.width=8", "--config.model.dropout=0.2", "--config.augment.flip=true"),
    "--config.data.examples=300",
]


@pytest.mark.ci
def test_the_environment_changes_no_number_and_is_recorded(tmp_path):
    """As a user does it, in processes of their own."""
    left = {}
    for name, variables in (("plain", {}), ("hostile", HOSTILE)):
        here = make_place(tmp_path / name)
        outcome = start(COMMAND, here, **variables)
        assert outcome.code == 0, outcome.stderr
        records = files.read_metrics(here / "run")
        for record in records:
            del record["seconds"], record["images_per_second"]
        left[name] = records, json.loads((here / "run" / "run.json").read_text())
    assert left["hostile"][0] == left["plain"][0]
    plain, hostile = (left[name][1] for name in ("plain", "hostile"))
    assert hostile["fingerprint"] == plain["fingerprint"]
    assert plain["jax_settings"] == {}
    assert hostile["variables"] == {**plain["variables"], **HOSTILE}
    assert hostile["jax_settings"] == {
        "jax_enable_custom_prng": True,
        "jax_numpy_dtype_promotion": "strict",
        "jax_numpy_rank_promotion": "raise",
        "jax_random_seed_offset": 5,
    }


def test_run_json_says_what_was_set(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setenv("HF_TOKEN", "secret")
    with jax.debug_nans(True), jax.default_matmul_precision("highest"):
        found = environment.describe()
    assert found["variables"]["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=true"
    assert found["variables"]["NVIDIA_TF32_OVERRIDE"] == "0"
    assert "HF_TOKEN" not in found["variables"]
    assert found["jax_settings"]["jax_debug_nans"] is True
    assert found["jax_settings"]["jax_default_matmul_precision"] == "highest"
    assert "jax_debug_nans" not in environment.describe()["jax_settings"]


def test_the_defaults_are_jaxs():
    """In a process whose environment says nothing of JAX."""
    program = (
        "import json, jax; print(json.dumps({k: str(v) for k, v in jax.config.values.items()}))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], env={}, capture_output=True, text=True, check=True
    ).stdout
    values = json.loads(output)
    found = {name: values[name] for name in environment.JAX_DEFAULTS}
    assert found == {name: str(value) for name, value in environment.JAX_DEFAULTS.items()}


def test_every_experiment_is_pinned():
    from rethink_jax.kernels import interpolation
    from rethink_jax.sweeps import sweep
    from rethink_jax.theory import (
        capacity,
        certificate,
        double_descent,
        expressivity,
        fine_grained,
        judged,
        memorization,
        minimum_norm,
        pac_bayes,
        rademacher,
        stability,
    )

    for run in (
        *(train.run, train.evaluate, sweep.run, interpolation.run, expressivity.run),
        *(rademacher.run, stability.run, minimum_norm.run, memorization.run, fine_grained.run),
        pac_bayes.run,
        certificate.run,
        capacity.run,
        double_descent.run,
        judged.run,
    ):
        assert run.__wrapped__.__code__ is not run.__code__
        assert run.__code__.co_filename != run.__wrapped__.__code__.co_filename


def test_pinned_settings_are_those_of_a_plain_process():
    with hostile_settings(), jax_settings.pin_settings():
        values = jax.config.values
        for name in ("jax_enable_x64", "jax_threefry_partitionable", "jax_default_prng_impl"):
            assert values[name] == environment.JAX_DEFAULTS[name]
