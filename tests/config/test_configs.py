"""The config files that list runs, those for ImageNet, and the one of the authors' demonstration."""

import re

import pytest

from rethink_jax import config as config_lib, corruptions, data, paper
from rethink_jax.errors import UserError
from rethink_jax.runs.resolve import resolve
from rethink_jax.sweeps import sweep
from tests.config.test_config import CONFIGS, load

IMAGENET = {
    f"imagenet/{file.stem}": file
    for file in sorted((CONFIGS[0].parent / "imagenet").glob("[!_]*.py"))
}
FILES = {file.stem: file for file in CONFIGS} | IMAGENET
# The rows of the paper that each file's runs measure again.
ROWS = {
    "table1": paper.TABLE1,
    "table4": paper.TABLE4,
    "figure1a": paper.FIGURE1A,
    "figure1bc": paper.FIGURE1B,
    "figure2b": paper.FIGURE2B,
    "mlp1_settings": (),
}


def config_of(name, argument=""):
    return load(FILES[name]).get_config(argument)


def names(name):
    return [entry["name"] for entry in config_of(name).sweep.runs]


@pytest.fixture
def described(monkeypatch):
    """CIFAR-10, digits and ImageNet by their sizes, with nothing read; what is asked for."""
    asked = []

    def describe(config):
        asked.append(config.name)
        sizes = {
            "digits": (1500, 297, (8, 8, 1), 10),
            "cifar10": (50_000, 10_000, (32, 32, 3), 10),
            "imagenet2012": (1_281_167, 50_000, (375, 500, 3), 1000),
        }
        info = data.DatasetInfo(config.name, *sizes[config.name])
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


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_the_paper_is_run_in_its_order(name):
    keys = [row.key for row in ROWS[name]]
    assert [run for run in names(name) if run in keys] == keys


@pytest.mark.parametrize("size", config_lib.SIZES)
@pytest.mark.parametrize("name", ROWS)
def test_every_run_of_every_size_resolves(name, size, described, tmp_path):
    config = config_of(name, size)
    runs = sweep.plan(config, tmp_path)
    assert [run.name for run in runs] == names(name)
    assert (config.sweep.name, config.sweep.size) == (name, size)
    assert {run.seed for run in runs} == {0}
    expected = {
        "smoke": ("digits", 256, True),
        "small": ("cifar10", 1000, True),
        "full": ("cifar10", None, False),
    }
    for run in runs:
        resolved = run.config
        got = (resolved.data.name, resolved.data.examples, resolved.stop_when_fitted)
        assert got == expected[size]
        assert resolved.model.width == 512
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
        rate = 0.1 if config.model.name == "small_inception" else 0.01
        assert config.optimizer.learning_rate == rate
        key = (config.model.name, config.model.batch_norm)
        parts = [model.get(key, f"mlp{config.model.depth}")]
        parts += ["crop"] * config.augment.random_crop
        parts += ["decay"] * (config.optimizer.weight_decay > 0)
        parts += ["random"] * (config.corruption.name == "random_labels")
        assert run.name == "-".join(parts)
        assert not any((config.augment.flip, config.augment.rotation_degrees, config.model.dropout))


def test_weight_decay_is_that_of_the_model(tmp_path, described):
    touched = {
        (
            paper.words_of(run.name)[0].text,
            run.config.optimizer.weight_decay,
            run.config.optimizer.weight_decay_on,
        )
        for run in sweep.plan(config_of("table1"), tmp_path)
        if "decay" in run.name
    }
    assert touched == {
        ("inception", 4e-5, "all"),
        ("inception_nobn", 4e-5, "all"),
        ("alexnet", 0.004, "hidden_dense"),
        ("mlp3", 5e-4, "all"),
        ("mlp1", 5e-4, "all"),
    }


def test_table_4(tmp_path, described):
    runs = {run.name: run for run in sweep.plan(config_of("table4"), tmp_path)}
    assert {run.config.corruption.name for run in runs.values()} == {"random_labels"}
    assert [name for name, run in runs.items() if run.expect_divergence] == ["alexnet-decay"]
    longer = [name for name, run in runs.items() if run.config.optimizer.decay_per_epoch == 0.999]
    keys = [row.key for row in paper.TABLE4]
    assert [name for name in longer if name in keys] == ["inception-crop", "inception-augment"]
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


@pytest.mark.parametrize("name", ROWS)
def test_fields_of_the_command_line_hold_for_all_runs(name, tmp_path, described):
    config = config_of(name)
    config.epochs, config.data.examples = 7, 100
    for run in sweep.plan(config, tmp_path):
        assert (run.config.epochs, run.config.data.examples) == (7, 100)


