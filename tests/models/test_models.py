import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from jax import lax

from rethink_jax import models
from rethink_jax.config import base
from rethink_jax.distributed import parallel
from rethink_jax.errors import UserError
from rethink_jax.models import __main__ as command, layers, parameter_counts
from rethink_jax.runs.resolve import resolve
from tests.data_helpers import of_size
from tests.models.test_imagenet_models import COUNTS as IMAGENET, dtypes_of_products

COUNTS = {
    "small Inception": 1_649_402,
    "small Inception w/o BatchNorm": 1_649_402,
    "small AlexNet": 1_387_786,
    "MLP 3×512": 1_735_178,
    "MLP 1×512": 1_209_866,
    "Wide ResNet 28-1": 369_498,  # its authors' count at this depth and width
}
EACH_MODEL = pytest.mark.parametrize("title", COUNTS)


def make(title, num_classes=10, dtype="float32", **fields):
    config = base().model
    config.update(parameter_counts.VARIANTS[title] | fields)
    return models.create(config, num_classes, dtype)


def describe(model, shape, **options):
    """Shapes and dtypes of a model's variables, and of what it returns."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return variables, jax.eval_shape(lambda v, x: model.apply(v, x, **options), variables, images)


def draw(model, shape, scale=1.0):
    """Variables of random numbers, sooner drawn than JAX compiles an initialization."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    rng = np.random.default_rng(0)

    def numbers(leaf):
        fan_in = max(np.prod(leaf.shape[:-1]), 1)
        return (rng.normal(size=leaf.shape) * scale / np.sqrt(fan_in)).astype(np.float32)

    return jax.tree.map(numbers, variables)


# The models.


def test_parameters_are_the_papers():
    assert parameter_counts.cifar10_counts() == COUNTS


def test_command_prints_the_parameters(monkeypatch, capsys):
    monkeypatch.setattr(command, "imagenet_counts", lambda: IMAGENET)  # which are tested beside it
    command.main([])
    text = capsys.readouterr().out
    counts = [*COUNTS.values(), *IMAGENET.values()]
    assert re.findall(r"[\d,]+,\d{3}(?= │)", text) == [f"{count:,}" for count in counts]
    for quotient in ("27.8", "24.2"):  # the paper's 28 and 24
        assert quotient in text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("image", [(28, 28, 3), (8, 8, 1), (7, 13, 2), (1, 1, 1)])
@EACH_MODEL
def test_logits(title, image, dtype):
    variables, logits = describe(make(title, 7, dtype), (5, *image))
    assert logits.shape == (5, 7)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@EACH_MODEL
def test_every_product_is_computed_in_bfloat16(title):
    model = make(title, dtype="bfloat16")
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    products = dtypes_of_products(model.apply, variables, images)
    assert len(products) >= 2
    assert set(products) == {"bfloat16"}


def test_feature_maps_of_small_inception():
    images = jax.ShapeDtypeStruct((2, 28, 28, 3), jnp.float32)
    model = make("small Inception")

    def units(variables, images):
        is_unit = lambda module, _: isinstance(module, layers.ConvUnit)  # noqa: E731
        return model.apply(variables, images, capture_intermediates=is_unit)[1]["intermediates"]

    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    found = jax.eval_shape(units, variables, images)
    maps = [found[f"ConvUnit_{i}"]["__call__"][0].shape for i in range(len(found))]
    # Pairs of a 1×1 and a 3×3 convolution of a module, and single ones.
    sides = {28: [96, 32, 32, 32, 48], 14: [80, 112, 48, 96, 64, 80, 80, 48, 96]}
    sides[7] = [96, 176, 160, 176, 160]
    assert maps == [(2, side, side, n) for side, filters in sides.items() for n in filters]
    params = variables["params"]
    kernels = [params[f"ConvUnit_{i}"]["Conv_0"]["kernel"].shape for i in range(len(found))]
    assert [kernel[0] for kernel in kernels] == [3, 1, 3, 1, 3, 3, *[1, 3] * 4, 3, 1, 3, 1, 3]
    # What flows in: a module's two parts joined, and Down's pool beside its convolution.
    inflow = [
        3,
        96,
        96,
        64,
        64,
        80,
        160,
        160,
        160,
        160,
        160,
        160,
        160,
        160,
        144,
        240,
        240,
        336,
        336,
    ]
    assert [kernel[2] for kernel in kernels] == inflow
    assert params["Dense_0"]["kernel"].shape == (336, 10)


