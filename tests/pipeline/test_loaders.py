import os
import signal

import jax
import numpy as np
import pytest

from rethink_jax import chaos, config as config_lib, corruptions, data, models
from rethink_jax.data import synthetic_imagenet
from rethink_jax.distributed import parallel, preemption
from rethink_jax.errors import UserError
from rethink_jax.pipeline import batching, crops, inputs, loaders, preprocess, stream
from rethink_jax.runs import files
from rethink_jax.runs.resolve import resolve
from rethink_jax.training import load, train
from tests.conftest import use_devices
from tests.pipeline.test_crops import resized

N_TRAIN, N_TEST, BATCH = 42, 10, 8


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("made-for-feeds")
    synthetic_imagenet.prepare(root, N_TRAIN, N_TEST, height=20, width=24)
    return root


def streamed(folder, corruption="random_labels", **fields):
    config = config_lib.train("imagenet2012", corruption)
    config.update_from_flattened_dict(
        {
            "data.data_dir": str(folder),
            "data.stream": True,
            "data.size": 8,
            "data.workers": 0,
            "batch_size": BATCH,
            "epochs": 3,
            "model.name": "mlp",
            "model.width": 16,
            **fields,
        }
    )
    return config


def feed_of(config):
    resolved, _ = resolve(config)
    return resolved, loaders.make(resolved, None)


def looked_up(streaming, dispatches):
    """Returns ids, images, labels and true labels as the devices see them, of all batches in a row."""
    gather = parallel.map_over_devices(
        lambda examples, ids: streaming.gather(examples, ids[0]), (0, 1), sharded_output=True
    )
    rows = []
    for examples, ids, steps in dispatches:
        assert steps == 1
        found = jax.device_get(gather(examples, ids))
        rows.append([array.reshape(BATCH, *array.shape[2:]) for array in (ids[:, 0], *found)])
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def evaluated(streaming, split):
    return (dispatch for _, dispatch in streaming.evaluate([split]))


@pytest.mark.parametrize("name", [*corruptions.OF_PAPER, "symmetric_labels", "pair_flip_labels"])
def test_examples_are_corrupted_by_their_ids(name, folder):
    config, streaming = feed_of(
        streamed(folder, name, **{"corruption.probability": 0.5, "corruption.seed": 3})
    )
    ids, images, labels, true_labels = looked_up(streaming, evaluated(streaming, "train"))
    real = ids != batching.PADDING
    np.testing.assert_array_equal(ids[real], np.arange(N_TRAIN))
    source = data.open_source(config.data)
    decoded = [source.train.parse(record) for record in source.train.fetch(range(N_TRAIN))]
    np.testing.assert_array_equal(true_labels[real], [label for _, label in decoded])
    plain = streaming._batches("train")
    cut = np.concatenate([plain[i].images for i in range(len(plain))])
    moments = corruptions.pixel_moments(cut[real])
    corrupt = inputs.from_config(config.corruption, source.info, moments)
    key = inputs.split_key(config.corruption, "train")
    expected = jax.device_get(corrupt(key, ids[real], cut[real], true_labels[real]))
    np.testing.assert_array_equal(images[real], expected[0])
    np.testing.assert_array_equal(labels[real], expected[1])
    kept = inputs.corrupt_labels(config.corruption, "train", true_labels[real], source.info)
    np.testing.assert_array_equal(labels[real], kept)


def test_training_goes_through_the_epochs_and_goes_on_anywhere(folder):
    _, streaming = feed_of(streamed(folder))
    ids, *_ = looked_up(streaming, streaming.train(0, 12, lambda: 1))
    for epoch in range(2):
        assert sorted(ids[48 * epoch : 48 * (epoch + 1)]) == [-1] * 6 + list(range(N_TRAIN))
    for step in (0, 3, 5, 6):  # forth, back, on
        part, *_ = looked_up(streaming, streaming.train(step, step + 1, lambda: 1))
        np.testing.assert_array_equal(part, ids[BATCH * step : BATCH * (step + 1)])
    streaming.close()


