import gc
import itertools
import json
import os
import shutil
import signal
import types

import jax
import numpy as np
import pytest

from rethink_jax import chaos, config as config_lib, data
from rethink_jax.distributed import parallel, preemption
from rethink_jax.errors import Diverged, RunFailed, UserError
from rethink_jax.pipeline import batching, inputs, preprocess
from rethink_jax.runs import files, writers
from rethink_jax.runs.resolve import resolve
from rethink_jax.training import experiment, load, loop, train
from rethink_jax.training.checkpoints import Checkpoints
from rethink_jax.training.recorder import Recorder
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


def test_a_run_leaves_what_design_md_promises(toy, curves, tmp_path, capsys):
    summary = train.run(mlp_config(), tmp_path / "run", toy)
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        *("config.json", "run.json", "metrics.jsonl", "summary.json"),
        *("checkpoints", "curves.png", "tensorboard", "lock"),
    }
    run = load.load_run(tmp_path / "run")
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
    assert [session["step"] for session in environment["sessions"]] == [0]


def test_accuracy_is_exact(toy, tmp_path):
    """Counts by hand, with NumPy, what the weights of the checkpoint answer."""
    summary = train.run(mlp_config("true_labels"), tmp_path, toy)
    params = load.load_run(tmp_path).params
    for split, name in ((toy.train, "train"), (toy.test, "test")):
        x = split.images.reshape(len(split.labels), -1).astype(np.float64)
        x = (x - x.mean(1, keepdims=True)) / np.maximum(x.std(1, keepdims=True), 255 / 12 / 3**0.5)
        hidden = np.maximum(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
        answers = (hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]).argmax(1)
        assert summary[f"{name}_accuracy"] == np.mean(answers == split.labels)


def test_norms_are_of_the_checkpoint(toy, tmp_path):
    """Counted from the weights that training began with, in a resumed run, too."""
    train.run(mlp_config(epochs=2), tmp_path, toy)
    summary = train.run(mlp_config(epochs=4), tmp_path, toy)
    config, _ = resolve(mlp_config(), toy)
    pairs = [
        (np.float64(w), np.float64(w0))
        for w, w0 in zip(
            jax.tree.leaves(load.load_run(tmp_path).params),
            jax.tree.leaves(experiment.build(config, toy).initial_state.params),
            strict=True,
        )
    ]
    norm = np.sqrt(sum((w**2).sum() for w, _ in pairs))
    distance = np.sqrt(sum(((w - w0) ** 2).sum() for w, w0 in pairs))
    assert summary["weight_norm"] == pytest.approx(norm, rel=1e-12)
    assert summary["weight_distance"] == pytest.approx(distance, rel=1e-12)
    assert distance > 0.1


def test_top_5_is_exact(tmp_path):
    rng = np.random.default_rng(1)

    def split(n):
        return rng.integers(0, 256, (n, 6, 6, 1)).astype(np.uint8), rng.integers(0, 20, n)

    dataset = data.from_arrays(split(200), split(90), name="twenty classes")
    summary = train.run(mlp_config("random_labels", epochs=2), tmp_path, dataset)
    run, prepared = load.load_run(tmp_path), inputs.prepare(*train_inputs(dataset))
    for part, labels, name in (
        (prepared.train, prepared.train.labels, "train_top5"),
        (prepared.test, prepared.test.true_labels, "test_top5"),
        (prepared.test, prepared.test.labels, "test_top5_corrupted"),
    ):
        x = np.asarray(preprocess.whiten(part.images)).reshape(len(labels), -1)
        hidden = np.maximum(x @ run.params["Dense_0"]["kernel"] + run.params["Dense_0"]["bias"], 0)
        logits = hidden @ run.params["Dense_1"]["kernel"] + run.params["Dense_1"]["bias"]
        answers = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        assert summary[name] == np.mean((answers == labels[:, None]).any(axis=1))
        assert run.metrics[-1][name] == summary[name]
        if part is prepared.train:
            replaced = labels != part.true_labels
            right, true = answers[:, 0] == labels, answers[:, 0] == part.true_labels
            assert summary["train_accuracy_kept"] == np.mean(right[~replaced])
            assert summary["train_accuracy_replaced"] == np.mean(right[replaced])
            assert summary["train_accuracy_replaced_true"] == np.mean(true[replaced])
    assert summary["best_test_top5"] == max(record["test_top5"] for record in run.metrics)


