"""Nothing counts as finished, resumable or evaluable on data other than a run's own."""

import json
import os
import shutil

import numpy as np
import pytest

from rethink_jax import config as config_lib, data
from rethink_jax.config import sweep_entry
from rethink_jax.data import synthetic_imagenet
from rethink_jax.errors import RunFailed, UserError
from rethink_jax.kernels import interpolation
from rethink_jax.runs import identity
from rethink_jax.sweeps import sweep
from rethink_jax.theory import (
    capacity,
    certificate,
    double_descent,
    expressivity,
    fine_grained,
    judged,
    memorization,
    minimum_norm,
    pac_bayes,
    rademacher,
    stability,
)
from rethink_jax.training import load, train
from tests.conftest import use_devices
from tests.data_helpers import kernel_config, png, random_examples, rows, write_images, write_set

OTHER = r"{path} was made from other data: fingerprint (\w{{8}}), now (?!\1)\w{{8}}; choose another"


def arrays(seed=0, name="mine"):
    rng = np.random.default_rng(seed)

    def split(n):
        labels = np.arange(n) % 3
        images = rng.integers(0, 60, (n, 8, 8, 1)) + 60 * labels[:, None, None, None]
        return images.astype(np.uint8), labels

    return data.from_arrays(split(40), split(20), name)


def small(name="mine", **fields):
    config = config_lib.train(name, "true_labels")
    config.update_from_flattened_dict(
        {"model.name": "mlp", "model.width": 8, "epochs": 2, "stop_when_fitted": False, **fields}
    )
    return config


def content(path):
    """All files with their bytes, but for the lock, which says who has looked."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name != "lock")
    return {str(file): file.read_bytes() for file in files}


def refused(function, path, line=OTHER):
    before = content(path)
    with pytest.raises(UserError, match=line.format(path=path)) as caught:
        function()
    assert "\n" not in str(caught.value)
    assert content(path) == before
    return str(caught.value)


# Training.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a run on `arrays()`, which nobody changes."""
    path = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 2)
        train.run(small(), path, arrays())
    return path


def test_a_finished_run_on_other_arrays(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    refused(lambda: train.run(small(), tmp_path / "run", arrays(1)), tmp_path / "run")
    evaluation = small(experiment="evaluate")
    refused(lambda: train.evaluate(evaluation, tmp_path / "run", arrays(1)), tmp_path / "run")
    assert train.evaluate(evaluation, tmp_path / "run", arrays())["step"] == 2


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("which", ["images", "labels"])
def test_one_value_makes_other_data(split, which, trained):
    theirs = arrays()
    getattr(getattr(theirs, split), which)[7] += 1
    if which == "labels":
        getattr(theirs, split).labels[7] %= 3
    refused(lambda: train.run(small(), trained, theirs), trained)


def test_other_arrays_have_a_default_directory_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (train.run(small(), dataset=arrays(seed)) for seed in (0, 1))
    assert first != second
    assert len([*(tmp_path / "runs").iterdir()]) == 2
    assert train.run(small(), dataset=arrays()) == first
    assert train.evaluate(small(experiment="evaluate"), dataset=arrays(1))["step"] == 2
    assert len([*(tmp_path / "runs").iterdir()]) == 2
    sweep.run(
        config_lib.sweep("s", "mine", (sweep_entry("a", {}),), small_fields()), None, arrays()
    )
    sweep.run(
        config_lib.sweep("s", "mine", (sweep_entry("a", {}),), small_fields()), None, arrays(1)
    )
    assert len([*(tmp_path / "runs").iterdir()]) == 4


def small_fields():
    return {"model.name": "mlp", "model.width": 8, "epochs": 1, "stop_when_fitted": False}


def swap(folder, one, other):
    """Swaps two files, and lets them have the other's times."""
    times = [(folder / name).stat().st_mtime_ns for name in (one, other)]
    (folder / one).rename(folder / "kept")
    (folder / other).rename(folder / one)
    (folder / "kept").rename(folder / other)
    for name, time in zip((one, other), times, strict=True):
        os.utime(folder / name, ns=(time, time))


@pytest.fixture
def images(tmp_path):
    """A folder of two classes whose files have all the same length and time."""
    pixels, _ = random_examples(24, (6, 6, 1))
    for number, image in enumerate(pixels):
        file = tmp_path / "images" / f"{'ab'[number % 2]}" / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(image).ljust(200, b"\0"))
        os.utime(file, (10**9, 10**9))
    return tmp_path / "images"


