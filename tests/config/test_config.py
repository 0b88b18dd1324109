import importlib.util
import math
import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, corruptions
from rethink_jax.config import base, fill_in, train
from rethink_jax.errors import UserError
from rethink_jax.runs.resolve import resolve
from tests.data_helpers import of_size

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
CORRUPTIONS = [file for file in CONFIGS if file.stem in corruptions.OF_PAPER]
EACH_FILE = pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)


def with_fields(**fields):
    config = base()
    config.update_from_flattened_dict(fields, strip_prefix="")
    return config


def get(config, field):
    for part in field.split("."):
        config = config[part]
    return config


def load(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Resolving.


@pytest.mark.parametrize(
    ("num_train", "side", "fields", "expected"),
    [
        # CIFAR-10, as the paper has it: Inception, 0.1, ×0.95, 28 out of 32.
        (50_000, 32, {}, ("small_inception", 0.1, 0.95, 80, 28)),
        (50_000, 32, {"model.name": "mlp"}, ("mlp", 0.01, 0.95, 80, 28)),
        (50_000, 32, {"model.name": "small_alexnet"}, ("small_alexnet", 0.01, 0.95, 80, 28)),
        # Small sets, ours.
        (1500, 8, {}, ("mlp", 0.01, 1.0, 600, 8)),
        (1500, 8, {"model.name": "small_inception"}, ("small_inception", 0.1, 1.0, 600, 8)),
        (10_000, 32, {}, ("mlp", 0.01, 1.0, 600, 28)),
        (10_001, 31, {}, ("small_inception", 0.1, 0.95, 80, 31)),
        (1, 33, {}, ("mlp", 0.01, 1.0, 600, 33)),
    ],
)
def test_defaults(num_train, side, fields, expected):
    config = fill_in(with_fields(**fields), num_train, side)
    assert expected == (
        config.model.name,
        config.optimizer.learning_rate,
        config.optimizer.decay_per_epoch,
        config.epochs,
        config.data.size,
    )
    assert config.stop_when_fitted is (num_train <= 10_000)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"stop_at_loss": 0.01}, False),
        ({"stop_at_loss": 0.01, "stop_when_fitted": True}, True),
        ({"stop_at_loss": 0.01, "stop_when_fitted": False}, False),
    ],
)
def test_a_loss_to_stop_at_is_in_place_of_the_accuracy(fields, expected):
    config = fill_in(with_fields(**fields), 1500, 8)
    assert config.stop_when_fitted is expected
    assert config.stop_at_loss == fields.get("stop_at_loss")


def test_no_decay_beside_a_cosine():
    config = fill_in(with_fields(**{"optimizer.schedule": "cosine"}), 50_000, 32)
    assert config.optimizer.decay_per_epoch == 1
    config_lib.check(config)


SET = {
    "epochs": 3,
    "model.name": "small_alexnet",
    "data.size": 5,
    "optimizer.learning_rate": 0.3,
    "optimizer.decay_per_epoch": 0.5,
}


@pytest.mark.parametrize("num_train", [1500, 50_000])
@pytest.mark.parametrize("field", SET)
def test_resolving_keeps_what_the_user_set(field, num_train):
    untouched = fill_in(base(), num_train, 32)
    assert get(untouched, field) != SET[field]
    config = fill_in(with_fields(**{field: SET[field]}), num_train, 32)
    assert get(config, field) == SET[field]


def test_resolving_leaves_its_argument_and_every_other_field():
    config = train("digits", "gaussian", per_channel=False)
    before = config.to_dict()
    resolved = fill_in(config, 1500, 8)
    assert config.to_dict() == before
    resolved.corruption.seed = 9
    resolved.optimizer.momentum = 0.5
    assert config.to_dict() == before
    resolved.corruption.seed, resolved.optimizer.momentum = 0, 0.9
    after = resolved.to_dict()
    for field in (*SET, "stop_when_fitted", "optimizer.weight_decay_on"):
        *group, name = field.split(".")
        holders = before, after
        for part in group:
            holders = [holder[part] for holder in holders]
        assert holders[0].pop(name) is None
        assert holders[1].pop(name) is not None
    assert after == before


def test_resolving_again_changes_nothing():
    resolved = fill_in(train("digits", "gaussian"), 1500, 8)
    assert fill_in(resolved, 50_000, 32).to_dict() == resolved.to_dict()


def test_resolving_a_locked_config():
    """As the command line hands it over."""
    config = base().lock()
    assert fill_in(config, 1500, 8).model.name == "mlp"


# Epochs and steps.


def test_cifar10_has_391_steps_an_epoch():
    assert config_lib.steps_per_epoch(base(), 50_000) == 391


@given(st.integers(1, 10**6), st.integers(1, 1000), st.integers(1, 100))
def test_an_epoch_holds_every_example_once(num_train, batch_size, epochs):
    config = with_fields(batch_size=batch_size, epochs=epochs)
    steps = config_lib.steps_per_epoch(config, num_train)
    assert (steps - 1) * batch_size < num_train <= steps * batch_size
    assert config_lib.total_steps(config, num_train) == epochs * steps


