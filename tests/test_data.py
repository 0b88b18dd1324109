import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays as hypothesis_arrays
from ml_collections import ConfigDict
from PIL import Image
from sklearn.datasets import load_digits
from tensorflow_datasets.core import hashing

from rethink_jax import config as config_lib, data
from rethink_jax.config import UserError
from rethink_jax.data import arrays, builders, cache, digits
from rethink_jax.data.examples import decode_image

SHARED = Path(__file__).parents[2] / "shared" / "tfds"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="shared/tfds is not here")
FEATURES = {
    "image": tfds.features.Image(shape=(4, 5, 3)),
    "label": tfds.features.ClassLabel(num_classes=10),
}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RETHINK_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def prepared_digits(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    digits.prepare(root)
    return root


def fields(name, data_dir=None, examples=None):
    """Returns `config.data` as a run has it."""
    config = config_lib.base()
    config.data.update(
        name=name, data_dir=None if data_dir is None else str(data_dir), examples=examples
    )
    return config.data


def error(function, *args):
    """Returns the one line of the `UserError` that a call raises."""
    with pytest.raises(UserError) as caught:
        function(*args)
    line = str(caught.value)
    assert "\n" not in line
    return line


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(buffer, "png")
    return buffer.getvalue()


def random_examples(count, shape=(4, 5, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), np.uint8), rng.integers(0, 10, count)


def rows(images, labels):
    return [
        {"image": png(image), "label": int(label)}
        for image, label in zip(images, labels, strict=True)
    ]


def write_set(
    root,
    splits,
    features=FEATURES,
    supervised_keys=None,
    shards=1,
    form="array_record",
    full_name="toy/1.0.0",
):
    """Prepares a TFDS data set, its records in the order of the rows, and returns its folder."""

    class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name, version_number = full_name.split("/")
        VERSION = tfds.core.Version(version_number)
        code_path = builders.NO_CODE_PATH

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=supervised_keys,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {split: enumerate(examples) for split, examples in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    Toy(data_dir=root, file_format=form).download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=shards, try_download_gcs=False)
    )
    return root / full_name


# The digits, and the way of every TFDS set


def test_describe_digits_writes_nothing(tmp_path):
    info = data.describe(fields("digits", tmp_path / "tfds"))
    assert info == data.DatasetInfo("digits", 1500, 297, (8, 8, 1), 10)
    assert list(tmp_path.iterdir()) == []


def test_digits_are_scikit_learns_in_tfds_order(prepared_digits):
    loaded = data.load(fields("digits", prepared_digits))
    assert loaded.info == data.describe(fields("digits", prepared_digits))
    bunch = load_digits()
    for split, examples, keys in (
        ("train", loaded.train, range(1500)),
        ("test", loaded.test, range(1500, 1797)),
    ):
        order = sorted(keys, key=hashing.Hasher(split).hash_key)
        expected = np.round(bunch.images[order] * 255 / 16)
        np.testing.assert_array_equal(examples.images[..., 0], expected)
        np.testing.assert_array_equal(examples.labels, bunch.target[order])
        assert (examples.images.dtype, examples.labels.dtype) == (np.uint8, np.int32)


def test_tfds_reads_the_digits_by_name(prepared_digits):
    builder = tfds.builder("digits", data_dir=prepared_digits)
    assert builder.info.splits["train"].num_examples == 1500


def test_digits_are_prepared_in_tfds_default_folder(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "default"))
    data.load(fields("digits"))
    assert [path.name for path in (tmp_path / "default").iterdir()] == ["digits"]
    assert capfd.readouterr() == ("", "")


def test_of_two_that_prepare_at_once_the_first_wins(tmp_path):
    def build(scratch):
        digits.prepare(tmp_path)  # the other process, which starts later and finishes before
        return digits.Digits(data_dir=scratch, file_format="array_record")

    builders.prepare("digits", tmp_path, build)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert len(data.load(fields("digits", tmp_path)).train.labels) == 1500


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    line = error(data.load, fields("digits", tmp_path / "file" / "tfds"))
    assert line.startswith(f"digits cannot be prepared in {tmp_path}/file/tfds: ")
    assert "config.data.data_dir" in line


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


def test_validation_stands_in_for_test(tmp_path):
    write_set(
        tmp_path,
        {"train": rows(*random_examples(5)), "validation": rows(*random_examples(2, seed=1))},
    )
    assert data.describe(fields("toy", tmp_path)).num_test == 2
    np.testing.assert_array_equal(
        data.load(fields("toy", tmp_path)).test.images, random_examples(2, seed=1)[0]
    )


