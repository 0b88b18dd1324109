"""The ImageNet models, beside torchvision's and timm's with the same random weights."""

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from rethink_jax import config as config_lib, models
from rethink_jax.errors import UserError
from rethink_jax.models import parameter_counts
from rethink_jax.models.inception_v3 import AUXILIARY_SIDE, InceptionV3
from rethink_jax.runs.resolve import resolve
from tests.data_helpers import of_size

# As torchvision and timm count, or the papers.
COUNTS = {
    "alexnet": 61_100_840,
    "inception_v3": 23_834_568,
    "inception_v4": 42_681_353,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
}
EACH_MODEL = pytest.mark.parametrize("name", COUNTS)
# One of each kind of module; the others differ in how many there are, which `COUNTS` tells.
KINDS = ("alexnet", "inception_v3", "inception_v4", "resnet18", "resnet50", "vgg11")
ONE_OF_EACH_KIND = pytest.mark.parametrize(
    "name",
    [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in COUNTS],
)


def equations(function, *arguments):
    """Yields the equations of a function's program, those of functions in it too; and its results."""

    def within(jaxpr):
        for equation in jaxpr.eqns:
            yield equation
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                yield from within(inner)

    return within(jax.make_jaxpr(function)(*arguments).jaxpr)


def dtypes_of_products(function, *arguments):
    """Returns the names of the dtypes in which convolutions and matrix products are computed."""
    return [
        equation.outvars[0].aval.dtype.name
        for equation in equations(function, *arguments)
        if equation.primitive.name in ("conv_general_dilated", "dot_general")
    ]


def make(name, num_classes=10, dtype="float32", **fields):
    model = config_lib.base().model
    model.update(name=name, **fields)
    return models.create(model, num_classes, dtype)


def shapes_of(model, side, batch=2):
    images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
    return images, jax.eval_shape(model.init, jax.random.key(0), images)