def train_inputs(dataset):
    config, _ = resolve(mlp_config("random_labels", epochs=2), dataset)
    return config, dataset


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="mlp"),
        pytest.param(
            {"model.name": "small_inception", "model.width": 512},
            id="batch norm",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_stopped_and_resumed_is_bit_for_bit_the_same(fields, toy, tmp_path):
    config = mlp_config(**fields)
    train.run(config, tmp_path / "whole", toy)
    config.epochs = 1
    train.run(config, tmp_path / "parts", toy)
    config.epochs = 4
    train.run(config, tmp_path / "parts", toy)
    assert_same_run(load.load_run(tmp_path / "whole"), load.load_run(tmp_path / "parts"))
    environment = json.loads((tmp_path / "parts" / "run.json").read_text())
    assert [session["step"] for session in environment["sessions"]] == [0, 3]


def signal_at(monkeypatch, owner, name, which, number=signal.SIGTERM):
    """Has the so-and-so-manieth call of a function send this process a signal first."""
    function, calls = getattr(owner, name), []

    def signalling(*args, **kwargs):
        calls.append(name)
        if len(calls) == which:
            os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, signalling)


def take_two_steps_in_a_dispatch(monkeypatch):
    """So that the second dispatch of an epoch, which has 3 steps, can be stopped before it."""
    monkeypatch.setattr(parallel, "STEPS_PER_DISPATCH", 2)


def run_undisturbed(config, toy, path):
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 2)
        take_two_steps_in_a_dispatch(patch)
        train.run(config, path, toy)
    return config, path


@pytest.fixture(scope="module")
def undisturbed_every_2_epochs(toy, tmp_path_factory):
    config = mlp_config(**{"checkpoint.every_epochs": 2})
    return run_undisturbed(config, toy, tmp_path_factory.mktemp("undisturbed"))


MOMENTS = {
    "the first step": (parallel, "shard_ids", 1, 1),
    "the middle of an epoch": (parallel, "shard_ids", 5, 5),
    "an evaluation": (batching, "in_batches", 3, 3),
    "a checkpoint": (Checkpoints, "save", 1, 8),
    "the last evaluation": (batching, "in_batches", 11, 12),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_stopped_by_a_signal_and_resumed(
    moment, undisturbed_every_2_epochs, toy, tmp_path, monkeypatch
):
    config, whole = undisturbed_every_2_epochs
    *where, step = MOMENTS[moment]
    take_two_steps_in_a_dispatch(monkeypatch)
    with monkeypatch.context() as patch:
        signal_at(patch, *where)
        with pytest.raises(preemption.Stopped, match=f"SIGTERM: stopped; step {step} is saved in"):
            train.run(config, tmp_path / "parts", toy)
    assert load.load_run(tmp_path / "parts").summary["status"] == "stopped"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train.run(config, tmp_path / "parts", toy)
    assert chaos.differences(tmp_path / "parts", whole) == []


REGULARIZED = {
    "augment.random_crop": True,
    "augment.flip": True,
    "augment.rotation_degrees": 25.0,
    "data.size": 10,
    "augment.color": True,
    "label_smoothing": 0.1,
    "model.dropout": 0.5,
    "optimizer.weight_decay": 1e-3,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_epochs": 0.5,
}


def test_regularized_stopped_and_resumed(toy, tmp_path, monkeypatch):
    config = mlp_config(**REGULARIZED)
    take_two_steps_in_a_dispatch(monkeypatch)
    train.run(config, tmp_path / "whole", toy)
    with monkeypatch.context() as patch:
        signal_at(patch, parallel, "shard_ids", 5)
        with pytest.raises(preemption.Stopped, match="step 5 is saved in"):
            train.run(config, tmp_path / "parts", toy)
    train.run(config, tmp_path / "parts", toy)
    assert chaos.differences(tmp_path / "parts", tmp_path / "whole") == []
    use_devices(monkeypatch, 4)
    train.run(config, tmp_path / "four", toy)
    two, four = (load.load_run(tmp_path / name).metrics for name in ("whole", "four"))
    for a, b in zip(two, four, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)
        assert a["train_accuracy_online"] == b["train_accuracy_online"]


@pytest.mark.ci
def test_regularizers_change_the_run(toy, tmp_path):
    config = mlp_config("true_labels", epochs=1)
    losses = {"none": train.run(config, tmp_path / "none", toy)["train_loss"]}
    for field, value in REGULARIZED.items():
        if field not in ("data.size", "augment.random_crop"):  # which smaller squares may have
            config = mlp_config("true_labels", epochs=1, **{field: value})
            losses[field] = train.run(config, tmp_path / field, toy)["train_loss"]
    assert len(set(losses.values())) == len(losses)
    sizes = {"data.size": REGULARIZED["data.size"]}
    for name, fields in {"centre": {}, "crop": {"augment.random_crop": True}}.items():
        config = mlp_config("true_labels", epochs=1, **sizes, **fields)
        losses[name] = train.run(config, tmp_path / name, toy)["train_loss"]
    assert losses["crop"] != losses["centre"]
    whole = mlp_config("true_labels", epochs=1, **{"augment.random_crop": True})
    with pytest.raises(UserError, match=r"augment\.random_crop is True"):
        train.run(whole, tmp_path / "whole", toy)


def test_online_accuracy_is_that_before_each_step(toy, tmp_path):
    """With one step an epoch it is the exact accuracy of the epoch before."""
    train.run(mlp_config("true_labels", batch_size=300, epochs=5), tmp_path, toy)
    metrics = load.load_run(tmp_path).metrics
    for before, after in itertools.pairwise(metrics):
        assert after["train_accuracy_online"] == before["train_accuracy"]
    assert len({record["train_accuracy"] for record in metrics}) > 2


def test_many_steps_in_a_dispatch_give_the_same_run(toy, tmp_path, monkeypatch):
    """Dispatches of up to 4 steps, in epochs of 3 and to a checkpoint every 2."""
    config = mlp_config(**{"checkpoint.every_steps": 2})
    for name, steps in {"one": 1, "many": 4}.items():
        monkeypatch.setattr(parallel, "STEPS_PER_DISPATCH", steps)
        train.run(config, tmp_path / name, toy)
    one, many = (load.load_run(tmp_path / name).metrics for name in ("one", "many"))
    for a, b in zip(one, many, strict=True):
        assert a["step"] == b["step"]
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)
        assert a["train_accuracy_online"] == b["train_accuracy_online"]