def test_training_may_crop_at_random_but_evaluations_do_not(folder):
    _, cropping = feed_of(streamed(folder, "true_labels", **{"augment.random_crop": True}))
    _, central = feed_of(streamed(folder, "true_labels"))
    of_training, of_evaluation = (
        [looked_up(each, dispatches(each))[1] for each in (cropping, central)]
        for dispatches in (
            lambda each: each.train(0, 1, lambda: 1),
            lambda each: evaluated(each, "test"),
        )
    )
    assert (of_training[0] != of_training[1]).any()
    np.testing.assert_array_equal(*of_evaluation)


def test_gaussian_images_have_the_sets_moments(folder):
    _, streaming = feed_of(streamed(folder, "gaussian"))
    _, images, _, _ = looked_up(streaming, evaluated(streaming, "train"))
    _, plain = feed_of(streamed(folder, "true_labels"))
    ids, pixels, *_ = looked_up(plain, evaluated(plain, "train"))
    pixels = pixels[ids != batching.PADDING]
    assert images.dtype == np.float32
    assert images.mean() == pytest.approx(pixels.mean(), abs=3)
    assert images.std() == pytest.approx(pixels.std(), rel=0.1)


@pytest.mark.ci
def test_the_number_of_devices_and_workers_does_not_matter(folder, tmp_path, monkeypatch):
    runs = []
    for count, workers in ((1, 0), (2, 2), (4, 0)):
        use_devices(monkeypatch, count)
        path = tmp_path / f"{count}"
        summary = train.run(streamed(folder, **{"data.workers": workers}), path)
        assert summary["status"] == "finished"
        runs.append(load.load_run(path).metrics)
    assert len(runs[0]) == 3
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            assert a["train_accuracy_online"] == b["train_accuracy_online"]
            for name in ("train_loss", "test_loss", "test_loss_corrupted"):
                assert a[name] == pytest.approx(b[name], rel=1e-5)


@pytest.mark.ci
def test_a_run_that_was_stopped_goes_on_at_the_same_example(folder, tmp_path, monkeypatch):
    augment = {"augment.random_crop": True, "augment.flip": True, "model.dropout": 0.5}
    train.run(streamed(folder, **augment), tmp_path / "whole")
    with monkeypatch.context() as patch:
        dispatch, calls = loaders.StreamingLoader._dispatch, []

        def signalling(*args):
            calls.append(args)
            if len(calls) == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return dispatch(*args)

        patch.setattr(loaders.StreamingLoader, "_dispatch", signalling)
        patch.setattr(parallel, "STEPS_PER_DISPATCH", 1)  # and so the request is seen at each
        with pytest.raises(preemption.Stopped, match=r"step 4 is saved in"):
            train.run(streamed(folder, **augment), tmp_path / "parts")
    train.run(streamed(folder, **augment, **{"data.workers": 1}), tmp_path / "parts")
    assert chaos.differences(tmp_path / "parts", tmp_path / "whole") == []


def test_top1_and_top5_are_those_of_a_count_in_numpy(folder, tmp_path):
    config = streamed(folder, epochs=6)
    summary = train.run(config, tmp_path)
    params = load.load_run(tmp_path).params
    resolved, streaming = feed_of(config)
    model = models.create(resolved.model, 1000)
    for split, against in (("train", 2), ("test", 3)):
        ids, images, *labels = looked_up(streaming, evaluated(streaming, split))
        labels = labels[against - 2][ids != batching.PADDING]
        whitened = preprocess.whiten(images[ids != batching.PADDING])
        logits = np.asarray(model.apply({"params": params}, whitened))
        order = np.argsort(-logits, axis=1, kind="stable")
        top1, top5 = (np.mean((order[:, :k] == labels[:, None]).any(axis=1)) for k in (1, 5))
        assert summary[f"{split}_accuracy"] == pytest.approx(top1, abs=1e-12)
        assert summary[f"{split}_top5"] == pytest.approx(top5, abs=1e-12)
    assert summary["train_top5"] > summary["train_accuracy"] > 0


