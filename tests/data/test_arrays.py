import numpy as np
import pytest

from rethink_jax import data
from rethink_jax.data import digits
from tests.data_helpers import error, fields


@pytest.fixture(scope="module")
def prepared_digits(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    digits.prepare(root)
    return root


def test_examples_keeps_the_first_of_both_splits(prepared_digits):
    whole = data.load(fields("digits", prepared_digits))
    some = data.load(fields("digits", prepared_digits, examples=17))
    assert some.info == data.describe(fields("digits", prepared_digits, examples=17))
    assert (some.info.num_train, some.info.num_test) == (17, 17)
    np.testing.assert_array_equal(some.train.images, whole.train.images[:17])
    np.testing.assert_array_equal(some.test.labels, whole.test.labels[:17])


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
    ("name", "data_dir", "message"),
    [
        ("", None, "config.data.name is ''; it must be the name of a data set"),
        ("image_folder", None, "config.data.data_dir is None; it must be the folder that holds"),
        ("digits", __file__, "it must be a folder, and it is a file"),
    ],
)
def test_check(name, data_dir, message):
    for function in (data.describe, data.load):
        assert message in error(function, fields(name, data_dir))


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
        ((GOOD[0], GOOD[1] + 2**31), "train labels go up to 2147483648; they must be below 2**31"),
        ((GOOD[0], GOOD[1] - 2), "train labels go down to -2; they must be 0 or more"),
        (
            (GOOD[0][..., :1], GOOD[1]),
            "train images are (4, 4, 1) and its test images are (4, 4, 3)",
        ),
    ],
)
def test_from_arrays_refuses(train, message):
    assert message in error(data.from_arrays, train, GOOD)
