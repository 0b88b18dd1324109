import contextlib
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rethink_jax import config as config_lib, models
from rethink_jax.corruptions import key_of
from rethink_jax.distributed import parallel
from rethink_jax.models import inception
from rethink_jax.models.layers import BatchNorm, ConvUnit
from rethink_jax.pipeline import batching, inputs, preprocess
from rethink_jax.training import steps, train_state
from rethink_jax.training.optimizer import learning_rate, make_optimizer
from tests.conftest import use_devices

# 20 whole batches of 128 and one of 80, as the last of CIFAR-10's epochs.
N = 20 * 128 + 80


def random_split(n=N, side=8, channels=1, classes=10):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, side, side, channels)).astype(np.uint8)
    labels = rng.integers(0, classes, n).astype(np.int32)
    return inputs.Split(images, labels, (labels + 1) % classes)


def rate_of(config, n):
    total = config_lib.total_steps(config, n)
    return learning_rate(config, config_lib.steps_per_epoch(config, n), total)


def make(split, dtype="float32", **model):
    config = config_lib.base()
    config.model.update(model)
    config = config_lib.fill_in(config, len(split.labels), split.images.shape[1])
    drawn, module = (
        models.create(config.model, 10, of, parallel.AXIS) for of in ("float32", dtype)
    )
    optimizer = make_optimizer(config, rate_of(config, N))
    initialize = train_state.make_initialize(drawn, optimizer, split.images.shape[1:])
    state = initialize(key_of(config.seed))
    state = jax.tree.map(lambda x: x.astype(dtype) if x.dtype == jnp.float32 else x, state)
    return config, module, optimizer, jax.device_get(state)


def train_an_epoch(state, split, module, optimizer):
    """Returns the state after an epoch on the devices of `parallel`, and each step's loss."""
    step = parallel.map_over_devices(steps.make_train_steps(module, optimizer), donate_first=True)
    on_devices, state = parallel.replicate(split), parallel.replicate(state)
    losses = []
    for batch in batching.epoch_batches(0, 0, len(split.labels), 128):
        state, sums = step(state, on_devices, parallel.shard_ids(batch[None]), np.int32(1))
        losses.append(parallel.fetch(sums)["loss"][0])
    return state, np.array(losses)


@pytest.mark.parametrize(
    ("name", "counts"),
    [("mlp", (1, 2, 4)), pytest.param("small_alexnet", (1, 4), marks=pytest.mark.slow)],
    ids=["mlp", "alexnet"],
)
def test_losses_do_not_depend_on_the_number_of_devices(name, counts, monkeypatch):
    split = random_split()
    batches = batching.in_batches(np.arange(N), 1000)
    results = []
    for count in counts:
        use_devices(monkeypatch, count)
        _, module, optimizer, state = make(split, name=name)
        state, losses = train_an_epoch(state, split, module, optimizer)
        evaluate = parallel.map_over_devices(steps.make_eval_steps(module))
        sums = evaluate(state, parallel.replicate(split), parallel.shard_ids(batches))
        results.append((losses, parallel.fetch(sums)))
    losses, evaluated = results[0]
    assert len(losses) == 21
    assert losses[-1] < losses[0]
    for other_losses, other in results[1:]:
        np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
        np.testing.assert_array_equal(other["count"], evaluated["count"])
        np.testing.assert_allclose(other["loss"], evaluated["loss"], rtol=1e-5)


@contextlib.contextmanager
def float64():
    # At a learning rate of 0.1 small Inception multiplies float32's rounding by a thousand within
    # six steps, so what the sums do is seen in float64.
    jax.config.update("jax_enable_x64", True)
    try:
        with jax.numpy_dtype_promotion("standard"):  # integers are of 64 bits here and there
            yield np.float64
    finally:
        jax.config.update("jax_enable_x64", False)