def test_only_the_first_examples(folder, tmp_path):
    summary = train.run(streamed(folder, **{"data.examples": 9, "epochs": 1}), tmp_path)
    assert summary["steps"] == 2
    assert files.read_json(tmp_path / "run.json")["num_train"] == 9


def test_other_data_are_noticed(folder, tmp_path):
    train.run(streamed(folder, epochs=1), tmp_path / "run")
    synthetic_imagenet.prepare(tmp_path / "other", N_TRAIN, N_TEST, height=20, width=24, seed=1)
    _, one = feed_of(streamed(folder))
    _, other = feed_of(streamed(tmp_path / "other"))
    _, corrupted_otherwise = feed_of(streamed(folder, **{"corruption.seed": 1}))
    fingerprints = {each.fingerprint for each in (one, other, corrupted_otherwise)}
    assert len(fingerprints) == 3
    assert files.read_json(tmp_path / "run" / "run.json")["fingerprint"] == one.fingerprint


def test_a_damaged_record_ends_a_run_in_one_line(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(stream.cv2, "imdecode", lambda *args: None)
    with pytest.raises(UserError, match=r"record \d+ of imagenet2012's train split, in .* decode"):
        train.run(streamed(folder), tmp_path / "run")


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"corruption.before_crop": True},
            "config.corruption.before_crop is True; it must be False",
        ),
        ({"data.workers": -1}, r"config.data.workers is -1; it must be in \[0, 1024\]"),
        ({"data.examples": 43}, r"config.data.examples is 43; it must be in \[1, 42\]"),
    ],
)
def test_streams_that_cannot_be(fields, line, folder):
    with pytest.raises(UserError, match=line):
        resolve(streamed(folder, **fields))


def test_sides_are_those_of_the_papers(folder):
    for model, side in (("inception_v3", 299), ("resnet18", 224), ("vgg11", 224)):
        config = streamed(folder, **{"model.name": model})
        config.data.size = None
        assert resolve(config)[0].data.size == side


def test_crops_are_those_of_the_model(folder):
    for model, square in (("inception_v3", False), ("resnet18", True)):
        config = streamed(folder, "true_labels", **{"model.name": model, "data.size": 75})
        _, streaming = feed_of(config)
        batch = streaming._batches("test")[0]
        image, _ = streaming._batches("test")._decode(0)
        box = crops.central_box(*image.shape[:2], square)
        np.testing.assert_array_equal(batch.images[0], resized(image, box, 75))


@pytest.mark.parametrize(
    ("devices", "side", "n", "shape"),
    [
        (1, 4, 1500, (1, 1, 1000)),
        (2, 4, 1500, (2, 16, 32)),
        (4, 64, 1500, (4, 16, 32)),
        (2, 80, 1500, (2, 10, 32)),
        (2, 299, 150, (2, 1, 32)),
    ],
)
def test_evaluations_take_few_examples_of_several_simulated_devices_at_once(
    devices, side, n, shape, monkeypatch
):
    use_devices(monkeypatch, devices)
    images = np.zeros((n, side, side, 3), np.uint8)
    made = data.from_arrays(*[(images, np.arange(n) % 10)] * 2, "made")
    config, _ = resolve(config_lib.train("digits", "true_labels"), made)
    loader = loaders.InMemoryLoader(config, made)
    ids = [dispatch.ids for _, dispatch in loader.evaluate(["test"])]
    assert {each.shape for each in ids} == {shape}
    np.testing.assert_array_equal(
        sorted(i for each in ids for i in each.ravel() if i >= 0), range(n)
    )
