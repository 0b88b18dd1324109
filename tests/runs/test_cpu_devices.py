"""How many simulated devices a training run on a CPU uses."""

import json

import jax
import pytest

from rethink_jax import config as config_lib
from rethink_jax.distributed import parallel
from rethink_jax.errors import UserError
from rethink_jax.runs import cpu_devices
from rethink_jax.training import load, train
from tests.entry_point import make_place


def config_with(model="small_alexnet", **fields):
    config = config_lib.train("toy", "random_labels")
    config.update_from_flattened_dict(
        {"model.name": model, "model.width": 8, "epochs": 1, **fields}
    )
    config.batch_size = config.batch_size or 128
    return config


@pytest.fixture
def started(monkeypatch):
    """As after `start_cpu_devices` on a machine with as many cores as there are devices."""
    monkeypatch.undo()  # conftest's number of devices
    monkeypatch.setattr(parallel, "_used", 1)
    assert len(jax.devices()) == 4


def count_of(config, path=None):
    with cpu_devices.use(config, path):
        return len(parallel.devices())


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({}, 4),
        ({"model": "small_inception"}, 4),
        ({"model": "mlp"}, 1),
        ({"batch_size": 6}, 3),
        ({"batch_size": 7}, 1),
        ({"cpu_devices": 2}, 2),
        ({"model": "mlp", "cpu_devices": 2}, 2),
    ],
    ids=str,
)
def test_convolutions_take_all_that_divide_the_batch(fields, count, started):
    assert count_of(config_with(**fields)) == count
    assert len(parallel.devices()) == 1


@pytest.mark.parametrize("fields", [{"cpu_devices": 5}, {"cpu_devices": 3}])
def test_a_number_that_cannot_be_is_refused(fields, started):
    with pytest.raises(
        UserError, match=r"^config.cpu_devices is \d; it must be at most 4, the number"
    ):
        count_of(config_with(**fields))


def test_where_the_environment_says_how_many_all_are_used(two_devices):
    assert parallel._used is None
    assert count_of(config_with("mlp")) == 2
    with pytest.raises(UserError, match=r"^config.cpu_devices is 1; it must be left out"):
        count_of(config_with(cpu_devices=1))


def test_a_run_keeps_its_number(toy, tmp_path, started):
    config = config_with("mlp", cpu_devices=2)
    train.run(config, tmp_path, toy)
    config.cpu_devices, config.epochs = None, 2
    train.run(config, tmp_path, toy)
    sessions = json.loads((tmp_path / "run.json").read_text())["sessions"]
    assert [len(session["devices"]) for session in sessions] == [2, 2]
    assert train.evaluate(config, tmp_path, toy)["step"] == 6


def test_a_run_of_more_cores_than_there_are_takes_another_number(toy, tmp_path, started):
    (tmp_path / "run.json").write_text(json.dumps({"backend": "cpu", "devices": 9 * ["cpu"]}))
    assert count_of(config_with("mlp"), tmp_path) == 1


def test_through_the_entry_point(entry_point, tmp_path):
    here = make_place(tmp_path / "here")
    arguments = [
        *("--config=configs/true_labels.py:digits", "--workdir=run", "--config.steps=1"),
        *("--config.model.name=small_alexnet", "--config.data.examples=64"),
        "--config.evaluate.examples=10",
    ]
    outcome = entry_point.start(arguments, here)
    assert (outcome.code, outcome.stderr) == (0, "")
    cores = parallel.cores()
    assert ("simulated devices on" in outcome.stdout) == (cores > 1)
    assert json.loads((here / "run" / "run.json").read_text())["devices"] == cores * ["cpu"]
    assert load.load_run(here / "run").summary["status"] == "finished"