def test_steps_go_before_epochs():
    config = with_fields(epochs=2)
    assert config_lib.total_steps(config, 50_000) == 782
    config.steps = 5
    assert config_lib.total_steps(config, 50_000) == 5


# The digest.


def test_golden_digest():
    config = fill_in(train("digits", "random_pixels"), 1500, 8)
    frozen = {
        "experiment": "train",
        "seed": 0,
        "data": {"name": "digits", "size": 8},
        "optimizer": {"learning_rate": 0.01},
    }
    # sha256 of '{"data": {"name": "digits", "size": 8}, "optimizer": {"learning_rate": 0.01}, "seed": 0}'.
    assert config_lib.digest(ConfigDict(frozen)) == "1e8f1918"
    again = fill_in(train("digits", "random_pixels"), 1500, 8)
    assert config_lib.digest(config) == config_lib.digest(again)


def test_digest_does_not_depend_on_the_order_of_fields():
    fields = fill_in(base(), 1500, 8).to_dict()
    turned = {name: fields[name] for name in reversed(fields)}
    turned["data"] = {name: fields["data"][name] for name in reversed(fields["data"])}
    assert list(turned) != list(fields)
    assert config_lib.digest(ConfigDict(turned)) == config_lib.digest(ConfigDict(fields))


def test_digest_ignores_what_does_not_change_the_result():
    resolved = fill_in(base(), 1500, 8)
    digests = {config_lib.digest(resolved)}
    resolved.experiment = "evaluate"
    resolved.compilation_cache = "elsewhere"
    assert {config_lib.digest(resolved)} == digests
    others = {
        "seed": 1,
        "batch_size": 64,
        "stop_when_fitted": False,
        "dtype": "bfloat16",
        "data.name": "cifar100",
        "corruption.name": "gaussian",
        "corruption.seed": 1,
        "model.depth": 3,
        "optimizer.momentum": 0.8,
        "evaluate.every_epochs": 2,
    }
    for field, value in others.items():
        config = fill_in(with_fields(**{field: value}), 1500, 8)
        digests.add(config_lib.digest(config))
    assert len(digests) == 1 + len(others)
    assert all(re.fullmatch("[0-9a-f]{8}", digest) for digest in digests)


def test_digest_of_equal_numbers_written_differently():
    one = fill_in(with_fields(**{"optimizer.learning_rate": 1}), 1500, 8)
    other = fill_in(with_fields(**{"optimizer.learning_rate": 1.0}), 1500, 8)
    assert config_lib.digest(one) == config_lib.digest(other)


# Checking.

COUNTS = ("evaluate.every_epochs", "checkpoint.every_epochs", "checkpoint.keep")
OPTIONAL = ("epochs", "steps", "data.examples", "data.size", "checkpoint.every_steps")
BAD = [
    *(
        (field, value, "in [1, 2**31)")
        for field in (*COUNTS, *OPTIONAL)
        for value in (0, -3, 2**31, 10**30)
    ),
    *(("batch_size", value, "in [1, 1048576]") for value in (0, -3, 2**20 + 1)),
    *(
        ("optimizer.learning_rate", value, "above 0 and finite")
        for value in (0.0, -0.1, math.nan, math.inf, -math.inf)
    ),
    *(
        ("optimizer.decay_per_epoch", value, "in (0, 1]")
        for value in (0.0, -0.5, 1.01, math.nan, math.inf)
    ),
    *(
        (field, value, "in [0, 1)")
        for field in ("optimizer.momentum", "label_smoothing")
        for value in (-0.1, 1.0, math.nan)
    ),
    *(
        ("optimizer.warmup_epochs", value, "in [0, 2**31)")
        for value in (-0.1, 2.0**31, math.nan, math.inf)
    ),
    *(("optimizer.schedule", value, "exponential or cosine") for value in ("step", "")),
    *(
        ("grace_seconds", value, "in (0, 86400], a day at most")
        for value in (0.0, -1.0, 86401.0, math.nan, math.inf)
    ),
    *(
        (field, value, "in [0, 2**32)")
        for field in ("seed", "corruption.seed")
        for value in (-1, 2**32)
    ),
    ("dtype", "float16", "float32 or bfloat16"),
    ("dtype", "", "float32 or bfloat16"),
]