def test_parameters_are_the_originals():
    assert parameter_counts.imagenet_counts() == COUNTS
    with_auxiliary = make("inception_v3", 1000, auxiliary=True)
    assert models.count_parameters(with_auxiliary, (299, 299, 3)) == 27_161_264


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.ci), "bfloat16"])
@ONE_OF_EACH_KIND
def test_logits_and_products(name, dtype):
    model = make(name, dtype=dtype)
    images, variables = shapes_of(model, models.MODELS[name].smallest_side)
    logits = jax.eval_shape(model.apply, variables, images)
    assert (logits.shape, logits.dtype) == ((2, 10), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert set(dtypes_of_products(model.apply, variables, images)) == {dtype}


@pytest.mark.parametrize(
    ("name", "side", "last"),
    [
        ("resnet18", 224, 512),
        ("resnet50", 224, 2048),
        ("inception_v3", 299, 2048),
        ("inception_v4", 299, 1536),
        ("vgg11", 224, 7 * 7 * 512),
        ("alexnet", 224, 6 * 6 * 256),
        ("alexnet", 227, 6 * 6 * 256),
    ],
)
def test_features_before_the_dense_layers(name, side, last):
    _, variables = shapes_of(make(name), side)
    assert variables["params"]["Dense_0"]["kernel"].shape[0] == last


def has_maps(name, side, **fields):
    """Whether no map of the model is empty, and none has a negative side."""
    model = make(name, **fields)
    try:
        images, variables = shapes_of(model, side)
        maps = [
            variable.aval.shape
            for equation in equations(model.apply, variables, images)
            for variable in equation.outvars
        ]
        return not any(0 in shape for shape in maps)
    except (TypeError, ValueError, ZeroDivisionError):
        return False


@ONE_OF_EACH_KIND
def test_images_that_are_too_small_are_refused(name):
    config = config_lib.base()
    smallest = models.MODELS[name].smallest_side
    config.model.name = name
    config.data.size = smallest
    resolve(config, of_size((320, 320, 3)))
    if smallest > 1:
        config.data.size = smallest - 1
        with pytest.raises(UserError, match=rf"^config.data.size is {smallest - 1}; it must be"):
            resolve(config, of_size((320, 320, 3)))
        assert not has_maps(name, smallest - 1)
    assert has_maps(name, smallest)


def test_images_that_are_too_small_for_the_second_classifier_are_refused():
    config = config_lib.base()
    config.model.update(name="inception_v3", auxiliary=True)
    config.data.size = AUXILIARY_SIDE
    resolve(config, of_size((320, 320, 3)))
    config.data.size -= 1
    line = "config.data.size is 298; it must be 299 or more for inception_v3 with model.auxiliary"
    with pytest.raises(UserError, match=f"^{line}$"):
        resolve(config, of_size((320, 320, 3)))
    assert has_maps("inception_v3", AUXILIARY_SIDE, auxiliary=True)
    assert not has_maps("inception_v3", AUXILIARY_SIDE - 1, auxiliary=True)


@pytest.mark.parametrize("name", sorted({*models.MODELS} - {"inception_v3"}))
def test_other_models_have_no_second_classifier(name):
    config = config_lib.base()
    config.model.auxiliary = True
    config.model.name = name
    line = f"config.model.auxiliary is True; it must be False for {name}, which has no second classifier"
    with pytest.raises(UserError, match=f"^{line}$"):
        resolve(config, of_size((320, 320, 3)))


def test_second_classifier_is_there_where_it_is_asked_for():
    images, without = shapes_of(make("inception_v3"), AUXILIARY_SIDE)
    model = make("inception_v3", auxiliary=True)
    _, with_it = shapes_of(model, AUXILIARY_SIDE)
    assert set(without) == set(with_it) == {"params", "batch_stats"}
    assert len(with_it["params"]) == len(without["params"]) + 3  # two convolutions, one dense layer
    mutable = ["batch_stats", "intermediates"]
    mask = jax.ShapeDtypeStruct((2,), bool)
    _, updates = jax.eval_shape(
        lambda v, x, m: model.apply(v, x, m, True, mutable=mutable), with_it, images, mask
    )
    (logits,) = updates["intermediates"]["auxiliary_logits"]
    assert (logits.shape, logits.dtype) == ((2, 10), jnp.float32)
    assert jax.tree.structure(updates["batch_stats"]) == jax.tree.structure(with_it["batch_stats"])


def test_dropout_where_the_originals_have_it():
    """The most that an example's own keys decide; evaluation has none."""
    model = make("alexnet", dropout=0.5)
    images, variables = shapes_of(model, 63)
    keys = jax.random.split(jax.random.key(0), 2)

    def draws(function):
        names = {equation.primitive.name for equation in equations(function, variables, images)}
        return "random_bits" in names

    assert draws(lambda v, x: model.apply(v, x, None, True, keys))
    assert not draws(model.apply)


# A second implementation.


def torch_model(name):
    """Its module with random weights and statistics, and the side of its images."""
    torch = pytest.importorskip("torch", reason="`uv sync --group reference` installs it")
    torch.manual_seed(0)
    if name == "inception_v4":
        timm = pytest.importorskip("timm", reason="`uv sync --group reference` installs it")
        module = timm.create_model(name, num_classes=10)
    else:
        torchvision = pytest.importorskip("torchvision")
        options = {"init_weights": True, "transform_input": False} if "inception" in name else {}
        module = torchvision.models.get_model(name, weights=None, num_classes=10, **options)
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor in (layer.weight, layer.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (layer.bias, layer.running_mean):
                torch.nn.init.normal_(tensor, std=0.1)
    return module.eval(), 299 if "inception" in name else 64 if "resnet" in name else 224


def created(params, kind):
    """The layers of a kind, in the order in which they were called."""
    return sorted(
        (n for n in params if n.startswith(f"{kind}_")), key=lambda n: int(n.split("_")[1])
    )


def convert(module, variables, last_shape):
    """The variables of our model from another's layers, which come in the same order."""
    torch = pytest.importorskip("torch")
    params, stats = {}, {}
    layers = {
        kind: [layer for layer in module.modules() if isinstance(layer, of)]
        for kind, of in {
            "conv": torch.nn.Conv2d,
            "norm": torch.nn.BatchNorm2d,
            "dense": torch.nn.Linear,
        }.items()
    }

    def numpy(tensor):
        return tensor.detach().numpy()

    convolutions = [(n,) for n in created(variables["params"], "Conv")]
    units = created(variables["params"], "ConvUnit")
    for (name, *_), layer in zip(
        convolutions or [(n,) for n in units], layers["conv"], strict=True
    ):
        own = {"kernel": numpy(layer.weight).transpose(2, 3, 1, 0)}
        own |= {} if layer.bias is None else {"bias": numpy(layer.bias)}
        params[name] = {"Conv_0": own} if units else own
    for name, layer in zip(units, layers["norm"], strict=True):
        params[name]["BatchNorm_0"] = {"scale": numpy(layer.weight), "bias": numpy(layer.bias)}
        found = {"mean": numpy(layer.running_mean), "var": numpy(layer.running_var)}
        stats[name] = {"BatchNorm_0": found}
    for name, layer in zip(created(variables["params"], "Dense"), layers["dense"], strict=True):
        kernel = numpy(layer.weight).T
        if name == "Dense_0" and last_shape:  # theirs is flattened with the channels first
            height, width, channels = last_shape
            kernel = kernel.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
            kernel = kernel.reshape(height * width * channels, -1)
        params[name] = {"kernel": kernel, "bias": numpy(layer.bias)}
    return {"params": params} | ({"batch_stats": stats} if stats else {})


@EACH_MODEL
def test_against_a_second_implementation(name):
    torch = pytest.importorskip("torch", reason="`uv sync --group reference` installs it")
    module, side = torch_model(name)
    if name == "inception_v3":
        module.AuxLogits = None
    images = np.random.default_rng(0).standard_normal((2, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = module(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    model = make(name)
    _, shapes = shapes_of(model, side)
    last = (7, 7, 512) if "vgg" in name else (6, 6, 256) if name == "alexnet" else None
    variables = convert(module, shapes, last)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    ours = np.asarray(jax.jit(model.apply)(variables, images))
    assert np.abs(theirs).max() > 1e-2
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


def test_the_auxiliary_head_against_a_second_implementation():
    torch = pytest.importorskip("torch", reason="`uv sync --group reference` installs it")
    module, side = torch_model("inception_v3")
    images = np.random.default_rng(0).standard_normal((2, side, side, 3)).astype(np.float32)
    seen = {}
    module.Mixed_6e.register_forward_hook(lambda _, inputs, output: seen.update(mixed=output))
    with torch.no_grad():
        theirs = module(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
        auxiliary = module.AuxLogits(seen["mixed"]).numpy()
    model = InceptionV3(10, auxiliary=True)
    _, shapes = shapes_of(model, side)
    variables = convert(module, shapes, None)
    apply = jax.jit(lambda v, x: model.apply(v, x, mutable="intermediates"))
    ours, left = apply(variables, images)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
    (found,) = left["intermediates"]["auxiliary_logits"]
    np.testing.assert_allclose(found, auxiliary, rtol=0, atol=1e-4 * np.abs(auxiliary).max())