def test_examples_keeps_the_first_of_both_splits(prepared_digits):
    whole = data.load(fields("digits", prepared_digits))
    some = data.load(fields("digits", prepared_digits, examples=17))
    assert some.info == data.describe(fields("digits", prepared_digits, examples=17))
    assert (some.info.num_train, some.info.num_test) == (17, 17)
    np.testing.assert_array_equal(some.train.images, whole.train.images[:17])
    np.testing.assert_array_equal(some.test.labels, whole.test.labels[:17])


# What is refused, and in what words


def test_more_examples_than_there_are(prepared_digits):
    for function in (data.describe, data.load):
        line = error(function, fields("digits", prepared_digits, examples=1501))
        assert line == (
            "config.data.examples is 1501; it must be in [1, 1500], the training examples of digits"
        )


def test_more_examples_than_the_test_split_has(prepared_digits):
    info = data.describe(fields("digits", prepared_digits, examples=1000))
    assert (info.num_train, info.num_test) == (1000, 297)


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


def toy_with(tmp_path, record):
    """Prepares a set of four records whose train record 2 is changed, and returns its folder."""
    good = rows(*random_examples(4))
    return write_set(
        tmp_path, {"train": [*good[:2], good[2] | record, good[3]], "test": good}, shards=2
    )


def test_record_that_does_not_decode(tmp_path):
    folder = toy_with(tmp_path, {"image": b"no image"})
    line = error(data.load, fields("toy", tmp_path))
    file = folder / "toy-train.array_record-00001-of-00002"
    assert line.startswith(f"record 2 of toy's train split, in {file}: does not decode: ")


def test_image_of_another_size(tmp_path):
    toy_with(tmp_path, {"image": png(np.zeros((4, 6, 3), np.uint8))})
    line = error(data.load, fields("toy", tmp_path))
    assert line.startswith("record 2 of toy's train split")
    assert line.endswith("the image is 4x6x3; the data set's are 4x5x3")


def test_label_that_is_no_class(tmp_path):
    folder = toy_with(tmp_path, {"label": 9})
    described = folder / "features.json"
    described.write_text(described.read_text().replace('"numClasses": "10"', '"numClasses": "9"'))
    line = error(data.load, fields("toy", tmp_path))
    assert line.startswith("record 2 of toy's train split")
    assert line.endswith("the label is 9; it must be in [0, 9)")


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_file_that_is_cut(tmp_path, keep):
    folder = write_set(tmp_path, {split: rows(*random_examples(9)) for split in ("train", "test")})
    file = folder / "toy-test.array_record-00000-of-00001"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    line = error(data.load, fields("toy", tmp_path))
    start = f"record 0 of toy's test split, in {file}: "
    # array_record does not notice a cut between blocks: it reads empty records.
    assert line.removeprefix(start).startswith(
        ("cannot be read: ", "does not decode: the record is")
    )


def test_file_that_is_missing(tmp_path):
    folder = toy_with(tmp_path, {})
    file = folder / "toy-test.array_record-00001-of-00002"
    file.unlink()
    for function in (data.describe, data.load):
        line = error(function, fields("toy", tmp_path))
        assert line.endswith(f"its file {file} is missing")


def test_broken_metadata(tmp_path):
    (toy_with(tmp_path, {}) / "dataset_info.json").write_text("{")
    line = error(data.describe, fields("toy", tmp_path))
    assert line.startswith(f"config.data.name is 'toy'; TFDS cannot open it in {tmp_path}: ")


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
    ("name", "data_dir", "message"),
    [
        ("", None, "config.data.name is ''; it must be the name of a data set"),
        ("image_folder", None, "config.data.data_dir is None; it must be the folder that holds"),
        ("digits", __file__, "it must be a folder, and it is a file"),
    ],
)
def test_check(name, data_dir, message):
    config = ConfigDict({"data": fields(name, data_dir)})
    assert message in error(data.check, config)
    for function in (data.describe, data.load):
        assert message in error(function, config.data)


def test_check_accepts_what_there_can_be(tmp_path):
    data.check(ConfigDict({"data": fields("digits")}))
    data.check(ConfigDict({"data": fields("image_folder", tmp_path)}))


# The cache


@pytest.fixture(scope="module")
def prepared_toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    write_set(
        root, {"train": rows(*random_examples(30)), "test": rows(*random_examples(20, seed=1))}
    )
    return root


@pytest.fixture
def decoded(monkeypatch):
    """The splits that were decoded, each by its count."""
    counts = []
    original = arrays.decode_split

    def decode_split(split, info):
        counts.append(split.count)
        return original(split, info)

    monkeypatch.setattr(arrays, "decode_split", decode_split)
    return counts


def assert_same(first, second):
    assert first.info == second.info
    for one, other in zip((*first.train, *first.test), (*second.train, *second.test), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_decoded_once(prepared_toy, cache_folder, decoded):
    first = data.load(fields("toy", prepared_toy))
    second = data.load(fields("toy", prepared_toy))
    assert decoded == [30, 20]
    assert_same(first, second)
    second.train.images[:] = 0  # the caller's own, not the cache's
    assert_same(first, data.load(fields("toy", prepared_toy)))
    (folder,) = cache_folder.iterdir()
    assert folder.name.startswith("toy-1.0.0-")


def cut(file):
    file.write_bytes(file.read_bytes()[:-10])


def of_another_format(file):
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 0}))


