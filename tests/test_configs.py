"""The config files that list runs, and the one of the authors' demonstration."""

import pytest

from rethink_jax import config as config_lib, data, sweep, train
from rethink_jax.config import UserError
from tests.test_config import CONFIGS, load

FILES = {file.stem: file for file in CONFIGS}
COUNTS = {
    "table1": 19,
    "table4": 6,
    "figure1a": 5,
    "figure1bc": 33,
    "figure2b": 2,
    "mlp1_settings": 7,
}


def config_of(name, argument=""):
    return load(FILES[name]).get_config(argument)


def names(name):
    return [entry["name"] for entry in config_of(name).sweep.runs]


@pytest.fixture
def described(monkeypatch):
    """CIFAR-10 and digits by their sizes, with nothing read; what is asked for."""
    asked = []

    def describe(config):
        asked.append(config.name)
        sizes = {"digits": (1500, 297, (8, 8, 1)), "cifar10": (50_000, 10_000, (32, 32, 3))}
        info = data.DatasetInfo(config.name, *sizes[config.name], 10)
        return data.arrays._first(info, config.examples)

    monkeypatch.setattr(data, "describe", describe)
    return asked


# The argument.


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("", ("cifar10", "full")),
        ("full", ("cifar10", "full")),
        ("small", ("cifar10", "small")),
        ("smoke", ("digits", "smoke")),
        ("digits", ("digits", "full")),
        ("cifar10_jpeg,small", ("cifar10_jpeg", "small")),
        ("small,cifar10_jpeg", ("cifar10_jpeg", "small")),
        ("cifar10,smoke", ("cifar10", "smoke")),
        ("Small", ("Small", "full")),
    ],
)
def test_argument(argument, expected):
    assert config_lib.data_and_size(argument) == expected


@pytest.mark.parametrize("argument", ["small,full", "a,b", ",small", "digits,", ",", "a,small,b"])
def test_argument_that_is_none(argument):
    with pytest.raises(UserError, match="it must be DATA, SIZE or DATA,SIZE, and SIZE one of"):
        config_lib.data_and_size(argument)


# The files.


@pytest.mark.parametrize("size", config_lib.SIZES)
@pytest.mark.parametrize("name", COUNTS)
def test_every_run_of_every_size_settles(name, size, described, tmp_path):
    config = config_of(name, size)
    runs = sweep.plan(config, tmp_path)
    assert len(runs) == COUNTS[name]
    assert (config.sweep.name, config.sweep.size) == (name, size)
    assert {run.seed for run in runs} == {0}
    expected = {
        "smoke": ("digits", 256, True),
        "small": ("cifar10", 1000, True),
        "full": ("cifar10", None, False),
    }
    for run in runs:
        settled = run.config
        got = (settled.data.name, settled.data.examples, settled.stop_when_fitted)
        assert got == expected[size]
        assert settled.model.width == 512
    assert set(described) == {expected[size][0]}


def test_smoke_is_digits_and_few_epochs(tmp_path, described):
    for run in sweep.plan(config_of("table1", "smoke"), tmp_path):
        assert run.total_steps == 6


def test_rows_of_table_1_are_the_papers(tmp_path, described):
    model = {
        ("small_inception", True): "inception",
        ("small_inception", False): "inception_nobn",
        ("small_alexnet", True): "alexnet",
    }
    runs = sweep.plan(config_of("table1"), tmp_path)
    for run in runs:
        config = run.config
        key = (config.model.name, config.model.batch_norm)
        parts = [model.get(key, f"mlp{config.model.depth}")]
        parts += ["crop"] * config.augment.random_crop
        parts += ["decay"] * (config.optimizer.weight_decay > 0)
        parts += ["random"] * (config.corruption.name == "random_labels")
        assert run.name == "-".join(parts)
        assert not any((config.augment.flip, config.augment.rotation_degrees, config.model.dropout))
    assert [run.config.optimizer.learning_rate for run in runs] == 8 * [0.1] + 11 * [0.01]
    assert names("table1")[:3] == ["inception-crop-decay", "inception-crop", "inception-decay"]
    assert names("table1")[-3:] == ["mlp1-decay", "mlp1", "mlp1-random"]


def test_weight_decay_is_that_of_the_model(tmp_path, described):
    touched = {
        run.name: (run.config.optimizer.weight_decay, run.config.optimizer.weight_decay_on)
        for run in sweep.plan(config_of("table1"), tmp_path)
        if "decay" in run.name
    }
    assert touched == {
        "inception-crop-decay": (4e-5, "all"),
        "inception-decay": (4e-5, "all"),
        "inception_nobn-decay": (4e-5, "all"),
        "alexnet-crop-decay": (0.004, "hidden_dense"),
        "alexnet-decay": (0.004, "hidden_dense"),
        "mlp3-decay": (5e-4, "all"),
        "mlp1-decay": (5e-4, "all"),
    }


def test_table_4(tmp_path, described):
    runs = {run.name: run for run in sweep.plan(config_of("table4"), tmp_path)}
    assert list(runs) == [
        *("inception-decay", "alexnet-decay", "mlp3-decay", "mlp1-decay"),
        *("inception-crop", "inception-augment"),
    ]
    assert {run.config.corruption.name for run in runs.values()} == {"random_labels"}
    assert [name for name, run in runs.items() if run.expect_divergence] == ["alexnet-decay"]
    longer = [name for name, run in runs.items() if run.config.optimizer.decay_per_epoch == 0.999]
    assert longer == ["inception-crop", "inception-augment"]
    assert {runs[name].config.epochs for name in longer} == {400}
    augment = runs["inception-augment"].config.augment
    assert (augment.flip, augment.rotation_degrees, augment.random_crop) == (True, 25, False)


def test_figure_1a_and_2b():
    corruptions = ["true_labels", "shuffled_pixels", "gaussian", "random_pixels", "random_labels"]
    assert names("figure1a") == corruptions
    assert config_of("figure1a").model.name == "small_inception"
    assert names("figure2b") == ["inception", "inception_nobn"]


def test_figure_1bc(tmp_path, described):
    runs = sweep.plan(config_of("figure1bc"), tmp_path)
    levels = [run.config.corruption.probability for run in runs]
    assert levels == 3 * [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    assert {run.config.corruption.name for run in runs} == {"partially_corrupted_labels"}
    assert runs[0].name == "inception-p0.0"
    assert runs[-1].name == "mlp1-p1.0"
    assert runs[11].config.model.name == "small_alexnet"


@pytest.mark.parametrize("name", COUNTS)
def test_fields_of_the_command_line_hold_for_all_runs(name, tmp_path, described):
    config = config_of(name)
    config.epochs, config.data.examples = 7, 100
    for run in sweep.plan(config, tmp_path):
        assert (run.config.epochs, run.config.data.examples) == (7, 100)


def test_the_authors_demonstration(described):
    config = config_of("authors_demo", "cifar10")
    settled, _ = train.settle(config)
    assert (settled.model.name, settled.epochs, settled.batch_size) == ("wide_resnet", 300, 128)
    assert (settled.data.size, settled.stop_when_fitted) == (32, False)
    optimizer = settled.optimizer
    assert (optimizer.learning_rate, optimizer.momentum) == (0.1, 0.9)
    assert (optimizer.drop_epochs, optimizer.decay_per_epoch) == ((150, 225), 1.0)
    assert (optimizer.weight_decay, optimizer.weight_decay_on) == (1e-4, "all")
    assert train.settle(config_of("authors_demo", "digits"))[0].data.size == 8