class TinyInception(nn.Module):
    """The units of small Inception, few enough to compile quickly."""

    axis_name: str

    @nn.compact
    def __call__(self, images, mask, train, keys=None):
        def conv(x, features, kernel=3, stride=1):
            unit = ConvUnit(features, kernel, stride, True, jnp.float64, self.axis_name)
            return unit(x, mask, train)

        x = inception._downsample(conv, inception._inception(conv, images, 8, 6), 5)
        return nn.Dense(10, dtype=jnp.float64)(x.mean(axis=(1, 2)))


@pytest.mark.ci
@pytest.mark.skipif(
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1",
    reason="compiled with few optimizations, float64 differs by 1e-8 between numbers of devices",
)
def test_batch_norm_losses_do_not_depend_on_the_number_of_devices(monkeypatch):
    split = random_split(5 * 128 + 80)
    losses = []
    with float64() as dtype:
        split = split._replace(images=split.images.astype(dtype))
        module = TinyInception(parallel.AXIS)
        optimizer = optax.sgd(0.1, momentum=0.9)
        zeros = jnp.zeros((1, 8, 8, 1)), jnp.ones(1, bool)
        variables = jax.device_get(module.init(jax.random.key(0), *zeros, train=False))
        params = jax.tree.map(lambda x: x.astype(dtype), variables["params"])
        opt_state = jax.device_get(optimizer.init(params))
        initial = train_state.TrainState(np.int32(0), params, variables["batch_stats"], opt_state)
        for count in (1, 2, 4):
            use_devices(monkeypatch, count)
            losses.append(train_an_epoch(initial, split, module, optimizer)[1])
    assert losses[0].dtype == np.float64
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields", "tolerance"),
    [("small_inception", {}, 1e-5), ("resnet18", {"n": 384, "side": 64, "channels": 3}, 1e-12)],
    ids=["small_inception", "resnet18"],
)
def test_losses_in_float64_do_not_depend_on_the_number_of_devices(
    name, fields, tolerance, monkeypatch
):
    split = random_split(**fields)
    results = []
    with float64() as dtype:
        split = split._replace(images=split.images.astype(dtype))
        for count in (1, 4):
            use_devices(monkeypatch, count)
            _, module, optimizer, state = make(split, "float64", name=name)
            results.append(train_an_epoch(state, split, module, optimizer)[1])
    assert results[0].dtype == np.float64
    np.testing.assert_allclose(results[1], results[0], rtol=tolerance)


def test_one_step_and_one_evaluation_against_numpy(devices):
    split = random_split(n=10, side=4)
    config, module, optimizer, state = make(split, name="mlp", width=7)
    ids = np.array([[3, 1, 4, 5, 9, 2, 6, batching.PADDING]], np.int32)
    step = parallel.map_over_devices(steps.make_train_steps(module, optimizer))
    on_devices = parallel.replicate(split)
    after, sums = parallel.fetch(
        step(parallel.replicate(state), on_devices, parallel.shard_ids(ids), np.int32(1))
    )

    x = split.images[ids[0, :7]].astype(np.float64).reshape(7, -1) / 255
    x = (x - x.mean(1, keepdims=True)) / np.maximum(x.std(1, keepdims=True), 1 / 4)
    labels = np.eye(10)[split.labels[ids[0, :7]]]
    (w1, b1), (w2, b2) = (
        (layer["kernel"].astype(np.float64), layer["bias"].astype(np.float64))
        for layer in (state.params["Dense_0"], state.params["Dense_1"])
    )
    hidden = x @ w1 + b1
    logits = np.maximum(hidden, 0) @ w2 + b2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.mean(np.log((probabilities * labels).sum(1)))
    d_logits = (probabilities - labels) / 7
    d_hidden = d_logits @ w2.T * (hidden > 0)
    rate = config.optimizer.learning_rate

    np.testing.assert_allclose(sums["loss"], [loss], rtol=1e-5)
    assert sums["correct"].tolist() == [np.sum(logits.argmax(1) == labels.argmax(1))]
    assert after.step == 1
    expected = {
        "Dense_0": {"kernel": w1 - rate * x.T @ d_hidden, "bias": b1 - rate * d_hidden.sum(0)},
        "Dense_1": {
            "kernel": w2 - rate * np.maximum(hidden, 0).T @ d_logits,
            "bias": b2 - rate * d_logits.sum(0),
        },
    }
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), after.params, expected
    )

    evaluate = parallel.map_over_devices(steps.make_eval_steps(module))
    evaluated = parallel.fetch(
        evaluate(parallel.replicate(state), on_devices, parallel.shard_ids(ids))
    )
    true = split.true_labels[ids[0, :7]]
    assert evaluated["count"].tolist() == [7]
    assert evaluated["correct"].tolist() == sums["correct"].tolist()
    assert evaluated["correct_true"].tolist() == [np.sum(logits.argmax(1) == true)]
    replaced = true != labels.argmax(1)
    assert evaluated["replaced"].tolist() == [np.sum(replaced)]
    fitted = np.sum(replaced & (logits.argmax(1) == labels.argmax(1)))
    assert evaluated["correct_replaced"].tolist() == [fitted]
    np.testing.assert_allclose(evaluated["loss"], [7 * loss], rtol=1e-5)
    true_loss = -np.log(probabilities[np.arange(7), true]).sum()
    np.testing.assert_allclose(evaluated["loss_true"], [true_loss], rtol=1e-5)