@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        ("train_images.npy", cut),
        ("test_labels.npy", cut),
        ("test_images.npy", Path.unlink),
        ("train_labels.npy", lambda file: file.write_bytes(b"")),
        ("train_labels.npy", lambda file: np.save(file, np.zeros(29, np.int32))),
        ("info.json", cut),
        ("info.json", of_another_format),
    ],
)
def test_spoilt_cache_is_rebuilt(prepared_toy, cache_folder, decoded, caplog, file, spoil):
    first = data.load(fields("toy", prepared_toy))
    (folder,) = cache_folder.iterdir()
    spoil(folder / file)
    with caplog.at_level(logging.INFO, "rethink_jax"):
        assert_same(first, data.load(fields("toy", prepared_toy)))
    assert sum("rebuilding" in message for message in caplog.messages) == 1
    assert_same(first, data.load(fields("toy", prepared_toy)))
    assert decoded == [30, 20] * 2


def test_set_that_is_prepared_again_is_decoded_again(tmp_path, decoded):
    for seed in (0, 1):
        folder = write_set(
            tmp_path,
            {split: rows(*random_examples(3, seed=seed)) for split in ("train", "test")},
        )
        loaded = data.load(fields("toy", tmp_path))
        np.testing.assert_array_equal(loaded.train.images, random_examples(3, seed=seed)[0])
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    assert decoded == [3, 3] * 2


def test_another_cache_format_is_decoded_again(prepared_toy, decoded, monkeypatch):
    data.load(fields("toy", prepared_toy))
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    data.load(fields("toy", prepared_toy))
    assert decoded == [30, 20] * 2


def test_cache_that_cannot_be_written(prepared_toy, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RETHINK_JAX_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING, "absl"):
        assert len(data.load(fields("toy", prepared_toy)).train.labels) == 30
    assert any("going on without a cache" in message for message in caplog.messages)


def test_where_the_cache_is(prepared_toy, tmp_path, monkeypatch):
    monkeypatch.delenv("RETHINK_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    data.load(fields("toy", prepared_toy))
    assert len([*(tmp_path / "xdg" / "rethink_jax").iterdir()]) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    data.load(fields("toy", prepared_toy))
    assert len([*(tmp_path / "home" / ".cache" / "rethink_jax").iterdir()]) == 1


# Images


@given(
    st.sampled_from([1, 3, 4]).flatmap(
        lambda channels: hypothesis_arrays(
            np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(channels))
        )
    )
)
def test_decoding_a_png_gives_its_pixels(pixels):
    decoded_pixels = decode_image(png(pixels), pixels.shape[-1])
    np.testing.assert_array_equal(decoded_pixels, pixels)
    assert decoded_pixels.dtype == np.uint8


def test_decoding_to_other_channels():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    np.testing.assert_array_equal(decode_image(png(grey), 3), np.repeat(grey, 3, axis=-1))


def test_more_than_eight_bits_are_refused():
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2), 3000, np.uint16)).save(buffer, "png")
    with pytest.raises(ValueError, match="more than 8 bits"):
        decode_image(buffer.getvalue(), 1)


# A folder of class folders


def write_images(folder, names, shape=(4, 5, 3), seed=0):
    """Writes random PNGs and returns their pixels."""
    images, _ = random_examples(len(names), shape, seed)
    for name, image in zip(names, images, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(image))
    return images


def test_image_folder_with_train_and_test(tmp_path):
    train = write_images(tmp_path / "train", ["ant/b.png", "bee/a.png", "bee/c.png"])
    test = write_images(tmp_path / "test", ["ant/z.png", "bee/y.png"], seed=1)
    (tmp_path / "train" / "ant" / ".DS_Store").write_text("")
    loaded = data.load(fields("image_folder", tmp_path))
    assert loaded.info == data.DatasetInfo("image_folder", 3, 2, (4, 5, 3), 2)
    assert loaded.info == data.describe(fields("image_folder", tmp_path))
    np.testing.assert_array_equal(loaded.train.images, train)
    np.testing.assert_array_equal(loaded.train.labels, [0, 1, 1])
    np.testing.assert_array_equal(loaded.test.images, test)
    np.testing.assert_array_equal(loaded.test.labels, [0, 1])