def test_a_dispatch_copies_nothing_and_waits_for_nothing(toy, monkeypatch):
    """Its steps are one program, and all that it takes is on the devices before."""
    monkeypatch.setattr(parallel, "STEPS_PER_DISPATCH", 3)
    monkeypatch.setattr(parallel, "_is_staged", lambda: True)  # as on an accelerator
    built = experiment.build(resolve(mlp_config(), toy)[0], toy)
    state = parallel.replicate(built.initial_state)
    dispatches = [*built.loader.train(0, 3, lambda: 3), *built.loader.train(3, 6, lambda: 3)]
    evaluations = [dispatch for _, dispatch in built.loader.evaluate(("train", "test"))]
    count = parallel.stage_count(3)
    with jax.transfer_guard("disallow_explicit"):
        for dispatch in dispatches:
            assert dispatch.steps == 3
            state, sums = built.train_steps(state, dispatch.examples, dispatch.ids, count)
        for dispatch in evaluations:
            built.eval_steps(state, dispatch.examples, dispatch.ids)
    assert np.isfinite(parallel.fetch(sums)["loss"]).all()
    assert int(parallel.fetch(state.step)) == 6


def test_a_dispatch_takes_a_quarter_of_the_grace_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(parallel, "STEPS_PER_DISPATCH", 64)
    request = preemption.StopRequest()
    request.grace_seconds = 20.0
    poll = loop.StopPoll(request)
    dispatched = []
    for seconds_per_step in (30.0, 0.5, 0.5, 0.01, 0.01, 100.0):
        dispatched.append(poll.max_steps)
        now[0] += poll.max_steps * seconds_per_step
        poll.update(poll.max_steps)
    assert dispatched == [1, 1, 10, 10, 64, 64]
    assert poll.max_steps == 1
    assert not poll.stopped
    request.signal_name = "SIGTERM"
    poll.update_evaluation()
    assert poll.stopped


def test_several_processes_are_not_asked_after_each_dispatch_of_an_evaluation(monkeypatch):
    now, asked = [100.0], []
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        loop.processes, "all_reduce_max", lambda values: asked.append(dispatched) or values
    )
    request = preemption.StopRequest()
    request.grace_seconds = 40.0
    poll = loop.StopPoll(request)
    for dispatched in range(1, 22):  # noqa: B007 - the lambda reads it
        now[0] += 1.0
        poll.update_evaluation()
    assert asked == [1, 3, 7, 15]  # at most 10 seconds apart, and twice as many as before