def test_small_inception_has_a_bias_or_an_offset():
    for title, batch_norm in (("small Inception", True), ("small Inception w/o BatchNorm", False)):
        variables, _ = describe(make(title), (1, 8, 8, 3))
        assert ("batch_stats" in variables) == batch_norm
        for name, unit in variables["params"].items():
            if name.startswith("ConvUnit"):
                assert set(unit["Conv_0"]) == ({"kernel"} if batch_norm else {"kernel", "bias"})
                assert set(unit) == ({"Conv_0", "BatchNorm_0"} if batch_norm else {"Conv_0"})
                if batch_norm:
                    assert set(unit["BatchNorm_0"]) == {"bias"}  # no scale


def test_padding_does_not_reach_the_other_examples():
    """The whole small Inception in training, with one example of four masked out."""
    model = make("small Inception")
    images = np.random.default_rng(1).normal(size=(4, 4, 4, 1)).astype(np.float32)
    variables = draw(model, images.shape)
    mask = np.array([True, True, False, True])

    @jax.jit
    def apply(images, mask):
        return model.apply(variables, images, mask, train=True, mutable=["batch_stats"])

    logits, updates = apply(images, mask)
    others = images.copy()
    others[2] *= -5
    other_logits, other_updates = apply(others, mask)
    np.testing.assert_array_equal(logits[mask], other_logits[mask])
    jax.tree.map(np.testing.assert_array_equal, updates, other_updates)
    assert np.abs(logits - apply(others, np.ones(4, bool))[0]).max() > 1e-3
    assert np.isfinite(logits).all()


def test_mlp_against_numpy():
    model = make("MLP 3×512", 4, width=6)
    images = np.random.default_rng(1).normal(size=(5, 3, 2, 2)).astype(np.float32)
    params = draw(model, images.shape, scale=3)["params"]
    x = images.reshape(5, -1).astype(np.float64)
    for i in range(4):
        x = x @ params[f"Dense_{i}"]["kernel"] + params[f"Dense_{i}"]["bias"]
        x = np.maximum(x, 0) if i < 3 else x
    logits = model.apply({"params": params}, images)
    np.testing.assert_allclose(logits, x, rtol=1e-4, atol=1e-4)


def test_alexnet_against_its_definition():
    model = make("small AlexNet", 3)
    images = np.random.default_rng(1).normal(size=(2, 7, 6, 2)).astype(np.float32)
    params = draw(model, images.shape, scale=5)["params"]  # large: so the normalization matters
    x = images
    for i in range(2):
        layer = params[f"Conv_{i}"]
        layout = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(x, layer["kernel"], (1, 1), "SAME", dimension_numbers=layout)
        x = np.maximum(np.asarray(x) + layer["bias"], 0)
        x = np.asarray(nn.max_pool(x, (3, 3), (2, 2), "SAME"))
        x = normalize_by_loop(x, radius=4, bias=1.0, alpha=0.001 / 9, beta=0.75).astype(np.float32)
    x = x.reshape(2, -1)
    assert [params[f"Dense_{i}"]["kernel"].shape[1] for i in range(3)] == [384, 192, 3]
    for i in range(3):
        x = x @ params[f"Dense_{i}"]["kernel"] + params[f"Dense_{i}"]["bias"]
        x = np.maximum(x, 0) if i < 2 else x
    logits = jax.jit(model.apply)({"params": params}, images)
    np.testing.assert_allclose(logits, x, rtol=1e-3, atol=1e-3 * np.abs(x).max())


def test_initial_values_of_alexnet(monkeypatch):
    """Truncated normals, of which only the scale is drawn here: the numbers take long to compile."""

    def scale_alone(scale):
        return lambda key, shape, dtype: jnp.full(shape, scale, dtype)

    monkeypatch.setattr(nn.initializers, "truncated_normal", scale_alone)
    params = jax.jit(make("small AlexNet").init)(jax.random.key(0), np.zeros((1, 1, 1, 3), "f"))
    for name, layer in params["params"].items():
        scale = 0.05 if name.startswith("Conv") else 0.04
        np.testing.assert_array_equal(layer["kernel"], np.full(layer["kernel"].shape, scale, "f"))
        assert not layer["bias"].any()


