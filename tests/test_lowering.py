"""Every model's steps lower for GPUs and TPUs, which needs neither: what XLA cannot translate fails here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from rethink_jax import config as config_lib, models
from rethink_jax.corruptions import key_of
from rethink_jax.distributed import parallel
from rethink_jax.models import layers
from rethink_jax.pipeline import inputs, preprocess
from rethink_jax.training import steps, train_state as train_state_lib
from rethink_jax.training.optimizer import learning_rate, make_optimizer

PLATFORMS = ("cuda", "tpu")
BATCH, STEPS, CLASSES = 8, 2, 1000


@pytest.fixture(autouse=True)
def accelerator(monkeypatch):
    """Has layers take what they take on accelerators."""
    monkeypatch.setattr(layers.jax, "default_backend", lambda: "gpu")


def shape(*sizes, dtype=jnp.int32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def recipe(name):
    """Returns the model's recipe with every augmentation and regularizer that it can have."""
    config = config_lib.train("made_up", "random_labels")
    config.model.update(name=name, dropout=0.2, auxiliary="auxiliary" in models.MODELS[name].fields)
    config.augment.update(random_crop=True, flip=True, rotation_degrees=25.0, color=True)
    config.optimizer.update(weight_decay=1e-4, drop_epochs=(1,), warmup_epochs=1.0)
    config.update(steps=10, dtype="bfloat16", label_smoothing=0.1)
    config.data.size = max(models.MODELS[name].smallest_side, 32)
    return config_lib.fill_in(config, 64, config.data.size)


def lower(function, devices, *arguments):
    """Exports a per-device function; its third argument has a leading axis for the devices."""
    specs = [PartitionSpec()] * len(arguments)
    specs[2] = PartitionSpec(parallel.AXIS)

    def per_device(*local):
        state, examples, ids, *rest = local
        return function(state, examples, ids[0], *rest)

    mesh = AbstractMesh((devices,), (parallel.AXIS,))
    mapped = jax.shard_map(
        per_device, mesh=mesh, in_specs=tuple(specs), out_specs=PartitionSpec(), check_vma=False
    )
    shardings = tuple(NamedSharding(mesh, spec) for spec in specs)
    jitted = jax.jit(mapped, in_shardings=shardings)
    return export.export(jitted, platforms=PLATFORMS)(*arguments)


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        *(pytest.param(name, 8, marks=pytest.mark.ci) for name in models.MODELS),
        *((name, 1) for name in ("mlp", "small_alexnet", "small_inception", "resnet18")),
    ],
)
def test_steps_lower_for_gpu_and_tpu(name, devices):
    config = recipe(name)
    size = config.data.size
    model = models.create(config.model, CLASSES, config.dtype, parallel.AXIS)
    optimizer = make_optimizer(config, learning_rate(config, steps_per_epoch=4, total_steps=10))
    initialize = train_state_lib.make_initialize(model, optimizer, (size, size, 3))
    state = jax.eval_shape(initialize, key_of(config.seed))
    images = shape(64, size + 4, size + 4, 3, dtype=jnp.uint8)
    examples = inputs.Split(images, shape(64), shape(64))
    ids = shape(devices, STEPS, BATCH)
    train_steps = steps.make_train_steps(
        model,
        optimizer,
        preprocess.make_augment(config, 4),
        lambda step, ids: jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), ids),
        label_smoothing=config.label_smoothing,
    )
    eval_steps = steps.make_eval_steps(model, size)
    trained = lower(train_steps, devices, state, examples, ids, shape())
    evaluated = lower(eval_steps, devices, state, examples, ids)
    for exported in (trained, evaluated):
        assert exported.platforms == PLATFORMS
        assert exported.nr_devices == devices
    like = jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), jax.tree.leaves(state))
    got = [(leaf.shape, np.dtype(leaf.dtype)) for leaf in trained.out_avals[: len(like)]]
    assert got == like
