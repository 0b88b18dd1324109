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