@pytest.mark.parametrize("std", [None, 0.04])
def test_initial_values_of_mlps(std):
    params = make("MLP 3×512", initial_std=std).init(jax.random.key(0), np.zeros((1, 8, 8, 1), "f"))
    for layer in params["params"].values():
        # Cut off at two of it, a standard deviation is 0.8796 of what it was; LeCun's makes up for that.
        expected = 0.8796 * std if std else layer["kernel"].shape[0] ** -0.5
        np.testing.assert_allclose(layer["kernel"].std(), expected, rtol=0.03)
        assert not layer["bias"].any()


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("name", "resnet", f"one of {', '.join(models.MODELS)}"),
        ("depth", 0, "1 or more"),
        ("width", -1, "1 or more"),
    ],
)
def test_check_refuses(field, value, allowed):
    config = base()
    config.model[field] = value
    with pytest.raises(UserError) as error:
        resolve(config, of_size())
    assert str(error.value) == f"config.model.{field} is {value!r}; it must be {allowed}"


# Local response normalization.


def normalize_by_loop(x, radius, bias, alpha, beta):
    x = x.astype(np.float64)
    result = np.empty_like(x)
    channels = x.shape[-1]
    for c in range(channels):
        near = x[..., max(c - radius, 0) : min(c + radius, channels - 1) + 1]
        result[..., c] = x[..., c] / (bias + alpha * (near**2).sum(axis=-1)) ** beta
    return result


@given(
    channels=st.sampled_from([1, 5, 9, 24]),
    radius=st.sampled_from([0, 2, 4]),
    bias=st.sampled_from([1.0, 2.0]),
    alpha=st.sampled_from([0.001 / 9, 0.1]),
    beta=st.sampled_from([0.5, 0.75]),
)
def test_normalization_against_a_loop(channels, radius, bias, alpha, beta):
    x = np.random.default_rng(channels).normal(0, 20, (2, 3, channels)).astype(np.float32)
    ours = layers.local_response_normalization(x, radius, bias, alpha, beta)
    np.testing.assert_allclose(ours, normalize_by_loop(x, radius, bias, alpha, beta), rtol=1e-4)


def test_normalization_of_the_paper():
    """Window 9 by default: 13 channels of 30 have 5 to 9 neighbours of 900, themselves included."""
    ours = layers.local_response_normalization(np.full((1, 1, 1, 13), 30, np.float32))
    near = np.array([5, 6, 7, 8, 9, 9, 9, 9, 9, 8, 7, 6, 5])
    np.testing.assert_allclose(ours[0, 0, 0], 30 * (1 + near * 0.1) ** -0.75, rtol=1e-5)


# BatchNorm.

BATCH = np.random.default_rng(0).normal(3, 2, (8, 3, 2, 4)).astype(np.float32) * np.float32(
    [1, 5, 0.1, 2]
)
OFFSET = np.float32([0.5, -1, 0, 2])
STATS = {"mean": np.float32([0, 1, -1, 4]), "var": np.float32([1, 2, 0.5, 9])}
VARIABLES = {"params": {"bias": OFFSET}, "batch_stats": STATS}


def normalize(x, mean, var):
    return (x - mean) / np.sqrt(var + 1e-3) + OFFSET


def batch_norm(x, mask, train, axis_name=None):
    norm = layers.BatchNorm(axis_name)
    return norm.apply(VARIABLES, x, mask, train, mutable=["batch_stats"])