def test_momentum_and_decay_over_two_epochs():
    config = config_lib.base()
    config.optimizer.update(learning_rate=0.5, decay_per_epoch=0.1)
    rate = learning_rate(config, steps_per_epoch=2, total_steps=4)
    optimizer = make_optimizer(config, rate)
    weight = jnp.float32(1.0)
    state, expected, velocity = optimizer.init(weight), 1.0, 0.0
    for rate in (0.5, 0.5, 0.05, 0.05):
        update, state = optimizer.update(jnp.float32(2.0), state, weight)
        weight = weight + update
        velocity = 0.9 * velocity + 2.0
        expected -= rate * velocity
        np.testing.assert_allclose(weight, expected, rtol=1e-6)


def test_many_steps_in_one_dispatch_are_the_same_steps(devices):
    split = random_split(n=300)
    _, module, optimizer, state = make(split, name="mlp", width=16)
    step = parallel.map_over_devices(steps.make_train_steps(module, optimizer))
    on_devices = parallel.replicate(split)
    batches = batching.epoch_batches(0, 0, 300, 64)
    one_by_one, losses = parallel.replicate(state), []
    for batch in batches:
        one_by_one, sums = step(
            one_by_one, on_devices, parallel.shard_ids(batch[None]), np.int32(1)
        )
        losses.append(parallel.fetch(sums)["loss"][0])
    padded = np.pad(batches, [(0, 3), (0, 0)], constant_values=batching.PADDING)
    together, sums = step(
        parallel.replicate(state), on_devices, parallel.shard_ids(padded), np.int32(len(batches))
    )
    np.testing.assert_allclose(parallel.fetch(sums)["loss"], [*losses, 0, 0, 0], rtol=1e-5)
    left, right = parallel.fetch(one_by_one), parallel.fetch(together)
    assert left.step == right.step == len(batches)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), left, right)

    evaluate = parallel.map_over_devices(steps.make_eval_steps(module))
    whole = parallel.fetch(evaluate(right, on_devices, parallel.shard_ids(padded)))
    parts = [
        parallel.fetch(evaluate(right, on_devices, parallel.shard_ids(batch[None])))
        for batch in padded
    ]
    for name, values in whole.items():
        np.testing.assert_allclose(
            values, np.concatenate([part[name] for part in parts]), rtol=1e-6
        )


# Label smoothing and the second classifier.

PADDED = np.array([[3, 1, 4, 5, 9, 2, 6, batching.PADDING]], np.int32)