# Names of runs.


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "inception-croop",
            "has the word 'croop'; it must be one of crop, augment, decay, random, ",
        ),
        ("mlp3-Crop", "has the word 'Crop'"),
        ("mlp1-", "has the word ''"),
        ("mlp1--crop", "has the word ''"),
        ("mlp1-decay-decay", "has the word 'decay' twice"),
        ("mlp2", "begins with 'mlp2'; it must be one of inception, inception_nobn, alexnet, mlp3,"),
        ("", "begins with ''"),
        ("crop-inception", "begins with 'crop'"),
        ("mlp1-mlp1", "has the word 'mlp1'"),
        ("mlp1-random-p0.5", "has words that contradict each other: 'p0.5' is one"),
        ("mlp1-p0.5-random", "has words that contradict each other: 'random' is one"),
        ("mlp1-p0.3-p0.5", "has words that contradict each other: 'p0.5' is one"),
        ("mlp1-rate_0.1-rate_0.2", "has words that contradict each other: 'rate_0.2' is one"),
        *(
            (f"mlp1-{word}", f"has the word '{word}'")
            for word in ("p", "p.5", "0.5", "rate_", "rate_x", "rates_0.1", "epochs_2.5")
        ),
    ],
)
def test_a_name_that_nobody_knows_is_refused(name, told):
    with pytest.raises(UserError, match=f"^run {re.escape(repr(name) + ' ' + told)}"):
        config_lib.cifar10_entry(name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("true-augmnet", "has the word 'augmnet'; it must be one of augment, dropout, decay"),
        ("true-crop", "has the word 'crop'"),
        ("true-p0.5", "has the word 'p0.5'"),
        ("random-dropout-dropout", "has the word 'dropout' twice"),
        ("random-true", "has the word 'true'"),
        ("inception", "begins with 'inception'; it must be one of true, random"),
    ],
)
def test_a_name_that_nobody_knows_is_refused_on_imagenet(name, told):
    with pytest.raises(UserError, match=f"^run {re.escape(repr(name) + ' ' + told)}"):
        config_lib.imagenet_entry(name)


def test_fields_do_not_contradict_a_name():
    twice = config_lib.cifar10_entry("mlp1-p0.3", {"corruption.probability": 0.3})
    assert twice == config_lib.cifar10_entry("mlp1-p0.3")
    told = "run 'mlp1' sets config.model.depth to 1 by its name, and to 3"
    with pytest.raises(UserError, match=f"^{told}$"):
        config_lib.cifar10_entry("mlp1", {"model.depth": 3})


def test_numbers_in_names_set_what_they_say():
    fields = {entry["name"]: entry["fields"] for entry in config_of("mlp1_settings").sweep.runs}
    row = {"model.name": "mlp", "model.depth": 1, "corruption.name": "random_labels"}
    assert fields == {
        "mlp1-random": row,
        "mlp1-random-epochs_160": row | {"epochs": 160},
        "mlp1-random-factor_0.97": row | {"optimizer.decay_per_epoch": 0.97},
        "mlp1-random-batch_64": row | {"batch_size": 64},
        "mlp1-random-batch_256": row | {"batch_size": 256},
        "mlp1-random-initial_std_0.04": row | {"model.initial_std": 0.04},
        "mlp1-random-rate_0.02": row | {"optimizer.learning_rate": 0.02},
    }


@pytest.mark.parametrize(
    "row", [row.key for row in (*paper.FIGURE1B, *paper.TABLE1, *paper.TABLE4)]
)
def test_every_row_of_the_paper_has_a_run(row):
    config_lib.cifar10_entry(row)
    level = row.partition("-p")[2]
    words = config_lib.values_in(row)
    assert words == ({f"p{level}": {"corruption.probability": float(level)}} if level else {})
    assert f"p = {level}" in paper.label(row) if level else "p =" not in paper.label(row)


# ImageNet.


def resolved_of(name, argument, tmp_path):
    return {run.name: run for run in sweep.plan(config_of(name, argument), tmp_path)}


