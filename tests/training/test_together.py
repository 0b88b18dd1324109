"""Runs that train together are the runs that they would be by themselves."""

import gc
import json
import math
import os
import signal

import jax
import numpy as np
import pytest

from rethink_jax import config as config_lib, data
from rethink_jax.config import sweep_entry
from rethink_jax.distributed import parallel, preemption
from rethink_jax.errors import Diverged, InUse, RunFailed, UserError
from rethink_jax.runs import run_directory
from rethink_jax.runs.resolve import resolve
from rethink_jax.sweeps import groups, sweep
from rethink_jax.training import ensemble, load, loop, together, train
from rethink_jax.training.checkpoints import Checkpoints
from rethink_jax.training.recorder import Recorder
from tests.conftest import use_devices
from tests.training.test_train import assert_same_run, mlp_config

# What members may differ in.
VARIED = (
    {"seed": 0},
    {"seed": 1, "corruption.seed": 5},
    {"optimizer.learning_rate": 0.003},
    {"corruption.name": "true_labels"},
    {"corruption.name": "partially_corrupted_labels", "corruption.probability": 0.4},
)


def configs_of(toy, *varied, **shared):
    return [resolve(mlp_config(**{**shared, **fields}), toy)[0] for fields in varied]


def paths_in(folder, count):
    return [folder / f"run{i}" for i in range(count)]


def run_together(configs, folder, dataset):
    paths = paths_in(folder, len(configs))
    return paths, together.run(configs, paths, dataset)


def assert_close(left, right, relative=1e-5):
    """Numbers to `relative`, counted answers but for one example that lies between two classes."""
    assert [record["step"] for record in left.metrics] == [r["step"] for r in right.metrics]
    for own, other in zip(left.metrics, right.metrics, strict=True):
        assert own.keys() == other.keys()
        for name in own.keys() - {"seconds", "images_per_second"}:
            if "accuracy" in name:
                assert own[name] == pytest.approx(other[name], abs=1 / 60 + 1e-9)
            else:
                assert own[name] == pytest.approx(other[name], rel=relative)


def test_members_are_the_runs_by_themselves(toy, devices, tmp_path):
    """Over 51 steps, on each number of devices; five members leave some of them with fewer."""
    configs = configs_of(toy, *VARIED, epochs=17)
    paths, errors = run_together(configs, tmp_path / "together", toy)
    assert errors == {}
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 1)
        for config, path in zip(configs, paths, strict=True):
            train.run(config, tmp_path / "alone" / path.name, toy)
            assert_close(load.load_run(path), load.load_run(tmp_path / "alone" / path.name))


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer.weight_decay": 0.01},
        {"optimizer.schedule": "cosine", "optimizer.warmup_epochs": 1.0},
        {"optimizer.decay_per_epoch": 0.9, "optimizer.drop_epochs": (2,)},
        {"augment.random_crop": True, "data.size": 8, "model.dropout": 0.2},
        {"label_smoothing": 0.1, "batch_size": 50},
        {"corruption.name": "random_pixels"},
    ],
    ids=str,
)
def test_recipes(fields, toy, tmp_path):
    rates = ({"optimizer.learning_rate": 0.01}, {"optimizer.learning_rate": 0.02})
    configs = configs_of(toy, *rates, **fields)
    assert len({ensemble.shared_by_members(config) for config in configs}) == 1
    paths, errors = run_together(configs, tmp_path, toy)
    assert errors == {}
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 1)
        for config, path in zip(configs, paths, strict=True):
            train.run(config, tmp_path / f"{path.name}-alone", toy)
            assert_close(load.load_run(path), load.load_run(tmp_path / f"{path.name}-alone"))


def test_coefficients_of_weight_decay_differ(toy, tmp_path):
    decays = ({"optimizer.weight_decay": 1e-4}, {"optimizer.weight_decay": 0.9})
    paths, _ = run_together(configs_of(toy, *decays), tmp_path, toy)
    norms = [np.linalg.norm(load.load_run(path).params["Dense_0"]["kernel"]) for path in paths]
    assert norms[1] < 0.9 * norms[0]


@pytest.mark.parametrize(
    ("fields", "is_shared"),
    [
        ({"seed": 3}, True),
        ({"corruption.name": "random_labels", "corruption.seed": 9}, True),
        ({"optimizer.learning_rate": 0.5}, True),
        ({"optimizer.weight_decay": 0.5}, False),
        ({"model.width": 8}, False),
        ({"epochs": 9}, False),
        ({"batch_size": 10}, False),
        ({"corruption.name": "random_pixels"}, False),
        ({"data.examples": 99}, False),
        ({"dtype": "bfloat16"}, False),
    ],
    ids=str,
)
def test_what_members_share(fields, is_shared, toy):
    usual, other = configs_of(toy, {}, fields)
    same = ensemble.shared_by_members(usual) == ensemble.shared_by_members(other)
    assert same == is_shared


