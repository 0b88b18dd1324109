"""Which rows of the paper a run's config belongs to."""

import pytest

from rethink_jax import config as config_lib, data
from rethink_jax.report import rows
from rethink_jax.report.catalog import SPECIFICATIONS
from rethink_jax.report.runs import ReportedRun
from rethink_jax.sweeps import sweep
from tests.config.test_config import CONFIGS, load

FILES = {file.stem: file for file in CONFIGS}
SIZES = {
    "cifar10": (50_000, (32, 32, 3), 10),
    "digits": (1500, (8, 8, 1), 10),
    "imagenet2012": (1_281_167, (375, 500, 3), 1000),
}


def run_of(config, num_train=50_000, side=32):
    resolved = config_lib.fill_in(config, num_train, side).to_dict()
    return ReportedRun("", resolved["seed"], "finished", resolved, {"num_train": num_train}, [], {})


def changed(name, num_train=50_000, **fields):
    """A run of one of Table 1's rows with some fields changed; `a__b` stands for the field a.b."""
    config = config_lib.base()
    config.update_from_flattened_dict(config_lib.cifar10_entry(name)["fields"])
    config.update_from_flattened_dict(
        {field.replace("__", "."): value for field, value in fields.items()}
    )
    return run_of(config, num_train)


@pytest.mark.parametrize("size", ["small", "full"])
@pytest.mark.parametrize("name", ["table1", "table4", "figure1a", "figure1bc", "figure2b"])
def test_every_run_of_a_config_file_is_of_its_row(name, size, tmp_path, monkeypatch):
    """The rows' recipes are the config files', and so is their being the same in several tables."""

    def describe(config):
        examples, shape, classes = SIZES[config.name]
        return data.DatasetInfo(config.name, config.examples or examples, 10, shape, classes)

    monkeypatch.setattr(data, "describe", describe)
    runs = sweep.plan(load(FILES[name]).get_config(size), tmp_path)
    of_paper = {row.key for row in SPECIFICATIONS[name].sections[0].rows}
    assert of_paper <= {planned.name for planned in runs}
    for planned in runs:
        found = rows.rows_of(run_of(planned.config, 50_000 if size == "full" else 1000))
        keys = [row.key for row in found if row.table == name]
        assert keys == ([planned.name] if planned.name in of_paper else [])


@pytest.mark.parametrize("name", ["table2", "figure2a"])
def test_every_run_on_imagenet_is_of_its_row(name, tmp_path, monkeypatch):
    info = data.DatasetInfo("imagenet2012", 1_281_167, 10, (375, 500, 3), 1000)
    monkeypatch.setattr(data, "describe", lambda config: info)
    config = load(CONFIGS[0].parent / "imagenet" / f"{name}.py").get_config()
    for planned in sweep.plan(config, tmp_path):
        found = rows.rows_of(run_of(planned.config, 1_281_167, 375))
        assert rows.Row(name, planned.name) in found


def test_one_run_is_of_several_rows():
    for name, expected in {
        "inception": [
            ("table1", "inception"),
            ("figure1a", "true_labels"),
            ("figure1bc", "inception-p0.0"),
            ("figure2b", "inception"),
        ],
        "inception-random": [
            ("table1", "inception-random"),
            ("figure1a", "random_labels"),
            ("figure1bc", "inception-p1.0"),
        ],
        "mlp3": [("table1", "mlp3")],
    }.items():
        assert rows.rows_of(changed(name)) == expected


def test_random_labels_are_all_labels_corrupted():
    run = changed("alexnet", corruption__name="partially_corrupted_labels")
    assert rows.rows_of(run) == [("table1", "alexnet-random"), ("figure1bc", "alexnet-p1.0")]
    run = changed(
        "alexnet", corruption__name="partially_corrupted_labels", corruption__probability=0.0
    )
    assert ("table1", "alexnet") in rows.rows_of(run)


def test_what_makes_no_row():
    """How long, on what and how safely a run trained tells nothing of its row."""
    run = changed(
        "mlp1-random",
        2000,
        seed=7,
        epochs=3,
        grace_seconds=5.0,
        stop_when_fitted=False,
        corruption__seed=7,
        data__name="mnist",
        data__examples=2000,
        checkpoint__every_epochs=1,
        evaluate__every_epochs=2,
        data__data_dir="/secret",
        optimizer__weight_decay_on="kernels",
    )
    assert rows.rows_of(run) == [("table1", "mlp1-random"), ("figure1bc", "mlp1-p1.0")]
    told = rows.settings_of(run)
    assert told == (
        "checkpoint.every_epochs 1, corruption.seed 7, grace_seconds 5.0, stop_when_fitted False"
    )


@pytest.mark.parametrize(
    ("name", "fields", "table", "key", "differences"),
    [
        (
            "alexnet-decay-random",
            {"optimizer__weight_decay": 0.0004},
            *("table4", "alexnet-decay", [("optimizer.weight_decay", 0.004, 0.0004)]),
        ),
        (
            "mlp1",
            {"optimizer__decay_per_epoch": 0.97},
            *("table1", "mlp1", [("optimizer.decay_per_epoch", 0.95, 0.97)]),
        ),
        ("mlp3", {"dtype": "bfloat16"}, "table1", "mlp3", [("dtype", "float32", "bfloat16")]),
        ("mlp3", {"model__dropout": 0.5}, "table1", "mlp3", [("model.dropout", 0.0, 0.5)]),
        ("mlp3", {"batch_size": 64}, "table1", "mlp3", [("batch_size", 128, 64)]),
        ("inception", {"data__size": 32}, "table1", "inception", [("data.size", 28, 32)]),
        (
            "inception",
            {"corruption__name": "shuffled_pixels", "corruption__per_channel": False},
            *("figure1a", "shuffled_pixels", [("corruption.per_channel", True, False)]),
        ),
    ],
)
def test_another_recipe_is_no_row(name, fields, table, key, differences):
    run = changed(name, **fields)
    assert rows.rows_of(run) == []
    assert rows.nearest(run) == ((table, key), differences)