@pytest.mark.parametrize("stream", [False, True])
def test_files_that_were_swapped_with_their_times_kept(stream, images, tmp_path):
    fields = {"data.data_dir": str(images), "data.stream": stream}
    fields |= {"data.workers": 0} if stream else {}
    config = small("image_folder", **fields, **{"data.size": 6})
    first = train.run(config, tmp_path / "run")
    assert train.run(config, tmp_path / "run") == first
    swap(images, "a/00.png", "a/02.png")
    refused(lambda: train.run(config, tmp_path / "run"), tmp_path / "run")
    config.epochs = 3
    refused(lambda: train.run(config, tmp_path / "run"), tmp_path / "run")
    config.experiment = "evaluate"
    refused(lambda: train.evaluate(config, tmp_path / "run"), tmp_path / "run")


def test_a_folders_default_directory_is_that_of_its_images(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = train.run(small("image_folder", **{"data.data_dir": str(images)}))
    shutil.copytree(images, tmp_path / "scratch")
    for place in (f"{images}/", "scratch"):
        assert train.run(small("image_folder", **{"data.data_dir": place})) == first
    assert len([*(tmp_path / "runs").iterdir()]) == 1
    swap(images, "a/00.png", "b/01.png")
    assert train.run(small("image_folder", **{"data.data_dir": str(images)})) != first
    assert len([*(tmp_path / "runs").iterdir()]) == 2


def test_a_class_that_gets_an_image_of_the_next(tmp_path):
    """The contents and their order stay; the labels do not."""
    names = ["a/0.png", "a/1.png", "b/2.png", "b/3.png"]
    for split in ("train", "test"):
        write_images(tmp_path / split, names)
    before = data.load(small("image_folder", **{"data.data_dir": str(tmp_path)}).data)
    (tmp_path / "train" / "a" / "1.png").rename(tmp_path / "train" / "b" / "1.png")
    after = data.load(small("image_folder", **{"data.data_dir": str(tmp_path)}).data)
    assert [before.train.labels.tolist(), after.train.labels.tolist()] == [
        [0, 0, 1, 1],
        [0, 1, 1, 1],
    ]


def write_toy(root, seed):
    examples = rows(*random_examples(30, seed=seed))
    return write_set(root, {"train": examples[:20], "test": examples[20:]})


def test_a_tfds_directory_with_other_records(tmp_path):
    for place, seed in (("one", 0), ("moved", 0), ("two", 1)):
        write_toy(tmp_path / place, seed)
    config = small("toy", **{"data.data_dir": str(tmp_path / "one"), "data.size": 4})
    first = train.run(config, tmp_path / "run")
    for place in ("moved", "one/"):
        config.data.data_dir = f"{tmp_path}/{place}"
        assert train.run(config, tmp_path / "run") == first
    config.data.data_dir = str(tmp_path / "two")
    moved = rf"now \w{{{{8}}}} \(config.data.data_dir '{tmp_path}/one' → '{tmp_path}/two'\); choose"
    refused(lambda: train.run(config, tmp_path / "run"), tmp_path / "run", moved)
    config.epochs, config.data.data_dir = 3, str(tmp_path / "moved")
    assert train.run(config, tmp_path / "run")["epochs"] == 3
    assert load.load_run(tmp_path / "run").config.data.data_dir == config.data.data_dir


def test_a_stream_whose_images_changed_and_labels_did_not(tmp_path):
    for place in ("one", "two"):
        synthetic_imagenet.prepare(tmp_path / place, 20, 4, height=20, width=24)
    config = small("imagenet2012", **{"data.stream": True, "data.size": 8, "data.workers": 0})
    config.data.data_dir, config.epochs = str(tmp_path / "one"), 1
    first = train.run(config, tmp_path / "run")
    config.data.data_dir = str(tmp_path / "two")
    assert train.run(config, tmp_path / "run") == first
    shutil.rmtree(tmp_path / "two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_imagenet, "_QUALITY", 90)
        synthetic_imagenet.prepare(tmp_path / "two", 20, 4, height=20, width=24)
    refused(
        lambda: train.run(config, tmp_path / "run"), tmp_path / "run", r"\(config.data.data_dir"
    )


def without_data_fingerprint(path):
    """Makes `run.json` what an older version wrote."""
    told = json.loads((path / "run.json").read_text())
    del told["data_fingerprint"]
    (path / "run.json").write_text(json.dumps(told))


def test_a_run_of_an_older_version(tmp_path):
    first = train.run(small(), tmp_path / "run", arrays())
    without_data_fingerprint(tmp_path / "run")
    refused(lambda: train.run(small(), tmp_path / "run", arrays(1)), tmp_path / "run")
    assert train.run(small(), tmp_path / "run", arrays()) == first
    refused(lambda: train.run(small(epochs=3), tmp_path / "run", arrays(1)), tmp_path / "run")
    assert train.run(small(epochs=3), tmp_path / "run", arrays())["epochs"] == 3


# A summary alone is not believed.


def spoil_metrics(path):
    lines = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(lines.replace('"train_loss": ', '"train_loss": 1', 1))


def spoil_summary(path):
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps(summary | {"test_accuracy": 1.0}))


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_metrics,
        spoil_summary,
        lambda path: (path / "metrics.jsonl").unlink(),
        lambda path: (path / "metrics.jsonl").write_text("{\n"),
        lambda path: (path / "run.json").unlink(),
        lambda path: (path / "run.json").write_text("{"),
    ],
)
def test_a_finished_run_whose_files_disagree_is_written_again(spoil, tmp_path):
    first = train.run(small(), tmp_path / "run", arrays())
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    spoil(tmp_path / "run")
    assert train.run(small(), tmp_path / "run", arrays()) == first
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == first