@pytest.mark.parametrize(
    "fields", [{"model.name": "small_alexnet"}, {"cpu_devices": 2}, {"data.stream": True}], ids=str
)
def test_what_trains_alone(fields, toy):
    (config,) = configs_of(toy, {})
    config.update_from_flattened_dict(fields)
    assert ensemble.shared_by_members(config) is None


@pytest.mark.parametrize("name", ["seed", "corruption.seed"])
def test_seeds_of_what_is_random_in_the_images_are_shared(name, toy):
    """The images of all members are one array, and so are the keys of their crops."""
    fields = {"augment.random_crop": True, "data.size": 8, "corruption.name": "random_pixels"}
    usual, other = configs_of(toy, {name: 0}, {name: 1}, **fields)
    assert ensemble.shared_by_members(usual) != ensemble.shared_by_members(other)


def test_the_first_examples_of_a_sorted_set_are_not_evaluated(toy):
    order = np.argsort(toy.train.labels)
    train_split = (toy.train.images[order], toy.train.labels[order])
    in_order = data.from_arrays(train_split, (toy.test.images, toy.test.labels))
    configs = configs_of(toy, {"seed": 0}, {"seed": 1}, **{"evaluate.examples": 50})
    with pytest.raises(UserError, match=r"config.evaluate.examples is 50; it must be left out"):
        ensemble.build(configs, in_order)


# What members leave and how they end.


def test_each_member_has_a_directory_of_its_own(toy, curves, tmp_path, capsys):
    varied = ({"corruption.seed": 0}, {"corruption.seed": 1})
    (path, other), _ = run_together(configs_of(toy, *varied), tmp_path, toy)
    assert {file.name for file in path.iterdir()} == {
        *("config.json", "run.json", "metrics.jsonl", "summary.json"),
        *("checkpoints", "curves.png", "tensorboard", "lock"),
    }
    described = json.loads((path / "run.json").read_text())
    assert described["fingerprint"] != json.loads((other / "run.json").read_text())["fingerprint"]
    assert load.load_run(path).summary["status"] == "finished"
    assert "epoch 1  step 3  2 runs, means: train " in capsys.readouterr().out


