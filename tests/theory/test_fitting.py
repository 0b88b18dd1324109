import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rethink_jax import config as config_lib, models
from rethink_jax.corruptions import key_of
from rethink_jax.errors import Diverged
from rethink_jax.pipeline import inputs
from rethink_jax.pipeline.preprocess import whiten
from rethink_jax.runs.resolve import resolve
from rethink_jax.theory import fitting
from rethink_jax.theory.fitting import Task
from tests.conftest import use_devices

ORDER = np.arange(300, dtype=np.int32)[::-1].copy()


def settings(toy, width=16, steps=200, rate=0.05, batch_size=32):
    config = config_lib.base()
    config.update_from_flattened_dict(
        {
            "model.name": "mlp",
            "model.width": width,
            "steps": steps,
            "batch_size": batch_size,
            "optimizer.learning_rate": rate,
            "optimizer.schedule": "cosine",
        }
    )
    return resolve(config, toy)[0]


def fit(toy, config, tasks, show=lambda part: None):
    train = inputs.prepare(config, toy).train
    return fitting.Trainer(toy.info, train).fit(config, tasks, show)


def task(labels, size, seeds=(7,)):
    return Task(seeds, ORDER, np.asarray(labels, np.int32), size)


@pytest.mark.parametrize("size", [33, 100, 300])
def test_batches_are_cut_from_permutations(size):
    one = task(np.zeros(300), size)
    batches = np.concatenate([fitting.batch_ids(one, 32, first) for first in (0, 64, 128)])
    assert batches.shape == (192, 32)
    stream = batches.reshape(-1)
    epochs = [stream[i : i + size] for i in range(0, len(stream) - size + 1, size)]
    assert all(sorted(epoch) == sorted(ORDER[:size]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    other = one._replace(seeds=(8, 7))
    assert (fitting.batch_ids(other, 32, 0) != batches[:64]).any()


@pytest.mark.parametrize("size", [1, 31, 32])
def test_few_examples_are_seen_at_each_step(size):
    batches = fitting.batch_ids(task(np.zeros(300), size), 32, 64)
    assert batches.shape == (64, 32)
    assert (batches[:, :size] == ORDER[:size]).all()
    assert (batches[:, size:] == -1).all()


def wrong_by_hand(toy, config, one, seed, counted_at):
    """Trains with Optax alone; returns the wrong answers after each of these numbers of steps."""
    model = models.create(config.model, toy.info.num_classes, config.dtype)
    images, labels = whiten(jnp.asarray(toy.train.images)), jnp.asarray(one.labels)
    params = model.init(key_of(seed), images[:1])["params"]
    rate = optax.cosine_decay_schedule(config.optimizer.learning_rate, config.steps)
    optimizer = optax.sgd(lambda step: rate(step.astype(jnp.float32)), momentum=0.9)
    state, own, wrong = optimizer.init(params), one.order[: one.size], []

    @jax.jit
    def step(params, state, ids):
        def loss(params):
            logits = model.apply({"params": params}, images[ids])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[ids])
            return jnp.where(ids >= 0, losses, 0).sum() / (ids >= 0).sum(dtype=jnp.float32)

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    for number in range(config.steps):
        dispatch = number // 64 * 64
        ids = fitting.batch_ids(one, config.batch_size, dispatch)[number - dispatch]
        params, state = step(params, state, ids)
        if number + 1 in counted_at:
            answers = model.apply({"params": params}, images[own]).argmax(axis=1)
            wrong.append(int((answers != labels[own]).sum()))
    return wrong


def test_what_is_fitted_by_a_plain_loop(toy):
    rng, config = np.random.default_rng(0), settings(toy, width=8, steps=700)
    tasks = [
        task(rng.integers(0, 5, 300), 150, (3, 6)),
        task(rng.integers(0, 5, 300), 40, (3, 4)),
        task(toy.train.labels, 20, (5, 9)),
    ]
    found = fit(toy, config, tasks)
    for one, fitted in zip(tasks, found, strict=True):
        by_hand = [wrong_by_hand(toy, config, one, seed, (640, 700)) for seed in one.seeds]
        fewest = np.min(by_hand, axis=0)
        assert fitted.wrong == min(fewest)
        assert fitted.steps == (640, 700)[int(np.argmin(fewest))]
    assert found[0].wrong > 0


def test_small_batches_where_all_have_few_examples(toy, monkeypatch):
    sizes, original = [], fitting.batch_ids
    monkeypatch.setattr(
        fitting, "batch_ids", lambda *a: sizes.append((a[0].size, a[1])) or original(*a)
    )
    config = settings(toy, steps=1)
    for own in ((1,), (3, 5), (8, 8), (31, 2), (33, 4)):
        fit(toy, config, [task(toy.train.labels, size) for size in own])
    assert sizes == [(1, 1), (3, 8), (5, 8), (8, 8), (8, 8), (31, 32), (2, 32), (33, 32), (4, 32)]


def test_they_end_once_all_are_fitted(toy):
    shown = []
    config = settings(toy, steps=5000)
    found = fit(toy, config, [task(toy.train.labels, 10), task(toy.train.labels, 3)], shown.append)
    assert [one.wrong for one in found] == [0, 0]
    assert {one.steps for one in found} == {640}
    assert max(shown) < 640 / 5000


def test_the_best_of_several_networks_counts(toy):
    config, rng = settings(toy, width=1, steps=640), np.random.default_rng(1)
    labels = rng.integers(0, 5, 300)
    alone = [fit(toy, config, [task(labels, 4, (seed,))])[0].wrong for seed in range(8)]
    assert len({*alone}) > 1
    together = fit(toy, config, [task(labels, 4, range(8))])[0]
    assert together.wrong == min(alone)


def test_one_image_with_two_labels_is_never_fitted(toy):
    images = toy.train.images.copy()
    images[ORDER[1]] = images[ORDER[0]]
    double = dataclasses.replace(toy, train=toy.train._replace(images=images))
    labels = np.zeros(300)
    labels[ORDER[1]] = 1
    found = fit(double, settings(toy), [task(labels, 1), task(labels, 2), task(labels, 300)])
    assert [one.wrong for one in found][:2] == [0, 1]
    assert found[2].wrong >= 1


def test_devices_do_not_matter(toy, monkeypatch):
    labels = np.random.default_rng(2).integers(0, 5, 300)
    config, tasks = settings(toy), [task(labels, size, (1, 2)) for size in (9, 60, 200)]
    found = []
    for count in (1, 2, 4):
        use_devices(monkeypatch, count)
        found.append(fit(toy, config, tasks))
    assert found[0] == found[1] == found[2]


def test_a_loss_that_is_not_finite(toy):
    message = (
        r"1 of 1 networks have a loss that is not finite; lower config\.capacity\.learning_rate"
    )
    with pytest.raises(Diverged, match=message):
        fit(toy, settings(toy, rate=1e30), [task(toy.train.labels, 300)])