@pytest.mark.parametrize("spoil", [spoil_summary, lambda path: (path / "run.json").unlink()])
def test_without_a_checkpoint_they_are_refused(spoil, tmp_path):
    train.run(small(), tmp_path / "run", arrays())
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    first = train.run(small(), tmp_path / "run", arrays())
    assert first["status"] == "finished"
    spoil(tmp_path / "run")
    line = "{path} has a finished run and no checkpoint"
    refused(lambda: train.run(small(), tmp_path / "run", arrays()), tmp_path / "run", line)


# A sweep.


def test_a_sweep_whose_data_changed(tmp_path):
    config = config_lib.sweep(
        "s", "mine", (sweep_entry("a", {}), sweep_entry("b", {})), small_fields()
    )
    config.sweep.only = "a"
    sweep.run(config, tmp_path / "s", arrays())
    for only in ("a", "*"):
        config.sweep.only = only
        line = r"{path}/a-seed0 was made from other data"
        refused(lambda: sweep.run(config, tmp_path / "s", arrays(1)), tmp_path / "s", line)
    without_data_fingerprint(tmp_path / "s" / "a-seed0")
    refused(lambda: sweep.run(config, tmp_path / "s", arrays(1)), tmp_path / "s", line)
    assert sweep.run(config, tmp_path / "s", arrays())["runs"][1]["status"] == "finished"


# What is not trained, or not alone.