def test_a_finished_member_is_a_finished_run(toy, tmp_path, monkeypatch):
    configs = configs_of(toy, {"seed": 0}, {"seed": 1})
    paths, _ = run_together(configs, tmp_path, toy)
    before = (paths[0] / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(loop, "train", None)
    assert train.run(configs[0], paths[0], toy)["status"] == "finished"
    assert (paths[0] / "metrics.jsonl").read_bytes() == before


def test_members_share_the_time(toy, tmp_path):
    """So that the seconds of all of them add up to those of the ensemble."""
    paths, _ = run_together(configs_of(toy, *({"seed": i} for i in range(4))), tmp_path, toy)
    seconds = [load.load_run(path).summary["seconds"] for path in paths]
    assert len(set(seconds)) == 1
    rates = [record["images_per_second"] for record in load.load_run(paths[0]).metrics]
    # The rate is that of all members, of which each takes a quarter of the time.
    assert 4 * 300 / max(rates) < 4 * seconds[0]


def test_each_member_ends_when_it_has_fitted(toy, tmp_path):
    """Members leave at different epochs; those that stay are the same as by themselves."""
    rates = (0.002, 0.01, 0.02, 0.05, 0.03, 0.01)
    varied = [{"optimizer.learning_rate": rate, "seed": i} for i, rate in enumerate(rates)]
    fields = {"corruption.name": "true_labels", "epochs": 40, "stop_when_fitted": True}
    configs = configs_of(toy, *varied, **fields)
    paths, errors = run_together(configs, tmp_path, toy)
    assert errors == {}
    ended = [load.load_run(path).summary["epochs"] for path in paths]
    assert len(set(ended)) > 2
    for config, path, epochs in zip(configs, paths, ended, strict=True):
        fitted = [record["train_accuracy"] == 1.0 for record in load.load_run(path).metrics]
        assert fitted == [False] * (len(fitted) - 1) + [epochs < 40 or fitted[-1]]
        # One example may lie so near between two classes that rounding decides on its epoch.
        summary = train.run(config, tmp_path / f"{path.name}-alone", toy)
        assert abs(summary["epochs"] - epochs) <= 1
        assert load.load_run(path).params.keys() == {"Dense_0", "Dense_1"}


def test_each_member_ends_at_the_same_loss(toy, tmp_path):
    varied = [{"optimizer.learning_rate": rate} for rate in (0.001, 0.02, 0.05)]
    fields = {"corruption.name": "true_labels", "epochs": 40, "stop_at_loss": 0.3}
    configs = configs_of(toy, *varied, **fields)
    paths, errors = run_together(configs, tmp_path, toy)
    assert errors == {}
    losses = [[r["train_loss"] for r in load.load_run(path).metrics] for path in paths]
    assert (len(losses[0]), losses[0][-1] > 0.3) == (40, True)
    for of_member in losses[1:]:
        assert min(of_member[:-1]) > 0.3 >= of_member[-1]
    assert len({len(of_member) for of_member in losses}) == 3


def test_a_member_that_diverges_leaves_the_others_alone(toy, tmp_path):
    varied = ({"seed": 0}, {"optimizer.learning_rate": 1e30}, {"seed": 2})
    paths, errors = run_together(configs_of(toy, *varied), tmp_path / "three", toy)
    assert {index: type(error) for index, error in errors.items()} == {1: Diverged}
    assert load.load_run(paths[1]).summary["status"] == "failed"
    others, _ = run_together(configs_of(toy, varied[0], varied[2]), tmp_path / "two", toy)
    for path, other in zip((paths[0], paths[2]), others, strict=True):
        assert_close(load.load_run(path), load.load_run(other))


def test_a_member_whose_directory_is_in_use(toy, tmp_path):
    configs = configs_of(toy, {"seed": 0}, {"seed": 1}, {"seed": 2})
    paths = paths_in(tmp_path, 3)
    with run_directory.open_run(paths[1], configs[1]):
        errors = together.run(configs, paths, toy)
    assert {index: type(error) for index, error in errors.items()} == {1: InUse}
    assert not (paths[1] / "config.json").exists()


def test_a_member_that_cannot_be_saved(toy, tmp_path, monkeypatch):
    save = Checkpoints.save

    def failing(self, saved):
        if self.folder.parent.name == "run1":
            raise RunFailed("the disk is full")
        save(self, saved)

    monkeypatch.setattr(Checkpoints, "save", failing)
    paths, errors = run_together(configs_of(toy, {"seed": 0}, {"seed": 1}), tmp_path, toy)
    assert {index: str(error) for index, error in errors.items()} == {1: "the disk is full"}
    assert load.load_run(paths[0]).summary["status"] == "finished"
    assert json.loads((paths[1] / "summary.json").read_text())["status"] == "failed"


def test_a_member_is_closed_when_it_ends(toy, tmp_path):
    """Others may take hours more, and its TensorBoard events must not wait for them."""
    rates = ({"optimizer.learning_rate": 1e-5}, {"optimizer.learning_rate": 0.05})
    fields = {"corruption.name": "true_labels", "epochs": 40, "stop_when_fitted": True}
    seen, record = [], Recorder.record

    def looking(self, one):
        record(self, one)
        if (tmp_path / "run1" / "summary.json").exists():
            run_directory.check_free(tmp_path / "run1")
            seen.append(one["epoch"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "record", looking)
        run_together(configs_of(toy, *rates, **fields), tmp_path, toy)
    assert seen


def test_nothing_of_an_ensemble_stays_on_the_devices(toy, tmp_path):
    configs = configs_of(toy, {"seed": 0}, {"seed": 1})
    run_together(configs, tmp_path / "first", toy)  # leaves compiled programs and their constants
    gc.collect()
    before = len(jax.live_arrays())
    run_together(configs, tmp_path / "second", toy)
    gc.collect()
    assert len(jax.live_arrays()) <= before


def test_simulated_devices_that_are_not_ours_to_choose_are_refused(toy, tmp_path):
    configs = configs_of(toy, {"seed": 0}, {"seed": 1}, cpu_devices=1)
    with pytest.raises(UserError, match=r"config\.cpu_devices is 1; it must be left out"):
        run_together(configs, tmp_path, toy)


# Stopping and resuming.


def stop_in_epoch(monkeypatch, epoch):
    """Sends a signal when the first member records this epoch."""
    record, sent = Recorder.record, []

    def sending(self, one):
        record(self, one)
        if one["epoch"] == epoch and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGTERM))

    monkeypatch.setattr(Recorder, "record", sending)