def test_a_signal_before_the_first_step(toy, tmp_path, monkeypatch):
    signal_at(monkeypatch, inputs, "prepare", 1, signal.SIGINT)
    with pytest.raises(preemption.Stopped, match="SIGINT: nothing to save yet"):
        train.run(mlp_config(), tmp_path / "run", toy)
    assert not (tmp_path / "run").exists()


class Killed(BaseException):
    """Ends a run without a chance to write anything, as SIGKILL does."""


@pytest.fixture(scope="module", params=[None, 2], ids="every {} steps".format)
def undisturbed(request, toy, tmp_path_factory):
    fields = {"checkpoint.every_epochs": 1, "checkpoint.every_steps": request.param}
    config = mlp_config(epochs=3, **fields)
    return run_undisturbed(config, toy, tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("which", [1, pytest.param(2, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("name", ["write", "save", "write_json"])
def test_killed_and_resumed(name, which, undisturbed, toy, tmp_path, monkeypatch):
    config, whole = undisturbed
    owner = {"write": writers.MetricsWriter, "save": Checkpoints, "write_json": files}[name]
    function, calls = getattr(owner, name), []

    def killing(*args):
        calls.append(name)
        function(*args)
        if len(calls) == which:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killing)
        with pytest.raises(Killed):
            train.run(config, tmp_path / "parts", toy)
    train.run(config, tmp_path / "parts", toy)
    assert chaos.differences(tmp_path / "parts", whole) == []


def test_a_fitted_run_that_was_killed_does_not_train_on(toy, tmp_path, monkeypatch):
    config = mlp_config("true_labels", stop_when_fitted=True, epochs=200)
    config.optimizer.learning_rate = 0.05
    summary = train.run(config, tmp_path, toy)
    (tmp_path / "summary.json").unlink()
    again = train.run(config, tmp_path, toy)
    assert again == summary


def test_checkpoints_every_few_steps(toy, tmp_path):
    train.run(mlp_config(**{"checkpoint.every_steps": 5, "checkpoint.keep": 9}), tmp_path, toy)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"5", "10", "12"}


@pytest.mark.parametrize(("before", "after"), [(1, 2), (1, 4), (4, 1)])
def test_resumed_on_another_number_of_devices(before, after, toy, tmp_path, monkeypatch):
    config = mlp_config()
    use_devices(monkeypatch, before)
    train.run(config, tmp_path / "whole", toy)
    config.epochs = 2
    train.run(config, tmp_path / "parts", toy)
    use_devices(monkeypatch, after)
    config.epochs = 4
    train.run(config, tmp_path / "parts", toy)
    whole, parts = (load.load_run(tmp_path / name) for name in ("whole", "parts"))
    for a, b in zip(whole.metrics, parts.metrics, strict=True):
        assert a["step"] == b["step"]
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)
        assert a["test_loss"] == pytest.approx(b["test_loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["train_loss", "test_loss", "weight_norm"])
def test_an_evaluation_that_is_not_finite_ends_the_run(name):
    record = {"step": 6, "train_loss": 1.0, "test_loss": 1.0, "weight_norm": 2.0}
    recorder = types.SimpleNamespace(newest="step 3 is saved")
    loop.check_finite(record, recorder)
    with pytest.raises(Diverged, match=f"^{name} is inf at step 6; step 3 is saved$"):
        loop.check_finite(record | {name: float("inf")}, recorder)


def test_a_loss_that_is_not_finite_ends_the_run(toy, tmp_path):
    config = mlp_config(epochs=2)
    train.run(config, tmp_path, toy)
    kept = load.load_run(tmp_path).params
    file = tmp_path / "config.json"
    config.optimizer.learning_rate = 1e30
    config.epochs = 4
    written = json.loads(file.read_text())
    written["optimizer"]["learning_rate"] = 1e30  # a run that has been fine so far
    file.write_text(json.dumps(written))
    with pytest.raises(RunFailed, match=r"^the loss is nan at step \d+; step 6 is saved in"):
        train.run(config, tmp_path, toy)
    run = load.load_run(tmp_path)
    assert run.summary["status"] == "failed"
    assert run.summary["steps"] == 6
    jax.tree.map(np.testing.assert_array_equal, run.params, kept)


def test_weights_that_are_not_finite_are_not_saved(toy, tmp_path):
    config, _ = resolve(mlp_config(), toy)
    state = experiment.build(config, toy).initial_state
    request = preemption.StopRequest()
    with Recorder(train.epath.Path(tmp_path), config, "abc", toy.info, request) as recorder:
        recorder.restore(state, 12)
        recorder.save(state)
        params = jax.tree.map(lambda x: np.full_like(x, np.inf), state.params)
        with pytest.raises(
            RunFailed, match=r"weights after step 1 are not finite; step 0 is saved"
        ):
            recorder.save(state.replace(step=np.int32(1), params=params))
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == ["0"]


def test_a_directory_that_is_removed_ends_the_run(toy, tmp_path, monkeypatch):
    path = tmp_path / "run"
    shard_ids, calls = parallel.shard_ids, []

    def removing(ids):
        calls.append(ids)
        if len(calls) == 5:
            shutil.rmtree(path)
        return shard_ids(ids)

    monkeypatch.setattr(parallel, "shard_ids", removing)
    with pytest.raises(RunFailed, match=r"run/metrics.jsonl: No such file or directory"):
        train.run(mlp_config(), path, toy)
    assert not path.exists()


def test_a_finished_run_is_not_run_again(toy, tmp_path, monkeypatch):
    first = train.run(mlp_config(epochs=1), tmp_path, toy)
    monkeypatch.setattr(experiment, "build", None)
    assert train.run(mlp_config(epochs=1), tmp_path, toy) == first


def test_a_run_that_was_stopped_after_its_last_step_is_finished_once(toy, tmp_path, monkeypatch):
    """Its checkpoint was saved before the last evaluation, which the resumed run adds."""
    show = Recorder.show

    def sending(self, step):
        show(self, step)
        if step == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "show", sending)
        with pytest.raises(preemption.Stopped):
            train.run(mlp_config(), tmp_path, toy)
    assert load.load_run(tmp_path).summary["epochs"] == 3
    summary = train.run(mlp_config(), tmp_path, toy)
    assert (summary["status"], summary["epochs"]) == ("finished", 4)
    monkeypatch.setattr(loop, "train", None)
    assert train.run(mlp_config(), tmp_path, toy) == summary


def test_a_checkpoint_that_cannot_be_read_confirms_no_single_evaluation(toy, tmp_path):
    train.run(mlp_config(epochs=1), tmp_path, toy)
    (tmp_path / "checkpoints/3/meta/metadata").write_text("{")
    summary = files.read_summary(tmp_path)
    assert train.finished_summary(tmp_path, resolve(mlp_config(epochs=1), toy)[0], 3, True) is None
    assert summary["epochs"] == 1


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
    with pytest.raises(
        UserError, match=r"made from other data: fingerprint \w{8}, now \w{8}; choose"
    ):
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
    assert_same_run(load.load_run(tmp_path / "whole"), load.load_run(tmp_path / "parts"))
    gc.collect()  # TensorStore tells of the damage to an event loop that Orbax has closed


def test_steps_in_place_of_epochs_end_within_an_epoch(toy, tmp_path):
    train.run(mlp_config(steps=4), tmp_path, toy)
    metrics = load.load_run(tmp_path).metrics
    assert [record["step"] for record in metrics] == [3, 4]
    assert metrics[-1]["epoch"] == pytest.approx(4 / 3)


def test_stops_when_fitted(toy, tmp_path):
    config = mlp_config("true_labels", stop_when_fitted=True, epochs=200)
    config.optimizer.learning_rate = 0.05
    summary = train.run(config, tmp_path, toy)
    assert summary["train_accuracy"] == 1
    assert summary["epochs"] < 200
    assert all(r["train_accuracy"] < 1 for r in load.load_run(tmp_path).metrics[:-1])
    assert train.run(config, tmp_path, toy) == summary


def test_stops_at_a_loss(toy, tmp_path):
    config = mlp_config("true_labels", stop_at_loss=0.5, epochs=200)
    config.optimizer.learning_rate = 0.05
    summary = train.run(config, tmp_path, toy)
    *before, last = [record["train_loss"] for record in load.load_run(tmp_path).metrics]
    assert min(before) > 0.5 >= last == summary["train_loss"]
    assert (summary["status"], summary["epochs"] < 200) == ("finished", True)
    assert train.run(config, tmp_path, toy) == summary
    (tmp_path / "summary.json").unlink()
    assert train.run(config, tmp_path, toy) == summary
    config.stop_at_loss = 0.2
    assert train.run(config, tmp_path, toy)["epochs"] > summary["epochs"]


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
        ({"model.auxiliary": True}, "config.model.auxiliary is True; it must be False for mlp"),
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
