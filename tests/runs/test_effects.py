"""Settings that would change nothing are refused, or told where a sweep shares them."""

import pytest

from rethink_jax import config as config_lib, data, models
from rethink_jax.config import sweep_entry
from rethink_jax.errors import UserError
from rethink_jax.kernels import interpolation
from rethink_jax.runs import effects, run_once
from rethink_jax.sweeps import sweep
from rethink_jax.training import train
from tests.config.test_configs import config_of
from tests.sweeps.test_sweep import TRUE, sweep_config

INFO = data.DatasetInfo("toy", 300, 60, (12, 12, 3), 5)


def resolved(**fields):
    config = config_lib.base()
    config.update_from_flattened_dict({"model.name": "mlp", **fields})
    return config_lib.fill_in(config, 300, 12)


def fields_of(config, info=INFO):
    return [one.field for one in effects.ignored(config, info)]


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({}, []),
        ({"model.width": 16, "model.depth": 3}, []),
        ({"model.name": "small_alexnet", "model.width": 16}, ["model.width"]),
        ({"model.name": "wide_resnet", "model.depth": 3}, ["model.depth"]),
        ({"model.name": "small_inception", "model.batch_norm": False}, []),
        ({"model.batch_norm": False}, ["model.batch_norm"]),
        ({"model.name": "small_alexnet", "model.batch_norm": False}, ["model.batch_norm"]),
        ({"corruption.probability": 0.5}, ["corruption.probability"]),
        (
            {"corruption.name": "random_labels", "corruption.probability": 0.5},
            ["corruption.probability"],
        ),
        ({"corruption.name": "partially_corrupted_labels", "corruption.probability": 0.0}, []),
        ({"corruption.per_channel": False}, ["corruption.per_channel"]),
        ({"corruption.name": "gaussian", "corruption.per_channel": False}, []),
        ({"corruption.before_crop": True}, ["corruption.before_crop"]),
        ({"corruption.name": "random_pixels", "corruption.before_crop": True}, []),
        ({"augment.random_crop": True}, ["augment.random_crop"]),
        ({"augment.random_crop": True, "data.size": 11}, []),
        ({"augment.random_crop": True, "data.stream": True, "data.size": 12}, []),
        ({"data.workers": 2}, ["data.workers"]),
        ({"data.workers": 2, "data.stream": True, "data.size": 8}, []),
    ],
    ids=str,
)
def test_what_changes_nothing(fields, ignored):
    assert fields_of(resolved(**fields)) == ignored


def test_a_crop_out_of_images_that_are_larger_one_way(toy):
    wide = data.DatasetInfo("toy", 300, 60, (12, 14, 3), 5)
    assert fields_of(resolved(**{"augment.random_crop": True}), wide) == []


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_what_a_model_takes_is_not_ignored(name):
    config = resolved(**{"model.name": name, "model.dropout": 0.5})
    assert "model.dropout" not in fields_of(config)


@pytest.mark.parametrize(
    ("experiment", "fields", "ignored"),
    [
        ("kernel", {}, []),
        ("kernel", {"features.filters": 9}, ["features.filters"]),
        ("kernel", {"features.pools": (4,)}, ["features.pools"]),
        ("kernel", {"features.name": "gabor", "features.pools": (4,)}, []),
        ("kernel", {"features.name": "random_convolutions", "features.filters": 9}, []),
        ("expressivity", {"synthetic.points": 9}, ["synthetic.points"]),
        ("expressivity", {"data.name": "synthetic", "synthetic.points": 9}, []),
        ("expressivity", {"data.name": "synthetic", "data.examples": 9}, ["data.examples"]),
        ("expressivity", {"corruption.probability": 0.5}, ["corruption.probability"]),
        ("minimum_norm", {"corruption.probability": 0.5}, ["corruption.probability"]),
    ],
)
def test_what_changes_nothing_in_other_experiments(experiment, fields, ignored):
    config = config_lib.experiment(experiment, "toy")
    config.update_from_flattened_dict(fields)
    assert fields_of(config, None) == ignored


CROP = {"model.name": "mlp", "augment.random_crop": True, "epochs": 1}


def test_a_run_refuses_it_and_what_has_begun_goes_on(toy, tmp_path, monkeypatch):
    config = config_lib.train("toy", "true_labels")
    config.update_from_flattened_dict(CROP)
    line = (
        r"^config.augment.random_crop is True; it must be False for toy's images of 12×12, of which "
        "the model sees all$"
    )
    with pytest.raises(UserError, match=line):
        train.run(config, tmp_path / "run", toy)
    assert not (tmp_path / "run").exists()
    with monkeypatch.context() as earlier:
        earlier.setattr(effects, "ignored", lambda *arguments: [])
        train.run(config, tmp_path / "run", toy)
    config.epochs = 2
    assert train.run(config, tmp_path / "run", toy)["epochs"] == 2


def test_a_sweep_tells_which_of_its_runs_ignore_a_setting(toy, tmp_path, caplog):
    runs = [TRUE, sweep_entry("crop", {"augment.random_crop": True})]
    with caplog.at_level("INFO", "rethink_jax"):
        sweep.run(sweep_config(*runs, epochs=1), tmp_path, toy)
    told = [text for text in caplog.messages if "nothing" in text]
    assert told == ["config.augment.random_crop is True and changes nothing in crop"]


def test_a_sweep_refuses_what_none_of_its_runs_uses(toy, tmp_path):
    other = sweep_entry("other", {"model.name": "small_alexnet"})
    fields = {"model.name": None, "corruption.probability": 0.5}
    config = sweep_config(TRUE, other, **fields)
    with pytest.raises(
        UserError, match=r"^config.corruption.probability is 0.5; it must be 1.0 or"
    ):
        sweep.plan(config, tmp_path, toy)
    config.corruption.probability = 1.0
    for only, count in (("*", 2), ("true", 1)):
        config.sweep.only = only
        assert len(sweep.plan(config, tmp_path, toy)) == count  # one of them uses the width
    config.sweep.only = "other"
    with pytest.raises(
        UserError, match=r"^config.model.width is 16; it must be left out for small_"
    ):
        sweep.plan(config, tmp_path, toy)


@pytest.mark.parametrize("name", ["table1", "table4", "figure1a", "figure1bc", "mlp1_settings"])
def test_sweeps_of_the_paper_share_nothing_that_is_ignored(name, tmp_path):
    for run in sweep.plan(config_of(name, "smoke"), tmp_path):
        crop = ["augment.random_crop"] if "-crop" in run.name else []
        assert [one.field for one in run.ignored] == crop


def test_other_experiments_refuse_it(tmp_path):
    kernel = config_lib.experiment("kernel", "digits")
    kernel.features.filters = 9
    with pytest.raises(UserError, match=r"^config.features.filters is 9; it must be left out for"):
        interpolation.run(kernel, tmp_path / "kernel")
    linear = config_lib.experiment("minimum_norm", "digits")
    linear.corruption.probability = 0.5
    with pytest.raises(UserError, match=r"^config.corruption.probability is 0.5; it must be 1.0"):
        run_once.run_once(
            linear,
            tmp_path / "linear",
            "linear",
            lambda: None,
            lambda dataset: ({}, 1),
            lambda summary: ("", (), []),
        )
    assert list(tmp_path.iterdir()) == []