def test_stopped_and_resumed_is_bit_for_bit_the_same(toy, tmp_path, monkeypatch):
    configs = configs_of(toy, *VARIED)
    whole, _ = run_together(configs, tmp_path / "whole", toy)
    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 2)
        with pytest.raises(
            preemption.Stopped, match=r"5 of 5 runs are saved at step 9 in \S*stopped;"
        ):
            run_together(configs, tmp_path / "stopped", toy)
    stopped = paths_in(tmp_path / "stopped", 5)
    assert {load.load_run(path).summary["status"] for path in stopped} == {"stopped"}
    assert run_together(configs, tmp_path / "stopped", toy)[1] == {}
    for left, right in zip(whole, stopped, strict=True):
        assert_same_run(load.load_run(left), load.load_run(right))


@pytest.mark.parametrize("first", ["together", "alone"])
def test_resumed_the_other_way(first, toy, tmp_path, monkeypatch):
    """A member resumes by itself, and runs that began by themselves resume together.

    The signal is heard after the next dispatch, which is of an epoch.
    """
    configs = configs_of(toy, {"seed": 0}, {"seed": 1}, epochs=8)
    expected, _ = run_together(configs, tmp_path / "whole", toy)
    paths = paths_in(tmp_path, 2)
    use_devices(monkeypatch, 1)
    if first == "together":
        with monkeypatch.context() as patch:
            stop_in_epoch(patch, 2)
            with pytest.raises(preemption.Stopped):
                together.run(configs, paths, toy)
        for config, path in zip(configs, paths, strict=True):
            assert train.run(config, path, toy)["status"] == "finished"
    else:
        for config, path in zip(configs, paths, strict=True):
            with monkeypatch.context() as patch:
                stop_in_epoch(patch, 2)
                with pytest.raises(preemption.Stopped):
                    train.run(config, path, toy)
        assert together.run(configs, paths, toy) == {}
    for path, other in zip(paths, expected, strict=True):
        assert_close(load.load_run(path), load.load_run(other))
        sessions = json.loads((path / "run.json").read_text())["sessions"]
        assert [session["step"] for session in sessions] == [0, 9]


def test_members_at_different_steps_resume(toy, tmp_path, monkeypatch):
    """As after a kill while the checkpoints were written."""
    configs = configs_of(toy, {"seed": 0}, {"seed": 1}, {"seed": 2})
    expected, _ = run_together(configs, tmp_path / "whole", toy)
    paths = paths_in(tmp_path, 3)
    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 2)
        with pytest.raises(preemption.Stopped):
            together.run(configs[1:], paths[1:], toy)
    assert together.run(configs, paths, toy) == {}
    for path, other in zip(paths, expected, strict=True):
        assert_close(load.load_run(path), load.load_run(other))


def test_checkpoints_are_written_while_they_take_little_of_the_time(toy, tmp_path, monkeypatch):
    saved, save = [], Checkpoints.save

    def counting(self, one):
        saved.append(int(one.state.step))
        save(self, one)

    monkeypatch.setattr(Checkpoints, "save", counting)
    configs = configs_of(toy, {"seed": 0}, {"seed": 1}, **{"checkpoint.every_epochs": 1})
    run_together(configs, tmp_path / "seldom", toy)
    assert saved == [12, 12]
    saved.clear()
    monkeypatch.setattr(together, "_SHARE_FOR_SAVING", math.inf)
    run_together(configs, tmp_path / "often", toy)
    assert saved == [3, 3, 6, 6, 9, 9, 12, 12]


# In a sweep.


def planned(toy, path, *entries, **fields):
    shared = {"model.name": "mlp", "model.width": 16, "epochs": 2, **fields}
    config = config_lib.sweep("toys", "toy", entries, shared)
    return config, sweep.plan(config, path, toy)


RANDOM = sweep_entry("random", {"corruption.name": "random_labels"})
TRUE = sweep_entry("true", {})
DEEP = sweep_entry("deep", {"model.depth": 2})


def test_groups_keep_the_order_and_are_not_too_large(toy, tmp_path, monkeypatch):
    config, _ = planned(toy, tmp_path, TRUE, DEEP, RANDOM)
    config.sweep.seeds = 2
    runs = sweep.plan(config, tmp_path, toy)

    def names():
        return [[run.path.name for run in group] for group in groups.divide(runs)]

    shallow = ["true-seed0", "random-seed0", "true-seed1", "random-seed1"]
    assert names() == [shallow, ["deep-seed0", "deep-seed1"]]
    monkeypatch.setattr(groups, "MOST_MEMBERS", 3)
    assert names() == [shallow[:3], shallow[3:], ["deep-seed0", "deep-seed1"]]


