import numpy as np
import pytest
import tensorflow_datasets as tfds

from rethink_jax import data
from tests.data_helpers import (
    FEATURES,
    assert_same,
    error,
    fields,
    random_examples,
    rows,
    write_set,
)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """Where a test that sees nothing written would see the cache."""
    monkeypatch.setenv("RETHINK_JAX_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("shards", [1, 3])
def test_position_is_the_order_of_the_records(tmp_path, shards):
    train, test = random_examples(700), random_examples(40, seed=1)
    write_set(tmp_path, {"train": rows(*train), "test": rows(*test)}, shards=shards)
    loaded = data.load(fields("toy", tmp_path))
    np.testing.assert_array_equal(loaded.train.images, train[0])
    np.testing.assert_array_equal(loaded.train.labels, train[1])
    np.testing.assert_array_equal(loaded.test.images, test[0])
    np.testing.assert_array_equal(loaded.test.labels, test[1])


def test_size_left_open_is_that_of_the_first_record(tmp_path):
    features = FEATURES | {"image": tfds.features.Image(shape=(None, None, 1))}
    train = random_examples(3, (6, 7, 1))
    write_set(tmp_path, {"train": rows(*train), "test": rows(*train)}, features)
    assert data.describe(fields("toy", tmp_path)).image_shape == (6, 7, 1)
    np.testing.assert_array_equal(data.load(fields("toy", tmp_path)).train.images, train[0])


def test_supervised_keys_choose_among_several_labels(tmp_path):
    features = FEATURES | {
        "coarse": tfds.features.ClassLabel(num_classes=2),
        "note": tfds.features.Text(),
    }
    train = random_examples(5)
    examples = [row | {"coarse": 1, "note": "x"} for row in rows(*train)]
    write_set(tmp_path, {"train": examples, "test": examples}, features, ("image", "label"))
    loaded = data.load(fields("toy", tmp_path))
    assert loaded.info.num_classes == 10
    np.testing.assert_array_equal(loaded.train.labels, train[1])


def test_label_feature_and_own_ids(tmp_path):
    features = FEATURES | {
        "worse": tfds.features.ClassLabel(num_classes=4),
        "id": tfds.features.Text(),
    }
    train = random_examples(6)
    examples = [row | {"worse": i % 4, "id": f"train_{i}é"} for i, row in enumerate(rows(*train))]
    write_set(tmp_path, {"train": examples, "test": examples[:3]}, features, ("image", "label"))
    loaded = data.load(fields("toy", tmp_path))
    np.testing.assert_array_equal(loaded.train.labels, train[1])
    assert loaded.train.own_ids.tolist() == [f"train_{i}é" for i in range(6)]
    some = data.take(loaded, 2).train
    for image, own_id in zip(some.images, some.own_ids, strict=True):
        np.testing.assert_array_equal(image, train[0][int(own_id[6])])
    asked = fields("toy", tmp_path)
    asked.label = "worse"
    assert data.describe(asked).num_classes == 4
    # Once decoded, once from the cache, which must tell the two labels apart.
    for _ in range(2):
        other = data.load(asked)
        np.testing.assert_array_equal(other.train.labels, np.arange(6) % 4)
        assert other.train.own_ids.tolist() == loaded.train.own_ids.tolist()
    asked.label = "note"
    assert error(data.load, asked) == (
        "config.data.label is 'note'; it must be one of label, worse, the labels of toy, or left out"
    )


def test_validation_stands_in_for_test(tmp_path):
    write_set(
        tmp_path,
        {"train": rows(*random_examples(5)), "validation": rows(*random_examples(2, seed=1))},
    )
    assert data.describe(fields("toy", tmp_path)).num_test == 2
    np.testing.assert_array_equal(
        data.load(fields("toy", tmp_path)).test.images, random_examples(2, seed=1)[0]
    )


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("cifr10", "did you mean cifar10 or"),
        ("digit", "did you mean digits"),
        ("imagefolder", "did you mean image_folder"),
        ("qqqqqq", "did you mean digits or cifar10?"),
        ("huggingface:mnist", "TFDS knows no such data set"),
    ],
)
def test_unknown_name(tmp_path, name, suggestion):
    line = error(data.describe, fields(name, tmp_path))
    assert f"config.data.name is {name!r}" in line
    assert suggestion in line
    assert str(tmp_path) in line
    assert len(line) < 500 + len(str(tmp_path))


