import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rethink_jax import config as config_lib, models
from rethink_jax.errors import UserError
from rethink_jax.runs.resolve import resolve
from rethink_jax.training.optimizer import decay_mask, learning_rate, make_optimizer
from tests.data_helpers import of_size


def params_of(name, **fields):
    model = config_lib.base().model
    model.update(name=name, **fields)
    module = models.create(model, 10)
    side = max(28, models.MODELS[name].smallest_side)
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), images)["params"]


def touched(params, on):
    mask = decay_mask(params, on)
    paths = jax.tree_util.tree_leaves_with_path(mask)
    return {"/".join(key.key for key in path) for path, value in paths if value}


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_weight_decay_on_all_and_on_kernels(name):
    params = params_of(name)
    everything = touched(params, "all")
    assert len(everything) == len(jax.tree.leaves(params))
    assert touched(params, "kernels") == {path for path in everything if path.endswith("kernel")}


@pytest.mark.parametrize(
    ("name", "depth", "hidden"),
    [
        ("small_alexnet", 1, {"Dense_0/kernel", "Dense_1/kernel"}),
        ("mlp", 1, {"Dense_0/kernel"}),
        ("mlp", 11, {f"Dense_{i}/kernel" for i in range(11)}),
        ("small_inception", 1, set()),
    ],
)
def test_weight_decay_on_hidden_dense_layers(name, depth, hidden):
    assert touched(params_of(name, depth=depth), "hidden_dense") == hidden


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_weight_decay_that_would_touch_nothing_is_refused(name):
    hidden = touched(params_of(name), "hidden_dense")
    assert bool(hidden) is models.MODELS[name].hidden_dense
    config = config_lib.base()
    config.model.name = name
    config.optimizer.weight_decay_on = "hidden_dense"
    resolve(config, of_size((320, 320, 3)))
    config.optimizer.weight_decay = 1e-4
    if hidden:
        resolve(config, of_size((320, 320, 3)))
        return
    allowed = f"all or kernels for {name}, which has no hidden dense layer"
    with pytest.raises(UserError, match=f"weight_decay_on is 'hidden_dense'; it must be {allowed}"):
        resolve(config, of_size((320, 320, 3)))


def test_weight_decay_against_numpy():
    config = config_lib.base()
    config.optimizer.update(weight_decay=0.1, weight_decay_on="kernels")
    optimizer = make_optimizer(config, optax.constant_schedule(0.5))
    params = {"Dense_0": {"kernel": jnp.float32(3.0), "bias": jnp.float32(3.0)}}
    grads = jax.tree.map(lambda x: jnp.float32(2.0), params)
    state, expected, velocity = optimizer.init(params), np.full(2, 3.0), np.zeros(2)
    for _ in range(4):
        updates, state = optimizer.update(grads, state, params)
        params = jax.tree.map(lambda a, b: a + b, params, updates)
        velocity = 0.9 * velocity + 2.0 + np.array([0.1, 0.0]) * expected
        expected = expected - 0.5 * velocity
        layer = params["Dense_0"]
        np.testing.assert_allclose([layer["kernel"], layer["bias"]], expected, rtol=1e-6)


def config_with(**optimizer):
    config = config_lib.base()
    config.optimizer.update(learning_rate=0.5, **optimizer)
    return config


def test_the_rate_drops_after_epochs():
    config = config_with(decay_per_epoch=1.0, drop_epochs=(2, 3))
    rate = learning_rate(config, steps_per_epoch=10, total_steps=50)
    rates = [float(rate(step)) for step in range(50)]
    np.testing.assert_allclose(rates, [0.5] * 20 + [0.05] * 10 + [0.005] * 20, rtol=1e-6)
    config.optimizer.decay_per_epoch = 0.5
    rate = learning_rate(config, steps_per_epoch=10, total_steps=50)
    np.testing.assert_allclose(float(rate(25)), 0.5 * 0.5**2 * 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"decay_per_epoch": 0.9},
        {"decay_per_epoch": 0.9, "drop_epochs": (1,)},
        {"decay_per_epoch": 0.9, "warmup_epochs": 1.5},
        {"schedule": "cosine"},
        {"schedule": "cosine", "warmup_epochs": 1.5},
    ],
    ids=str,
)
def test_the_rate_is_the_same_for_traced_steps(fields):
    rate = learning_rate(config_with(**fields), steps_per_epoch=3, total_steps=9)
    steps = np.arange(9, dtype=np.int32)
    assert jax.vmap(rate)(steps).dtype == jnp.float32
    np.testing.assert_allclose(jax.vmap(rate)(steps), [rate(step) for step in steps], rtol=1e-6)


def test_the_default_rates_are_exactly_optaxs():
    decay = optax.exponential_decay(0.5, 10, 0.95, staircase=True)
    rate = learning_rate(config_with(decay_per_epoch=0.95), 10, 50)
    steps = np.arange(50, dtype=np.int32)
    np.testing.assert_array_equal(jax.vmap(rate)(steps), jax.vmap(decay)(steps))


def test_the_rate_falls_along_a_cosine():
    config = config_lib.fill_in(config_with(schedule="cosine"), 50_000, 32)
    rate = learning_rate(config, steps_per_epoch=3, total_steps=10)
    rates = [float(rate(step)) for step in range(11)]
    expected = 0.25 * (1 + np.cos(np.pi * np.arange(11) / 10))
    np.testing.assert_allclose(rates, expected, atol=1e-7)
    assert rates[0] == 0.5
    assert rates[10] == 0
    assert rates[9] > 0


@pytest.mark.parametrize(("epochs", "steps"), [(0.04, 0), (0.1, 1), (0.26, 3), (2.0, 20)])
@pytest.mark.parametrize("schedule", ["exponential", "cosine"])
def test_the_rate_warms_up(schedule, epochs, steps):
    fields = {"schedule": schedule, "decay_per_epoch": 0.5 if schedule == "exponential" else 1.0}
    cold = learning_rate(config_with(**fields), 10, 40)
    warm = learning_rate(config_with(**fields, warmup_epochs=epochs), 10, 40)
    factors = [float(warm(step)) / float(cold(step)) for step in range(40)]
    expected = [min((step + 1) / max(steps, 1), 1) for step in range(40)]
    np.testing.assert_allclose(factors, expected, rtol=1e-6)
    assert [float(warm(step)) for step in range(steps, 40)] == [
        float(cold(step)) for step in range(steps, 40)
    ]


def test_a_warm_up_longer_than_any_run():
    config = config_with(decay_per_epoch=1.0, warmup_epochs=2.0**31 - 1)
    rate = jax.jit(learning_rate(config, 10_000, 10))
    assert 0 < float(rate(np.int32(0))) < float(rate(np.int32(2**30)))