class TwoClassifiers(nn.Module):
    """As Inception V3 sows its second one, with a BatchNorm before both."""

    axis_name: str | None

    @nn.compact
    def __call__(self, images, mask, train, keys=None):
        x = BatchNorm(self.axis_name)(images, mask, train).reshape(len(images), -1)
        self.sow("intermediates", "auxiliary_logits", nn.Dense(10, name="auxiliary")(x))
        return nn.Dense(10, name="main")(x)


def reference_loss(params, split, smoothing):
    """The mean over the examples that are no padding, in one piece; and BatchNorm's new statistics."""
    ids = PADDED[0, :7]
    ones = jnp.ones(7, bool)
    logits, updates = TwoClassifiers(None).apply(
        {
            "params": params,
            "batch_stats": {"BatchNorm_0": {"mean": jnp.zeros(1), "var": jnp.ones(1)}},
        },
        preprocess.whiten(jnp.asarray(split.images)[ids]),
        ones,
        train=True,
        mutable=["batch_stats", "intermediates"],
    )
    targets = (1 - smoothing) * np.eye(10, dtype=np.float32)[split.labels[ids]] + smoothing / 10

    def loss(logits):
        return -(targets * jax.nn.log_softmax(logits)).sum(axis=1).mean()

    (auxiliary,) = updates["intermediates"]["auxiliary_logits"]
    return loss(logits) + 0.4 * loss(auxiliary), (logits, updates["batch_stats"])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_both_classifiers_are_trained_on_smooth_labels(smoothing, devices):
    split = random_split(n=10, side=4)
    module, optimizer = TwoClassifiers(parallel.AXIS), optax.sgd(0.1)
    single = TwoClassifiers(None)
    shapes = jnp.zeros((1, 4, 4, 1)), jnp.ones(1, bool)
    variables = single.init(jax.random.key(0), *shapes, train=False)
    state = train_state.TrainState(
        jnp.int32(0),
        variables["params"],
        variables["batch_stats"],
        optimizer.init(variables["params"]),
    )
    step = parallel.map_over_devices(
        steps.make_train_steps(module, optimizer, label_smoothing=smoothing)
    )
    on_devices, before = parallel.replicate(split), parallel.replicate(state)
    after, sums = parallel.fetch(step(before, on_devices, parallel.shard_ids(PADDED), np.int32(1)))
    reference = jax.value_and_grad(reference_loss, has_aux=True)
    (loss, (logits, batch_stats)), grads = reference(variables["params"], split, smoothing)
    np.testing.assert_allclose(sums["loss"], [loss], rtol=1e-5)
    labels = split.labels[PADDED[0, :7]]
    assert sums["correct"].tolist() == [np.sum(np.argmax(logits, axis=1) == labels)]
    assert jax.tree.structure(after) == jax.tree.structure(state)  # nothing of the intermediates

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

    expected = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], grads)
    jax.tree.map(close, after.params, expected)
    jax.tree.map(close, after.batch_stats, batch_stats)


def test_smooth_labels_of_one_classifier_against_numpy():
    """The output layer's gradient is the probabilities less the targets; evaluations are not smoothed."""
    split = random_split(n=10, side=4)
    config, module, optimizer, state = make(split, name="mlp", width=7)
    ids = parallel.shard_ids(PADDED)
    on_devices, before = parallel.replicate(split), parallel.replicate(state)
    results = []
    for smoothing in (0.0, 0.25):
        step = parallel.map_over_devices(
            steps.make_train_steps(module, optimizer, label_smoothing=smoothing)
        )
        results.append(parallel.fetch(step(before, on_devices, ids, np.int32(1))))
    evaluate = parallel.map_over_devices(steps.make_eval_steps(module))
    plain = parallel.fetch(evaluate(before, on_devices, ids))["loss"]
    (hard, hard_sums), (smooth, smooth_sums) = results
    np.testing.assert_allclose(hard_sums["loss"], plain / 7, rtol=1e-6)
    assert abs(smooth_sums["loss"] - hard_sums["loss"]) > 1e-3
    labels = np.eye(10)[split.labels[PADDED[0, :7]]]
    rate = config.optimizer.learning_rate
    moved = smooth.params["Dense_1"]["bias"] - hard.params["Dense_1"]["bias"]
    np.testing.assert_allclose(
        moved, rate * (0.25 / 10 - 0.25 * labels).mean(axis=0), rtol=1e-3, atol=1e-8
    )


