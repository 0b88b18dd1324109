import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rethink_jax import config as config_lib, models, train_state


def params_of(name, **fields):
    model = config_lib.base().model
    model.update(name=name, **fields)
    module = models.create(model, 10)
    side = max(28, models.MODELS[name].smallest_side)
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), images)["params"]


def touched(params, on):
    mask = train_state.decay_mask(params, on)
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


def test_weight_decay_against_numpy():
    config = config_lib.base()
    config.optimizer.update(
        learning_rate=0.5, decay_per_epoch=1.0, weight_decay=0.1, weight_decay_on="kernels"
    )
    optimizer = train_state.make_optimizer(config, steps_per_epoch=2)
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


def test_the_rate_drops_after_epochs():
    config = config_lib.base()
    config.optimizer.update(learning_rate=0.5, decay_per_epoch=1.0, drop_epochs=(2, 3))
    rate = train_state.learning_rate(config, steps_per_epoch=10)
    rates = [float(rate(step)) for step in range(50)]
    np.testing.assert_allclose(rates, [0.5] * 20 + [0.05] * 10 + [0.005] * 20, rtol=1e-6)
    config.optimizer.decay_per_epoch = 0.5
    rate = train_state.learning_rate(config, steps_per_epoch=10)
    np.testing.assert_allclose(float(rate(25)), 0.5 * 0.5**2 * 0.1, rtol=1e-6)


@pytest.mark.parametrize("drop_epochs", [(), (1,)])
def test_the_rate_is_the_same_for_traced_steps(drop_epochs):
    config = config_lib.base()
    config.optimizer.update(learning_rate=0.5, decay_per_epoch=0.9, drop_epochs=drop_epochs)
    rate = train_state.learning_rate(config, steps_per_epoch=3)
    steps = np.arange(9, dtype=np.int32)
    assert jax.vmap(rate)(steps).dtype == jnp.float32
    np.testing.assert_allclose(jax.vmap(rate)(steps), [rate(step) for step in steps], rtol=1e-6)
