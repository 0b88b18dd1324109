import gc
import json
import os
import signal

import jax
import numpy as np
import pytest

from rethink_jax import config as config_lib, data, parallel, preemption, run_directory, train
from rethink_jax.checkpoints import Checkpoints
from rethink_jax.config import UserError
from tests.conftest import use_devices


def mlp_config(corruption="random_labels", **fields):
    config = config_lib.train("toy", corruption)
    config.update_from_flattened_dict(
        {"model.name": "mlp", "model.width": 32, "epochs": 4, **fields}
    )
    return config


def without_clock(records):
    return [
        {k: v for k, v in record.items() if k not in ("seconds", "images_per_second")}
        for record in records
    ]


def assert_same_run(left, right):
    assert without_clock(left.metrics) == without_clock(right.metrics)
    jax.tree.map(np.testing.assert_array_equal, left.params, right.params)


def test_a_run_leaves_what_design_md_promises(toy, tmp_path, capsys):
    summary = train.run(mlp_config(), tmp_path / "run", toy)
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        *("config.json", "run.json", "metrics.jsonl", "summary.json"),
        *("checkpoints", "curves.png", "tensorboard", "lock"),
    }
    run = run_directory.load_run(tmp_path / "run")
    assert run.summary == summary
    assert summary["status"] == "finished"
    assert [record["epoch"] for record in run.metrics] == [1, 2, 3, 4]
    assert [record["step"] for record in run.metrics] == [3, 6, 9, 12]
    assert run.config.data.name == "toy"
    assert run.params["Dense_0"]["kernel"].shape == (12 * 12 * 3, 32)
    printed = capsys.readouterr().out
    assert "test set, corrupted labels" in printed
    assert "20.00%" in printed  # chance, of five classes
    environment = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(environment["fingerprint"]) == 64