@pytest.mark.parametrize(("name", "count"), [("table2", 7), ("figure2a", 3)])
def test_sweeps_on_imagenet(name, count, tmp_path, described):
    runs = resolved_of(f"imagenet/{name}", "", tmp_path)
    assert len(runs) == count
    for run in runs.values():
        config = run.config
        assert (config.data.name, config.data.stream, config.data.fake) == (
            *("imagenet2012", True, False),
        )
        assert (config.model.name, config.data.size) == ("inception_v3", 299)
        assert (config.batch_size, config.epochs, config.dtype) == (1024, 90, "bfloat16")
        assert config_lib.steps_per_epoch(config, 1_281_167) == 1252
        assert run.total_steps == 112_680
        assert (config.label_smoothing, config.model.auxiliary) == (0, False)
        optimizer = config.optimizer
        assert (optimizer.learning_rate, optimizer.momentum) == (0.4, 0.9)
        assert (optimizer.schedule, optimizer.warmup_epochs) == ("cosine", 5)
        assert config.evaluate.every_epochs == (1 if name == "figure2a" else 5)
        assert config.augment.rotation_degrees == 0


def test_rows_of_table_2_are_the_papers(tmp_path, described):
    runs = resolved_of("imagenet/table2", "", tmp_path)
    for name, run in runs.items():
        config = run.config
        augment = (config.augment.random_crop, config.augment.flip, config.augment.color)
        assert len(set(augment)) == 1
        parts = ["random" if config.corruption.name == "random_labels" else "true"]
        parts += ["augment"] * augment[0]
        parts += ["dropout"] * (config.model.dropout == 0.2)
        parts += ["decay"] * (config.optimizer.weight_decay == 4e-5)
        assert name == "-".join(parts)
        assert {config.model.dropout, config.optimizer.weight_decay} <= {0, 0.2, 4e-5}
    assert list(runs) == [row.key for row in paper.TABLE2]
    assert names("imagenet/figure2a") == [row.key for row in paper.FIGURE2A]


@pytest.mark.parametrize("name", ["imagenet/table2", "imagenet/figure2a"])
def test_smoke_of_imagenet_is_a_few_small_made_up_images(name, tmp_path):
    config = config_of(name, "smoke")
    assert (config.sweep.name, config.sweep.size) == (name.removeprefix("imagenet/"), "smoke")
    for run in sweep.plan(config, tmp_path):
        assert run.total_steps == 8
        own = run.config.data
        assert (own.name, own.fake, own.examples, own.size) == ("imagenet2012", True, 64, 75)
        assert run.config.dtype == "float32"
        # As in the full size, for each image of the batch.
        assert run.config.optimizer.learning_rate / run.config.batch_size == 0.4 / 1024


def test_arguments_of_sweeps_on_imagenet():
    config = config_of("imagenet/table2", "mine,smoke")
    assert (config.data.name, config.sweep.size) == ("mine", "smoke")
    with pytest.raises(UserError, match=r"is 'small'; it must be .* SIZE one of smoke, full$"):
        config_of("imagenet/table2", "small")


@pytest.mark.parametrize("name", corruptions.OF_PAPER)
def test_single_runs_on_imagenet(name, described):
    config = config_of(f"imagenet/{name}", "imagenet2012")
    assert config.to_dict() == load(FILES[f"imagenet/{name}"]).get_config().to_dict()
    assert config.corruption.name == name
    assert config_of(f"imagenet/{name}", "mine").data.name == "mine"
    resolved, info = resolve(config)
    assert (resolved.model.name, resolved.data.size) == ("inception_v3", 299)
    assert config_lib.total_steps(resolved, info.num_train) == 112_680
    assert not any((resolved.model.dropout, resolved.optimizer.weight_decay, resolved.augment.flip))
    config.model.name = "resnet50"
    assert resolve(config)[0].data.size == 224


@pytest.mark.parametrize("name", IMAGENET)
def test_docstrings_of_configs_for_imagenet(name):
    module = load(FILES[name])
    text = " ".join(module.__doc__.split())
    assert f"python -m rethink_jax.main --config=configs/{name}.py" in text
    assert "not been run" in text
    config = module.get_config()
    for field in re.findall(r"--config\.([\w.]+)", text):
        config_lib.get(config, field)


def test_the_authors_demonstration(described):
    config = config_of("authors_demo", "cifar10")
    resolved, _ = resolve(config)
    assert (resolved.model.name, resolved.epochs, resolved.batch_size) == ("wide_resnet", 300, 128)
    assert (resolved.data.size, resolved.stop_when_fitted) == (32, False)
    optimizer = resolved.optimizer
    assert (optimizer.learning_rate, optimizer.momentum) == (0.1, 0.9)
    assert (optimizer.drop_epochs, optimizer.decay_per_epoch) == ((150, 225), 1.0)
    assert (optimizer.weight_decay, optimizer.weight_decay_on) == (1e-4, "all")
    assert resolve(config_of("authors_demo", "digits"))[0].data.size == 8