@pytest.mark.parametrize("name", ["mnist:9.9.9", "imagenette/nothing"])
def test_unknown_version_and_config(tmp_path, name):
    line = error(data.describe, fields(name, tmp_path))
    assert line.startswith(f"config.data.name is {name!r}; TFDS cannot open it in {tmp_path}: ")


@pytest.mark.parametrize("function", [data.describe, data.load])
def test_unprepared_set_says_what_to_do(tmp_path, function):
    line = error(function, fields("mnist", tmp_path))
    assert "config.data.name is 'mnist', which is not prepared" in line
    assert f"not prepared: no {tmp_path}/mnist/3.0.1" in line
    assert (
        f"tfds.builder('mnist', data_dir='{tmp_path}', file_format='array_record')"
        ".download_and_prepare()" in line
    )
    assert "config.data.data_dir" in line
    assert "--config=FILE:digits" in line
    assert list(tmp_path.iterdir()) == []


def test_set_without_images(tmp_path):
    line = error(data.describe, fields("imdb_reviews", tmp_path))
    assert line.endswith("it must have an 8-bit Image and a ClassLabel, and it has no 8-bit Image")


def test_set_without_images_and_labels(tmp_path):
    write_set(tmp_path, {"train": [{"text": "a"}]}, {"text": tfds.features.Text()})
    line = error(data.describe, fields("toy", tmp_path))
    assert line.endswith("and it has no 8-bit Image and no ClassLabel")


def test_set_without_test_split(tmp_path):
    write_set(tmp_path, {"train": rows(*random_examples(2))})
    line = error(data.describe, fields("toy", tmp_path))
    assert line.endswith("must have the splits train and test or validation, and it has train")


@pytest.mark.parametrize("full_name", ["toy/1.0.0", "mnist/3.0.1"])
def test_tfrecord_without_tensorflow(tmp_path, monkeypatch, full_name):
    examples = rows(*random_examples(2))
    folder = write_set(tmp_path, {"train": examples, "test": examples}, full_name=full_name)
    described = folder / "dataset_info.json"
    described.write_text(described.read_text().replace("array_record", "tfrecord"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = error(data.describe, fields(folder.parent.name, tmp_path))
    assert f"prepared in {folder} as tfrecord; to read that, `pip install tensorflow`" in line
    other = f"{tmp_path}/array_record"
    command = f"tfds.builder('mnist', data_dir='{other}', file_format='array_record')"
    is_tfds_own = folder.parent.name == "mnist"
    assert (command in line) == is_tfds_own
    assert line.endswith(f"--config.data.data_dir={other}") == is_tfds_own


@pytest.mark.filterwarnings("default")  # TensorFlow's own
def test_tfrecord_with_tensorflow(tmp_path):
    pytest.importorskip("tensorflow", reason="TensorFlow is not a dependency")
    examples = random_examples(1200)
    splits = {split: rows(*examples) for split in ("train", "test")}
    write_set(tmp_path, splits, shards=3, form="tfrecord")
    loaded = data.load(fields("toy", tmp_path))
    np.testing.assert_array_equal(loaded.train.images, examples[0])
    np.testing.assert_array_equal(loaded.train.labels, examples[1])


@pytest.mark.parametrize(
    ("name", "num_train", "shape"),
    [("cifar10_jpeg", 50_000, (32, 32, 3)), ("mnist", 60_000, (28, 28, 1))],
)
def test_describe_shared(real_data, name, num_train, shape):
    info = data.describe(fields(name, real_data))
    assert info == data.DatasetInfo(name, num_train, 10_000, shape, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10_jpeg", "mnist"])
def test_load_shared(real_data, name):
    loaded = data.load(fields(name, real_data))
    builder = tfds.builder(name, data_dir=real_data)
    for split, examples in (("train", loaded.train), ("test", loaded.test)):
        rows_of_tfds = builder.as_data_source(split)
        for position in (0, 1, 4999, len(rows_of_tfds) - 1):
            row = rows_of_tfds[position]
            assert examples.labels[position] == row["label"]
            error_of_jpeg = examples.images[position].astype(int) - row["image"]
            assert np.abs(error_of_jpeg).max() <= (2 if name == "cifar10_jpeg" else 0)
    assert_same(loaded, data.load(fields(name, real_data)))