@pytest.mark.parametrize("count", [1, 5, 8])
def test_batch_norm_against_numpy(count):
    mask = np.isin(np.arange(8), np.random.default_rng(count).permutation(8)[:count])
    out, updates = batch_norm(BATCH, mask, train=True)
    seen = BATCH[mask].astype(np.float64)
    mean, var = seen.mean(axis=(0, 1, 2)), seen.var(axis=(0, 1, 2))
    np.testing.assert_allclose(out, normalize(BATCH, mean, var), rtol=1e-4, atol=1e-4)
    running = updates["batch_stats"]
    np.testing.assert_allclose(running["mean"], 0.9 * STATS["mean"] + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(running["var"], 0.9 * STATS["var"] + 0.1 * var, rtol=1e-5)


def test_batch_norm_with_a_scale():
    scale = np.float32([2, 0, -1, 0.5])
    variables = {**VARIABLES, "params": {"bias": OFFSET, "scale": scale}}
    norm = layers.BatchNorm(None, epsilon=1e-5, scale=True)
    out = norm.apply(variables, BATCH, np.ones(8, bool), False)
    expected = (BATCH - STATS["mean"]) / np.sqrt(STATS["var"] + 1e-5) * scale + OFFSET
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    fresh = norm.init(jax.random.key(0), BATCH, np.ones(8, bool), True)
    assert (fresh["params"]["scale"] == 1).all()


def test_batch_norm_in_evaluation():
    out, updates = batch_norm(BATCH, np.zeros(8, bool), train=False)
    np.testing.assert_allclose(out, normalize(BATCH, STATS["mean"], STATS["var"]), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], STATS)


def test_batch_norm_of_bfloat16_has_float32_statistics():
    x = jnp.asarray(BATCH, jnp.bfloat16)
    out, updates = batch_norm(x, np.ones(8, bool), train=True)
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}
    exact = np.asarray(x.astype(jnp.float32)).astype(np.float64).mean(axis=(0, 1, 2))
    expected = 0.9 * STATS["mean"] + 0.1 * exact
    np.testing.assert_allclose(updates["batch_stats"]["mean"], expected, rtol=1e-5)


def test_batch_norm_starts_with_mean_0_and_variance_1():
    variables = layers.BatchNorm(None).init(jax.random.key(0), BATCH, np.ones(8, bool), True)
    assert not variables["params"]["bias"].any()
    assert not variables["batch_stats"]["mean"].any()
    assert (variables["batch_stats"]["var"] == 1).all()


# How many of the eight examples each device has.
LAYOUTS = {1: [[8]], 2: [[4, 4], [5, 3], [0, 8]], 4: [[2, 2, 2, 2], [3, 0, 4, 1], [0, 0, 8, 0]]}


def test_batch_norm_does_not_depend_on_the_devices(devices):
    """Outputs, running statistics and gradients, with uneven and with empty parts."""
    rng = np.random.default_rng(1)
    weights = rng.normal(size=BATCH.shape).astype(np.float32)

    def per_device(batch, weights, ids):
        mask = ids >= 0
        wide = mask[:, None, None, None]

        def loss(params, batch):
            norm = layers.BatchNorm(parallel.AXIS)
            variables = {"params": params, "batch_stats": STATS}
            out, updates = norm.apply(variables, batch[ids], mask, True, mutable=["batch_stats"])
            out = jnp.where(wide, out, 0)
            return jnp.sum(out * weights[ids]), (out, updates["batch_stats"])

        params = {"bias": OFFSET}
        (_, (out, stats)), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
            params, batch
        )
        out = jnp.zeros_like(batch).at[ids].add(out)
        return lax.psum((out, grads), parallel.AXIS), stats

    mean, var = BATCH.mean(axis=(0, 1, 2)), BATCH.var(axis=(0, 1, 2))

    def plain_loss(params, batch):
        mean = batch.mean(axis=(0, 1, 2), keepdims=True)
        var = jnp.square(batch - mean).mean(axis=(0, 1, 2), keepdims=True)
        out = (batch - mean) / jnp.sqrt(var + 1e-3) + params["bias"][None, None, None]
        return jnp.sum(out * weights)

    expected_grads = jax.grad(plain_loss, argnums=(0, 1))({"bias": OFFSET}, BATCH)
    mapped = parallel.map_over_devices(per_device)
    for counts in LAYOUTS[devices]:
        ids = np.full((devices, 8), -1, np.int32)
        order = rng.permutation(8)
        for device, count in enumerate(counts):
            ids[device, :count], order = order[:count], order[count:]
        (out, grads), stats = jax.device_get(mapped(BATCH, weights, ids))
        np.testing.assert_allclose(out, normalize(BATCH, mean, var), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(stats["mean"], 0.9 * STATS["mean"] + 0.1 * mean, rtol=1e-5)
        np.testing.assert_allclose(stats["var"], 0.9 * STATS["var"] + 0.1 * var, rtol=1e-5)
        for ours, expected in zip(
            jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True
        ):
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)
