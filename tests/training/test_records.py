import csv

import numpy as np
import pytest
from etils import epath

from rethink_jax import config as config_lib, data
from rethink_jax.distributed import parallel
from rethink_jax.errors import UserError
from rethink_jax.pipeline import batching, inputs, preprocess
from rethink_jax.runs.resolve import resolve
from rethink_jax.training import load, records, scores, train
from tests.conftest import use_devices

N, N_TEST, EPOCHS, BATCH = 90, 40, 4, 20


def toy(seed=0):
    rng = np.random.default_rng(seed)

    def split(n):
        labels = np.arange(n) % 3
        images = rng.integers(0, 120, (n, 6, 6, 1)) + 40 * labels[:, None, None, None]
        return images.astype(np.uint8), labels

    return data.from_arrays(split(N), split(N_TEST))


def settings(**fields):
    config = config_lib.train("arrays", "partially_corrupted_labels", probability=0.5)
    config.update_from_flattened_dict(
        {
            "batch_size": BATCH,
            "epochs": EPOCHS,
            "model.width": 8,
            "stop_when_fitted": False,
            "records.every_epochs": 1,
            **fields,
        }
    )
    return config


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 2)  # as each test has them
        train.run(settings(), path, toy())
    return epath.Path(path)


def contents(path):
    return {file.name: file.read_bytes() for file in sorted((path / "records").iterdir())}


def logits_of(params, images):
    x = np.asarray(preprocess.whiten(images)).reshape(len(images), -1).astype(np.float64)
    hidden = np.maximum(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
    return hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]


def assert_values(values, logits, labels):
    rows = np.arange(len(labels))
    np.testing.assert_array_equal(values.answer, logits.argmax(1))
    others = logits.copy()
    others[rows, labels] = -np.inf
    np.testing.assert_allclose(
        values.margin, logits[rows, labels] - others.max(1), rtol=1e-3, atol=1e-5
    )
    losses = np.log(np.exp(logits).sum(1)) - logits[rows, labels]
    np.testing.assert_allclose(values.loss, losses, rtol=1e-3, atol=1e-5)


def at(group, i):
    return records.OfExamples(*(array[i] for array in group))


def test_evaluations_against_numpy(recorded):
    run = load.load_run(recorded)
    assert run.records.steps.tolist() == [5, 10, 15, 20]
    config, _ = resolve(settings(), toy())
    prepared = inputs.prepare(config, toy())
    for group, split, labels in (
        (run.records.train, prepared.train, prepared.train.labels),
        (run.records.test, prepared.test, prepared.test.true_labels),
    ):
        logits = logits_of(run.params, split.images)
        assert_values(at(group, -1), logits, labels)
        if split is prepared.train:
            chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            norms = np.linalg.norm(chances - np.eye(3)[labels], axis=1)
            assert run.records.error_norm.dtype == np.float32
            np.testing.assert_allclose(run.records.error_norm[-1], norms, atol=0.0029)


def test_norms_in_eight_bits():
    norms = np.array([0, 0.001, 0.7, 1.2345, np.sqrt(2), np.sqrt(2) + 1e-6, np.nan], np.float32)
    bits = records._to_bits(norms)
    assert bits.dtype == np.uint8
    again = records._from_bits(bits)
    np.testing.assert_allclose(again[:-1], norms[:-1], atol=np.sqrt(2) / 508 + 1e-6)
    assert np.isnan(again[-1])
    assert again[0] == 0


def test_an_older_run_has_no_norms(recorded, tmp_path):
    (tmp_path / "records").mkdir()
    for file in (recorded / "records").glob("step-*.npz"):
        arrays = dict(np.load(file))
        if file.name == "step-00000010.npz":
            del arrays["train_error_norm"]
        np.savez(tmp_path / "records" / file.name, **arrays)
    found = records.read(epath.Path(tmp_path))
    assert found.error_norm is None
    assert len(found.steps) == EPOCHS


def test_evaluations_agree_with_the_metrics(recorded):
    run = load.load_run(recorded)
    config, _ = resolve(settings(), toy())
    prepared = inputs.prepare(config, toy())
    for i, record in enumerate(run.metrics):
        right = run.records.train.answer[i] == prepared.train.labels
        assert record["train_accuracy"] == np.mean(right)
        assert record["test_accuracy"] == np.mean(
            run.records.test.answer[i] == prepared.test.true_labels
        )
        assert record["train_accuracy_online"] == np.mean(
            run.records.presented.answer[i] == prepared.train.labels
        )
        np.testing.assert_allclose(record["train_loss"], run.records.train.loss[i].mean(), 1e-3)


def test_presented_before_each_step(recorded):
    """The first batch is answered with the initial weights."""
    run = load.load_run(recorded)
    config, _ = resolve(settings(), toy())
    prepared = inputs.prepare(config, toy())
    first = batching.epoch_batches(config.seed, 0, N, BATCH)[0]
    initial = train.build(config, toy()).initial_state.params
    values = records.OfExamples(*(array[0][first] for array in run.records.presented))
    assert_values(
        values, logits_of(initial, prepared.train.images[first]), prepared.train.labels[first]
    )
    assert not np.isnan(run.records.presented.loss).any()