def test_accuracy_is_exact(toy, tmp_path):
    """Counts by hand, with NumPy, what the weights of the checkpoint answer."""
    summary = train.run(mlp_config("true_labels"), tmp_path, toy)
    params = run_directory.load_run(tmp_path).params
    for split, name in ((toy.train, "train"), (toy.test, "test")):
        x = split.images.reshape(len(split.labels), -1).astype(np.float64)
        x = (x - x.mean(1, keepdims=True)) / np.maximum(x.std(1, keepdims=True), 255 / 12 / 3**0.5)
        hidden = np.maximum(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
        answers = (hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]).argmax(1)
        assert summary[f"{name}_accuracy"] == np.mean(answers == split.labels)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="mlp"),
        pytest.param({"model.name": "small_inception"}, id="batch norm", marks=pytest.mark.slow),
    ],
)
def test_stopped_and_resumed_is_bit_for_bit_the_same(fields, toy, tmp_path):
    config = mlp_config(**fields)
    train.run(config, tmp_path / "whole", toy)
    config.epochs = 1
    train.run(config, tmp_path / "parts", toy)
    config.epochs = 4
    train.run(config, tmp_path / "parts", toy)
    assert_same_run(
        run_directory.load_run(tmp_path / "whole"), run_directory.load_run(tmp_path / "parts")
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_in_the_middle_of_an_epoch_saves(number, toy, tmp_path, monkeypatch):
    train.run(mlp_config(), tmp_path / "whole", toy)
    dispatches = []
    shard_ids = parallel.shard_ids

    def signalling(ids):
        dispatches.append(len(ids))
        if len(dispatches) == 7:
            os.kill(os.getpid(), number)
        return shard_ids(ids)

    monkeypatch.setattr(parallel, "shard_ids", signalling)
    with pytest.raises(preemption.Stopped, match=f"{number.name}: stopped; step 5 is saved"):
        train.run(mlp_config(), tmp_path / "parts", toy)
    monkeypatch.undo()
    use_devices(monkeypatch, 2)
    assert run_directory.load_run(tmp_path / "parts").summary["status"] == "stopped"
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    train.run(mlp_config(), tmp_path / "parts", toy)
    assert_same_run(
        run_directory.load_run(tmp_path / "whole"), run_directory.load_run(tmp_path / "parts")
    )


def test_a_finished_run_is_not_run_again(toy, tmp_path, monkeypatch):
    first = train.run(mlp_config(epochs=1), tmp_path, toy)
    monkeypatch.setattr(train, "build", None)
    assert train.run(mlp_config(epochs=1), tmp_path, toy) == first


def test_evaluate_repeats_the_last_evaluation(toy, tmp_path):
    summary = train.run(mlp_config(), tmp_path, toy)
    before = (tmp_path / "config.json").read_bytes()
    record = train.evaluate(mlp_config(experiment="evaluate"), tmp_path, toy)
    for name in ("train_loss", "train_accuracy", "test_accuracy", "test_accuracy_corrupted"):
        assert record[name] == summary[name]
    assert json.loads((tmp_path / "evaluation.json").read_text()) == record
    assert (tmp_path / "config.json").read_bytes() == before


def test_evaluate_needs_a_run(toy, tmp_path):
    with pytest.raises(UserError, match="holds no run to evaluate"):
        train.evaluate(mlp_config(), tmp_path / "nothing", toy)


def test_another_config_in_the_same_directory(toy, tmp_path):
    train.run(mlp_config(epochs=1), tmp_path, toy)
    with pytest.raises(UserError, match=r"config.seed 0 → 1.*choose another --workdir"):
        train.run(mlp_config(epochs=1, seed=1), tmp_path, toy)


def test_other_data_in_the_same_directory(toy, tmp_path):
    train.run(mlp_config(epochs=1), tmp_path, toy)
    other = data.from_arrays(
        (255 - toy.train.images, toy.train.labels), (toy.test.images, toy.test.labels), name="toy"
    )
    with pytest.raises(UserError, match="trained on other data"):
        train.run(mlp_config(epochs=2), tmp_path, other)


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_newest_checkpoint_is_made_again(toy, tmp_path):
    config = mlp_config(**{"checkpoint.every_epochs": 1})
    train.run(config, tmp_path / "whole", toy)
    config.epochs = 2
    train.run(config, tmp_path / "parts", toy)
    for file in (tmp_path / "parts" / "checkpoints" / "6").rglob("d/*"):
        file.write_bytes(bytes(file.stat().st_size))
    config.epochs = 4
    train.run(config, tmp_path / "parts", toy)
    assert_same_run(
        run_directory.load_run(tmp_path / "whole"), run_directory.load_run(tmp_path / "parts")
    )
    gc.collect()  # TensorStore tells of the damage to an event loop that Orbax has closed


def test_steps_in_place_of_epochs_end_within_an_epoch(toy, tmp_path):
    train.run(mlp_config(steps=4), tmp_path, toy)
    metrics = run_directory.load_run(tmp_path).metrics
    assert [record["step"] for record in metrics] == [3, 4]
    assert metrics[-1]["epoch"] == pytest.approx(4 / 3)


def test_stops_when_fitted(toy, tmp_path):
    config = mlp_config("true_labels", stop_when_fitted=True, epochs=200)
    config.optimizer.learning_rate = 0.05
    summary = train.run(config, tmp_path, toy)
    assert summary["train_accuracy"] == 1
    assert summary["epochs"] < 200
    assert all(r["train_accuracy"] < 1 for r in run_directory.load_run(tmp_path).metrics[:-1])
    assert train.run(config, tmp_path, toy) == summary


def test_checkpoints_are_kept_as_configured(toy, tmp_path):
    train.run(mlp_config(**{"checkpoint.every_epochs": 1, "checkpoint.keep": 2}), tmp_path, toy)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()}
    assert names == {"9", "12"}
    checkpoints = Checkpoints(train.epath.Path(tmp_path), read_only=True)
    assert int(checkpoints.restore_newest().state["step"]) == 12
    checkpoints.close()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"batch_size": 7},
            "config.batch_size is 7; it must be a multiple of the number of devices, 2",
        ),
        (
            {"data.size": 13},
            "config.data.size is 13; it must be at most 12, the side of toy's images",
        ),
        ({"model.name": "vgg"}, "config.model.name is 'vgg'; it must be one of mlp, small_alexnet"),
        ({"corruption.name": "noise"}, "config.corruption.name is 'noise'; it must be one of true"),
    ],
)
def test_refused_before_anything_is_written(fields, line, toy, tmp_path):
    with pytest.raises(UserError) as error:
        train.run(mlp_config(**fields), tmp_path / "run", toy)
    assert str(error.value).startswith(line)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "corruption",
    [
        *("true_labels", "partially_corrupted_labels", "random_labels"),
        *("shuffled_pixels", "random_pixels", "gaussian"),
    ],
)
def test_digits_are_fitted(corruption, tmp_path):
    config = config_lib.train("digits", corruption)
    summary = train.run(config, tmp_path)
    assert summary["train_accuracy"] == 1
    if corruption == "random_labels":
        assert abs(summary["test_accuracy"] - 0.1) < 0.05