# The first five answers.


class PixelsAsLogits(nn.Module):
    """Whitening leaves their order, and which are equal."""

    @nn.compact
    def __call__(self, images, mask=None, train=False, keys=None):
        # A product is computed once, and not again, perhaps rounded otherwise, wherever it is compared.
        return images.reshape(len(images), -1) @ jnp.eye(images.size // len(images), dtype="f")


@pytest.mark.parametrize("classes", [11, 20, 1000])
@pytest.mark.parametrize("values", [1, 3, 256])
def test_top_1_and_top_5_against_numpy(classes, values, devices):
    rng = np.random.default_rng(classes + values)
    logits = rng.integers(0, values, (30, classes)).astype(np.uint8)
    labels, true = rng.integers(0, classes, (2, 30)).astype(np.int32)
    answers = np.argsort(-logits.astype(int), axis=1, kind="stable")
    labels[:11] = answers[range(11), range(11)]  # of every rank up to the eleventh
    split = inputs.Split(logits[:, None, None], labels, true)
    ids = np.pad(rng.permutation(30)[:27], (0, 5), constant_values=batching.PADDING)
    state = train_state.TrainState(jnp.int32(0), {}, {}, ())
    evaluate = parallel.map_over_devices(steps.make_eval_steps(PixelsAsLogits()))
    found = parallel.fetch(
        evaluate(
            parallel.replicate(state),
            parallel.replicate(split),
            parallel.shard_ids(ids.astype(np.int32).reshape(2, 16)),
        )
    )
    for suffix, column in (("", labels), ("_true", true)):
        ranks = np.nonzero(answers == column[:, None])[1]
        for name, most in (("correct", 1), ("top5", 5)):
            hits = [np.sum(ranks[part[part >= 0]] < most) for part in ids.reshape(2, 16)]
            assert found[name + suffix].tolist() == hits
    assert found["count"].tolist() == [16, 11]


def test_each_example_of_many_batches_in_one_dispatch(devices):
    """The last batch leaves some devices none, and a row of padding is skipped."""
    split = random_split(n=40)
    _, module, _, state = make(split, name="mlp", width=4)
    evaluate = parallel.map_over_devices(steps.make_eval_steps(module, per_example=True))
    ids = batching.in_batches(np.arange(40), 32)
    padded = np.pad(ids, [(0, 1), (0, 0)], constant_values=batching.PADDING)
    state, on_devices = parallel.replicate(state), parallel.replicate(split)
    whole, *rows = (
        parallel.fetch(evaluate(state, on_devices, parallel.shard_ids(part)))
        for part in (padded, ids[:1], ids[1:])
    )
    assert whole["count"].tolist() == [32, 8, 0]
    np.testing.assert_array_equal(whole["ids"], padded)
    is_seen = padded >= 0
    for name, values in whole.items():
        expected = np.concatenate([row[name] for row in rows])
        if values.ndim == 2:
            values, expected = values[is_seen], expected[is_seen[:2]]
        else:
            assert values[2] == 0
            values = values[:2]
        np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_no_top_5_of_ten_classes():
    split = random_split(n=8)
    _, module, _, state = make(split, name="mlp", width=4)
    evaluate = parallel.map_over_devices(steps.make_eval_steps(module))
    ids = parallel.shard_ids(np.arange(8, dtype=np.int32)[None])
    sums = evaluate(parallel.replicate(state), parallel.replicate(split), ids)
    assert set(sums) == {
        *("loss", "loss_true", "correct", "correct_true"),
        *("count", "replaced", "correct_replaced"),
    }