def test_image_folder_keeps_every_sixth_for_test(tmp_path):
    names = [f"ant/{number:02}.png" for number in range(13)]
    names += [f"bee/{number:02}.png" for number in range(7)]
    images = write_images(tmp_path, names, shape=(3, 3, 1))
    loaded = data.load(fields("image_folder", tmp_path))
    held_out = [5, 11, 13 + 5]
    np.testing.assert_array_equal(loaded.test.images, images[held_out])
    np.testing.assert_array_equal(loaded.test.labels, [0, 0, 1])
    np.testing.assert_array_equal(loaded.train.images, np.delete(images, held_out, axis=0))
    np.testing.assert_array_equal(loaded.train.labels, [0] * 11 + [1] * 6)


def test_image_folder_reads_only_the_first_image_to_describe(tmp_path):
    names = [f"{animal}/{number}.png" for animal in ("ant", "bee") for number in range(6)]
    write_images(tmp_path, names)
    (tmp_path / "bee" / "3.png").write_bytes(b"no image")
    assert data.describe(fields("image_folder", tmp_path)).num_train == 10
    line = error(data.load, fields("image_folder", tmp_path))
    assert line.startswith(f"bee/3.png in {tmp_path}: does not decode: ")
    write_images(tmp_path, ["bee/3.png"], shape=(5, 5, 3))
    line = error(data.load, fields("image_folder", tmp_path))
    assert line == f"bee/3.png in {tmp_path}: the image is 5x5x3; the data set's are 4x5x3"
    (tmp_path / "ant" / "0.png").write_bytes(b"no image")
    line = error(data.describe, fields("image_folder", tmp_path))
    assert line.startswith(f"ant/0.png in {tmp_path}: does not decode: ")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "must hold 2 or more class folders with files, and it has 0"),
        (["ant/a.png"], "must hold 2 or more class folders with files, and it has 1"),
        (["ant/a.png", "bee/a.png"], "it has no test images"),
    ],
)
def test_image_folder_with_too_little(tmp_path, names, message):
    write_images(tmp_path, names)
    assert message in error(data.describe, fields("image_folder", tmp_path))


def test_image_folder_that_is_not_there(tmp_path):
    line = error(data.describe, fields("image_folder", tmp_path / "none"))
    assert line.endswith(f"is '{tmp_path}/none'; it must be a folder of class folders")


# Arrays


def test_from_arrays():
    images = np.arange(60, dtype=np.uint8).reshape(5, 3, 4)
    made = data.from_arrays((images, [0, 1, 2, 0, 6]), (images[:2], np.array([7, 1], np.int8)))
    assert made.info == data.DatasetInfo("arrays", 5, 2, (3, 4, 1), 8)
    np.testing.assert_array_equal(made.train.images[..., 0], images)
    np.testing.assert_array_equal(made.test.labels, [7, 1])
    assert made.train.labels.dtype == made.test.labels.dtype == np.int32


GOOD = (np.zeros((3, 4, 4, 3), np.uint8), np.zeros(3, int))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ((GOOD[0] / 255, GOOD[1]), "train images are float64; they must be uint8, 0 to 255"),
        ((GOOD[0][0, 0], GOOD[1]), r"train images have shape (4, 3); it must be [n, h, w] or"),
        ((GOOD[0][:0], GOOD[1][:0]), "train images have shape (0, 4, 4, 3)"),
        ((GOOD[0], GOOD[1] / 2), "train labels are float64; they must be integers"),
        ((GOOD[0], GOOD[1][:2]), "train labels have shape (2,); there are 3 images"),
        ((GOOD[0], GOOD[1] - 2), "train labels go down to -2; they must be 0 or more"),
        (
            (GOOD[0][..., :1], GOOD[1]),
            "train images are (4, 4, 1) and its test images are (4, 4, 3)",
        ),
    ],
)
def test_from_arrays_refuses(train, message):
    assert message in error(data.from_arrays, train, GOOD)


# The data sets beside the checkout


@needs_shared
@pytest.mark.parametrize(
    ("name", "num_train", "shape"),
    [("cifar10_jpeg", 50_000, (32, 32, 3)), ("mnist", 60_000, (28, 28, 1))],
)
def test_describe_shared(name, num_train, shape):
    info = data.describe(fields(name, SHARED))
    assert info == data.DatasetInfo(name, num_train, 10_000, shape, 10)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10_jpeg", "mnist"])
def test_load_shared(name):
    loaded = data.load(fields(name, SHARED))
    builder = tfds.builder(name, data_dir=SHARED)
    for split, examples in (("train", loaded.train), ("test", loaded.test)):
        rows_of_tfds = builder.as_data_source(split)
        for position in (0, 1, 4999, len(rows_of_tfds) - 1):
            row = rows_of_tfds[position]
            assert examples.labels[position] == row["label"]
            error_of_jpeg = examples.images[position].astype(int) - row["image"]
            assert np.abs(error_of_jpeg).max() <= (2 if name == "cifar10_jpeg" else 0)
    assert_same(loaded, data.load(fields(name, SHARED)))