def test_training_is_the_same_without(recorded, tmp_path):
    train.run(settings(**{"records.every_epochs": None}), tmp_path, toy())
    other, own = load.load_run(tmp_path), load.load_run(recorded)
    assert other.records is None
    assert not (epath.Path(tmp_path) / "records").exists()
    for a, b in zip(other.metrics, own.metrics, strict=True):
        times = ("seconds", "images_per_second")
        assert {k: v for k, v in a.items() if k not in times} == {
            k: v for k, v in b.items() if k not in times
        }
    for layer in own.params:
        for name, array in own.params[layer].items():
            np.testing.assert_array_equal(array, other.params[layer][name])


@pytest.mark.parametrize("count", [1, 4])
def test_number_of_devices(recorded, tmp_path, monkeypatch, count):
    use_devices(monkeypatch, count)
    train.run(settings(), tmp_path, toy())
    own, other = load.load_run(recorded).records, load.load_run(tmp_path).records
    for group in ("presented", "train", "test"):
        one, two = getattr(own, group), getattr(other, group)
        np.testing.assert_array_equal(one.answer, two.answer)
        np.testing.assert_allclose(one.margin, two.margin, rtol=2e-3, atol=1e-4)
        np.testing.assert_allclose(one.loss, two.loss, rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(own.error_norm, other.error_norm, atol=0.0057)


@pytest.mark.parametrize("steps", [7, 10, 13])
def test_stopped_and_resumed(recorded, tmp_path, steps):
    """Also within an epoch, and with records that are newer than the checkpoint."""
    path = epath.Path(tmp_path)
    train.run(settings(steps=steps), path, toy())
    newer = path / "records" / "step-00000015.npz"
    newer.write_bytes((recorded / "records" / "step-00000005.npz").read_bytes())
    foreign = path / "records" / "notes.txt"
    foreign.write_text("mine")
    train.run(settings(), path, toy())
    assert foreign.read_text() == "mine"
    foreign.unlink()
    resumed, undisturbed = contents(path), contents(recorded)
    of_steps = {name for name in undisturbed if name.startswith("step-")}
    assert len(of_steps) == EPOCHS
    # The shorter run was evaluated at its end, which was no epoch's, so nothing was recorded there.
    assert {name: resumed[name] for name in of_steps} == {
        name: undisturbed[name] for name in of_steps
    }
    assert {name for name in resumed if name.startswith("step-")} == of_steps


def test_table_of_scores(recorded):
    config, _ = resolve(settings(), toy())
    prepared = inputs.prepare(config, toy())
    rows = [*csv.DictReader((recorded / "scores.csv").read_text().splitlines())]
    assert [int(row["label"]) for row in rows] == prepared.train.labels.tolist()
    assert [int(row["true_label"]) for row in rows] == prepared.train.true_labels.tolist()
    run = load.load_run(recorded).records
    found = scores.all_scores(run.presented, prepared.train.labels, run.error_norm)
    assert [float(row["el2n"]) for row in rows] == run.error_norm[0].astype(float).tolist()
    assert [float(row["cumulative_loss"]) for row in rows] == found["cumulative_loss"].tolist()


def test_every_second_epoch(tmp_path):
    train.run(settings(**{"records.every_epochs": 2}), tmp_path, toy())
    assert load.load_run(tmp_path).records.steps.tolist() == [10, 20]


def test_records_are_of_evaluations():
    with pytest.raises(
        UserError, match=r"is 3; it must be a multiple of config\.evaluate\.every_ep"
    ):
        resolve(settings(**{"records.every_epochs": 3, "evaluate.every_epochs": 2}), toy())


@pytest.mark.parametrize("kept", [0, 2, 300, -1])
def test_a_damaged_record_is_named(recorded, tmp_path, kept):
    path = epath.Path(tmp_path)
    (path / "records").mkdir()
    whole = (recorded / "records" / "step-00000005.npz").read_bytes()
    (path / "records" / "step-00000005.npz").write_bytes(whole[:kept])
    with pytest.raises(UserError, match=r"step-00000005.npz cannot be read"):
        records.read(path)


def test_what_was_presented_must_be_there(tmp_path):
    train.run(settings(steps=7), tmp_path, toy())
    (tmp_path / "records" / "presented-00000007.npz").unlink()
    with pytest.raises(UserError, match=r"presented-00000007.npz cannot be read"):
        train.run(settings(), tmp_path, toy())


def test_records_come_before_the_end():
    with pytest.raises(UserError, match=r"records\.every_epochs is 5; it must be at most config\."):
        resolve(settings(**{"records.every_epochs": 5}), toy())


def test_many_steps_in_one_dispatch(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "STEPS_PER_DISPATCH", 1)
    train.run(settings(), tmp_path, toy())
    own, other = load.load_run(recorded).records, load.load_run(tmp_path).records
    for group in ("presented", "train", "test"):
        np.testing.assert_array_equal(getattr(own, group).answer, getattr(other, group).answer)