def theory(name):
    if name == "kernel":
        return interpolation.run, kernel_config("mine", (0.1,))
    if name == "expressivity":
        return expressivity.run, config_lib.experiment("expressivity", "mine")
    if name == "minimum_norm":
        config = config_lib.experiment("minimum_norm", "mine")
        config.data.examples, config.sgd.epochs = None, 10
        return minimum_norm.run, config
    if name == "memorization":
        config = config_lib.experiment("memorization", "mine")
        learner = {"memorization.learner": "nearest_neighbour", "memorization.members": 4}
        config.update_from_flattened_dict(learner)
        return memorization.run, config
    if name == "fine_grained":
        config = config_lib.experiment("fine_grained", "mine")
        config.fine_grained.update(sizes=(10,), widths=())
        return fine_grained.run, config
    if name == "pac_bayes":
        config = config_lib.experiment("pac_bayes", "mine")
        config.pac_bayes.update(width=4, sgd_epochs=1, epochs=1, batch_size=10, passes=1)
        return pac_bayes.run, config
    if name == "certificate":
        config = config_lib.experiment("certificate", "mine")
        config.certificate.update(random_examples=20, draws=1)
        config.update_from_flattened_dict({"model.width": 8, "epochs": 1})
        return certificate.run, config
    if name == "capacity":
        config = config_lib.experiment("capacity", "mine")
        config.capacity.update(widths=(1,), draws=1, steps=1)
        return capacity.run, config
    if name == "double_descent":
        config = config_lib.experiment("double_descent", "mine")
        config.double_descent.update(ratios=(0.1, 1.0, 1.5), bandwidth=1.0)
        return double_descent.run, config
    if name == "measures":
        config = config_lib.experiment("measures", "mine")
        config.data.examples = None
        config.measures.update(
            widths=(64,), depths=(1,), learning_rates=(0.05,), weight_decays=(0.0,)
        )
        config.stop_at_loss = 0.06
        return judged.run, config
    config = (
        config_lib.experiment("rademacher", "mine")
        if name == "rademacher"
        else config_lib.experiment("stability", "mine")
    )
    fields = {"model.width": 8, "epochs": 1, "stop_when_fitted": False}
    fields |= {"rademacher.draws": 1} if name == "rademacher" else {"stability.replacements": 1}
    config.update_from_flattened_dict(fields)
    config.data.examples = None
    return (rademacher if name == "rademacher" else stability).run, config


@pytest.fixture
def loaded(monkeypatch):
    """Has `data.load` return what the list holds last."""
    sets = [arrays()]
    monkeypatch.setattr(data, "describe", lambda config: sets[-1].info)
    monkeypatch.setattr(data, "load", lambda config: sets[-1])
    return sets


def with_another_test_image(mine):
    images = mine.test.images.copy()
    images[3] += 1
    return data.from_arrays(mine.train, (images, mine.test.labels), mine.info.name)


@pytest.mark.parametrize(
    "name",
    [
        *("kernel", "expressivity", "rademacher", "stability", "minimum_norm"),
        *("memorization", "fine_grained", "pac_bayes", "certificate", "capacity"),
        *("double_descent", "measures"),
    ],
)
def test_every_experiment_refuses_other_data(name, loaded, tmp_path):
    run, config = theory(name)
    first = run(config, tmp_path / "run")
    assert run(config, tmp_path / "run") == first
    loaded.append(with_another_test_image(arrays()))
    refused(lambda: run(config, tmp_path / "run"), tmp_path / "run")
    loaded.append(arrays())
    (tmp_path / "run" / "run.json").unlink()
    trained_by = {"certificate": "draw0", "measures": "width64-depth1-rate0.05-decay0-true_labels"}
    if name in ("rademacher", "stability", *trained_by):  # what is trained tells
        loaded.append(arrays(1))
        trained = trained_by.get(name, "random_labels")
        line = f"{{path}}/runs/{trained}-seed0 was made from other data"
    else:
        line = "{path} does not say which data its run was made from"
    refused(lambda: run(config, tmp_path / "run"), tmp_path / "run", line)


@pytest.mark.parametrize("name", ["kernel", "expressivity", "minimum_norm"])
def test_every_experiment_of_an_older_version(name, loaded, tmp_path):
    run, config = theory(name)
    first = run(config, tmp_path / "run")
    without_data_fingerprint(tmp_path / "run")
    assert run(config, tmp_path / "run") == first
    config.data.data_dir = str(tmp_path / "elsewhere")
    if name != "kernel":
        line = r"{path} does not say which data .* config.data.data_dir None → '.*elsewhere'"
        refused(lambda: run(config, tmp_path / "run"), tmp_path / "run", line)


