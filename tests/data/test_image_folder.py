import logging

import numpy as np
import pytest

from rethink_jax import data
from tests.data_helpers import error, fields, write_images


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


def folders(root, *names):
    for number, name in enumerate(names):
        write_images(root, [f"{name}/{n}.png" for n in range(6)], seed=number)


def test_what_is_passed_over_is_said_in_one_line(tmp_path, caplog):
    folders(tmp_path, "ant", "bee")
    write_images(tmp_path, ["bee/deeper/still/7.png", "stray.png", ".git/x.png"])
    (tmp_path / "ant" / "notes.txt").write_text("x")
    (tmp_path / "labels.csv").write_text("x")
    (tmp_path / "bee" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "bee" / "loop").symlink_to(tmp_path / "bee")
    for name in ("Thumbs.db", ".DS_Store"):
        (tmp_path / "ant" / name).write_text("x")
    (tmp_path / "cow").mkdir()
    with caplog.at_level(logging.INFO, "rethink_jax"):
        loaded = data.load(fields("image_folder", tmp_path))
    assert loaded.info == data.DatasetInfo("image_folder", 11, 2, (4, 5, 3), 2)
    (line,) = caplog.messages
    assert line.startswith("image_folder: 2 classes, 11 training and 2 test images; passed over: ")
    for words in (
        "2 files of other kinds (notes.txt, …)",
        "1 broken link (gone.png)",
        "1 link to a folder above it (loop)",
        "1 image outside of class folders (stray.png)",
        "1 class folder without images (cow/)",
    ):
        assert words in line
    assert line.count("(") == 5


@pytest.mark.parametrize("test", ["val", "valid", "validation"])
def test_other_names_of_a_test_split(tmp_path, test):
    folders(tmp_path, "train/ant", "train/bee", f"{test}/ant")
    info = data.describe(fields("image_folder", tmp_path))
    assert (info.num_train, info.num_test, info.num_classes) == (12, 6, 2)


def test_a_third_split_is_passed_over(tmp_path, caplog):
    folders(tmp_path, "train/ant", "train/bee", "test/ant", "val/bee")
    with caplog.at_level(logging.INFO, "rethink_jax"):
        assert data.load(fields("image_folder", tmp_path)).info.num_test == 6
    assert "1 folder beside train/ and test/ (val/)" in caplog.messages[0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train", "test1"), "it has test1/, train/; it must hold train/CLASS/*"),
        (("train", "test"), "must hold 2 or more class folders with files, and it has 0"),
        (("training/ant", "training/bee", "testing/ant"), "it has testing/, training/; it must"),
        (("train/ant", "train/bee"), "it has train/; it must hold train/CLASS/*"),
        (("train/ant", "train/bee", "test"), "it has no test images"),
        (("train/ant", "train/bee", "test/unknown"), "have no training images: ['unknown']"),
        (("Cat", "cat", "dog"), "its classes 'Cat' and 'cat' differ only by case"),
        (("train/Cat", "train/dog", "test/cat"), "have no training images: ['cat']"),
    ],
)
def test_another_layout_is_refused(tmp_path, names, message):
    folders(tmp_path, *names)
    assert message in error(data.describe, fields("image_folder", tmp_path))


def test_a_class_may_be_called_train(tmp_path):
    folders(tmp_path, "bus", "car", "train")
    assert data.describe(fields("image_folder", tmp_path)).num_classes == 3


def test_grey_and_coloured_images(tmp_path):
    folders(tmp_path, "ant", "bee")
    (grey,) = write_images(tmp_path, ["bee/3.png"], shape=(4, 5, 1))
    line = error(data.describe, fields("image_folder", tmp_path))
    assert "bee/3.png is grey and ant/0.png has colours; set config.data.channels to 1 or 3" in line
    for channels in (1, 3):
        own = fields("image_folder", tmp_path)
        own.channels = channels
        loaded = data.load(own)
        assert loaded.info == data.describe(own)
        assert loaded.info.image_shape == (4, 5, channels)
        np.testing.assert_array_equal(
            loaded.train.images[5 + 3], np.repeat(grey, channels, axis=-1)
        )