@pytest.mark.parametrize(("field", "value", "allowed"), BAD)
def test_check_refuses(field, value, allowed):
    with pytest.raises(UserError) as error:
        config_lib.check(with_fields(**{field: value}))
    assert str(error.value) == f"config.{field} is {value!r}; it must be {allowed}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in (*COUNTS, *OPTIONAL) for value in (1, 2**31 - 1)),
        ("batch_size", 1),
        ("batch_size", 2**20),
        ("grace_seconds", 0.1),
        ("grace_seconds", 86_400.0),
        ("optimizer.learning_rate", 1e-12),
        ("optimizer.learning_rate", 10.0),
        ("optimizer.decay_per_epoch", 1.0),
        ("optimizer.decay_per_epoch", 1e-6),
        ("optimizer.momentum", 0.0),
        ("optimizer.momentum", 0.999),
        ("optimizer.schedule", "cosine"),
        ("optimizer.warmup_epochs", 0.25),
        ("label_smoothing", 0.999),
        ("seed", 2**32 - 1),
        ("corruption.seed", 2**32 - 1),
        ("dtype", "bfloat16"),
    ],
)
def test_check_allows_the_edges(field, value):
    config_lib.check(with_fields(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("optimizer.decay_per_epoch", 0.95, "1.0 or left out for cosine"),
        ("optimizer.drop_epochs", (3, 5), "() for cosine"),
    ],
)
def test_check_refuses_two_schedules(field, value, allowed):
    with pytest.raises(UserError) as error:
        config_lib.check(with_fields(**{field: value, "optimizer.schedule": "cosine"}))
    assert str(error.value) == f"config.{field} is {value!r}; it must be {allowed}"


def test_check_allows_the_defaults_before_and_after_resolving():
    config_lib.check(base())
    config_lib.check(fill_in(base(), 50_000, 32))
    config_lib.check(fill_in(base(), 1, 1))


# Fields.


ALL = ", ".join(sorted(base()))


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"epoch": 3}, f"config.epoch is no field; config has {ALL}"),
        (
            {"data": {**base().data.to_dict(), "sise": 3}},
            "config.data.sise is no field; config.data has channels, data_dir, examples, fake, label, name, …",
        ),
        ({"data": {"name": "digits"}}, "config.data.channels is missing; config.data has …"),
        (
            {"data": "digits"},
            "config.data is 'digits'; it must be a group of fields: channels, data_dir, …",
        ),
        *(
            ({field: value}, f"config.{field} is {value!r}; it must be {allowed}")
            for field, value, allowed in (
                ("seed", None, "a whole number"),
                ("seed", 1.0, "a whole number"),
                ("seed", True, "a whole number"),
                ("epochs", "1", "a whole number"),
                ("grace_seconds", "1", "a number"),
                ("grace_seconds", True, "a number"),
                ("stop_when_fitted", 0, "true or false"),
                ("dtype", 32, "text"),
            )
        ),
    ],
)
def test_check_refuses_other_fields_than_those_of_base(changed, line):
    pattern = re.escape(line).replace("…", ".*")
    with pytest.raises(UserError, match=f"^{pattern}$"):
        config_lib.check(ConfigDict({**base().to_dict(), **changed}))


def test_check_refuses_a_config_that_lacks_a_field():
    fields = base().to_dict()
    del fields["seed"]
    with pytest.raises(UserError, match=rf"^config.seed is missing; config has {ALL}$"):
        config_lib.check(ConfigDict(fields))


def test_a_whole_number_is_a_number():
    config_lib.check(ConfigDict({**base().to_dict(), "grace_seconds": 30}))


def test_a_config_without_placeholders_is_one_too():
    config_lib.check(ConfigDict(base().to_dict()))


@pytest.mark.parametrize(
    ("field", "value"), [*SET.items(), ("steps", 7), ("data.examples", 9), ("data.data_dir", "/d")]
)
def test_placeholders_can_be_set_but_only_to_their_type(field, value):
    assert get(base(), field) is None
    assert get(with_fields(**{field: value}), field) == value
    wrong = 3 if isinstance(value, str) else "three"
    with pytest.raises(TypeError, match="type"):
        with_fields(**{field: wrong})


def test_train_sets_the_data_and_the_corruption():
    config = train("digits", "partially_corrupted_labels", probability=0.25, seed=4)
    expected = base()
    expected.data.name = "digits"
    expected.corruption.name = "partially_corrupted_labels"
    expected.corruption.probability = 0.25
    expected.corruption.seed = 4
    assert config.to_dict() == expected.to_dict()


def test_the_papers_values():
    config = base()
    assert config.batch_size == 128
    assert config.optimizer.momentum == 0.9
    assert config.data.name == "cifar10"
    assert (config.model.depth, config.model.width, config.model.batch_norm) == (1, 512, True)


# The files.


@pytest.mark.parametrize("file", CORRUPTIONS, ids=lambda file: file.stem)
def test_config_file(file):
    module = load(file)
    config = module.get_config("digits")
    assert config.corruption.name == file.stem
    assert config.data.name == "digits"
    assert module.get_config().data.name == "cifar10"
    resolved, info = resolve(config, of_size())
    assert resolve(resolved, of_size()) == (resolved, info)


@EACH_FILE
def test_the_docstring_of_a_config_file_says_its_command(file):
    module = load(file)
    command = f"python -m rethink_jax.main --config=configs/{file.name}"
    assert command in module.__doc__
    config = module.get_config()
    for field, value in re.findall(r"--config\.([\w.]+)=(\S+)", module.__doc__):
        *group, name = field.split(".")
        holder = get(config, ".".join(group)) if group else config
        assert name in holder
        holder[name] = holder.get_type(name)(value)


def test_every_corruption_has_its_file():
    assert set(corruptions.OF_PAPER) <= {file.stem for file in CONFIGS}