def test_a_path_is_named_after_data_that_have_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, folder = small("digits"), small("image_folder", **{"data.data_dir": "x"})

    def path(config, **options):
        return identity.path_of(None, config, lambda: "0123456789", "a", **options).name

    assert path(config) == f"a-{config_lib.digest(config)}"
    assert path(config, dataset=arrays()).endswith("-01234567")
    assert path(folder).endswith("-01234567")
    folder.data.data_dir = "y"
    assert len({path(folder), path(small("image_folder", **{"data.data_dir": "x"}))}) == 1


# Fields that speak of data, and data that are handed over.


def test_examples_of_arrays_that_are_handed_over(tmp_path):
    config = small(**{"data.examples": 10})
    train.run(config, tmp_path, arrays())
    run = load.load_run(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["num_train"] == 10
    assert run.metrics[-1]["step"] == 2
    assert run.metrics[-1]["train_accuracy"] * 10 % 1 == 0
    assert run.config.data.examples == 10


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"data.examples": 41}, r"config.data.examples is 41; it must be in \[1, 40\]"),
        ({"data.fake": True}, "config.data.fake is True; it must be False for a data set that is"),
        ({"data.data_dir": "x"}, "config.data.data_dir is 'x'; it must be left out for a data set"),
        ({"data.stream": True}, "config.data.stream is True; it must be False for a data set that"),
    ],
)
def test_fields_that_cannot_hold_for_arrays(fields, line, tmp_path):
    config = config_lib.sweep("s", "mine", (sweep_entry("a", {}),), {**small_fields(), **fields})
    for run, asked, before in ((train.run, small(**fields), ""), (sweep.run, config, "run a: ")):
        with pytest.raises(UserError, match="^" + before + line):
            run(asked, tmp_path / "run", arrays())
        assert not (tmp_path / "run").exists()


def test_a_set_that_was_loaded_otherwise(tmp_path, own_directories):
    config = small("digits", **{"data.examples": 20})
    mine = data.load(config.data)
    train.run(config, tmp_path / "run", mine)
    for field, value in (("examples", 10), ("examples", None), ("fake", True), ("stream", True)):
        other = small("digits", **{"data.examples": 20})
        other.data[field] = value
        with pytest.raises(UserError, match=rf"config.data.{field} is {value}; it must be "):
            train.run(other, tmp_path / "other", mine)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["rademacher", "stability"])
def test_two_classes_are_not_streamed(name, tmp_path):
    run, config = theory(name)
    config.data.name, config.data.stream, config.data.size = "digits", True, 8
    with pytest.raises(UserError, match="config.data.stream is True; it must be False for " + name):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_synthetic_points_have_no_folder(tmp_path):
    for field, value in (("fake", True), ("data_dir", "x")):
        config = config_lib.experiment("expressivity", "synthetic")
        config.data[field] = value
        with pytest.raises(UserError, match=rf"config.data.{field} is {value!r}; it must be"):
            expressivity.run(config, tmp_path / "run")


def test_products_of_other_features_are_not_taken(loaded, tmp_path):
    from etils import epath

    from rethink_jax.kernels.matrix import InnerProducts

    products = InnerProducts(6, 2, np.dtype("float64"))
    products.add(np.arange(16.0).reshape(8, 2), lambda fraction: None)
    file = epath.Path(tmp_path) / "products.npz"
    products.save(file, 1, '{"pool": 4}')
    assert [
        InnerProducts(6, 2, np.dtype("float64")).restore(file, of) for of in ('{"pool": 4}', "{}")
    ] == [
        1,
        0,
    ]


def test_candidates_that_failed_are_tried_with_other_settings(loaded, tmp_path):
    config = kernel_config("mine", (1e-7, 0.1))
    config.solver.update(max_iterations=1, rank=1, tolerance=1e-9)
    for _ in range(2):
        with pytest.raises(RunFailed, match="none of 2 candidates"):
            interpolation.run(config, tmp_path)
    config.solver.update(max_iterations=1000, rank=30)
    assert interpolation.run(config, tmp_path)["residual"] <= 1e-9
    log = json.loads((tmp_path / "selection.json").read_text())["log"]
    assert [entry["gamma"] for entry in log] == [1e-7, 0.1]
    assert log[1]["error"] is not None