def test_a_group_can_be_saved_in_the_grace_time_and_its_files_opened(monkeypatch):
    assert groups._most_members(30.0) == 128
    assert groups._most_members(2.0) == 10
    assert groups._most_members(0.1) == 1
    monkeypatch.setattr(groups.resource, "getrlimit", lambda which: (256, 4096))
    assert groups._most_members(30.0) == 64


def test_a_run_on_several_simulated_devices_resumes_alone(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "most_cpu_devices", lambda: 2)
    _, runs = planned(toy, tmp_path, TRUE, RANDOM)
    runs[0].path.mkdir()
    environment = {"backend": "cpu", "devices": ["cpu", "cpu"]}
    (runs[0].path / "run.json").write_text(json.dumps(environment))
    assert [len(group) for group in groups.divide(runs)] == [1, 1]


def test_a_sweep_trains_together_and_says_so(toy, tmp_path, monkeypatch, capsys):
    config, _ = planned(toy, tmp_path / "auto", TRUE, RANDOM, DEEP)
    result = sweep.run(config, tmp_path / "auto", toy)
    assert {entry["status"] for entry in result["runs"]} == {"finished"}
    printed = capsys.readouterr().out
    assert "runs 1 to 2 of 3: true, seed 0 to random, seed 0, together" in printed
    assert "run 3 of 3: deep, seed 0" in printed
    config.sweep.together = "never"
    monkeypatch.setattr(together, "run", None)
    sweep.run(config, tmp_path / "never", toy)
    for name in ("true-seed0", "random-seed0"):
        assert_close(*(load.load_run(tmp_path / way / name) for way in ("auto", "never")))


def test_a_stopped_sweep_resumes_its_members(toy, tmp_path, monkeypatch):
    config, _ = planned(toy, tmp_path, TRUE, RANDOM)
    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 1)
        with pytest.raises(preemption.Stopped):
            sweep.run(config, tmp_path, toy)
    entries = json.loads((tmp_path / "sweep.json").read_text())["runs"]
    assert [entry["status"] for entry in entries] == ["stopped", "stopped"]
    assert [e["status"] for e in sweep.run(config, tmp_path, toy)["runs"]] == ["finished"] * 2


def test_what_is_unexpected_is_tried_again_in_smaller_groups(toy, tmp_path, monkeypatch, caplog):
    """For all of them together there may be too little memory."""
    divide, sizes = ensemble.divide, []

    def too_large(trees):
        if isinstance(trees[0], ensemble.Members):
            sizes.append(len(trees))
            if len(trees) > 2:
                raise RuntimeError("RESOURCE_EXHAUSTED")
        return divide(trees)

    monkeypatch.setattr(ensemble, "divide", too_large)
    config, _ = planned(toy, tmp_path, TRUE, RANDOM)
    config.sweep.seeds = 2
    with caplog.at_level("WARNING"):
        result = sweep.run(config, tmp_path, toy)
    assert {entry["status"] for entry in result["runs"]} == {"finished"}
    assert sizes == [4, 2, 2]
    assert "4 runs are tried in smaller groups: RuntimeError: RESOURCE_EXHAUSTED" in caplog.text


def test_a_signal_forgets_no_divergence(toy, tmp_path, monkeypatch, capsys):
    wild = sweep_entry("wild", {"optimizer.learning_rate": 1e30}, expect_divergence=True)
    config, _ = planned(toy, tmp_path, wild, RANDOM, epochs=9)
    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 2)
        with pytest.raises(preemption.Stopped):
            sweep.run(config, tmp_path, toy)
    entries = json.loads((tmp_path / "sweep.json").read_text())["runs"]
    assert [(entry["status"], entry["diverged"]) for entry in entries] == [
        *(("failed", True), ("stopped", False))
    ]
    assert "wild, seed 0: diverged, as expected: the loss is" in capsys.readouterr().out


def test_members_are_divided_over_the_devices(devices):
    trees = [{"x": np.full(3, i, np.float32)} for i in range(5)]
    placed = ensemble.divide(trees)["x"]
    assert placed.shape == (devices, -(-5 // devices), 3)
    assert len(placed.sharding.device_set) == devices == len(parallel.devices())
    found = ensemble.gather_members({"x": placed}, 5)
    jax.tree.map(np.testing.assert_array_equal, found, trees)
