import tempfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits
from tensorflow_datasets.core import hashing

from rethink_jax import data
from rethink_jax.data import atomic_dir, digits, tfds_writer
from tests.data_helpers import error, fields


@pytest.fixture(scope="module")
def prepared_digits(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    digits.prepare(root)
    return root


def test_describe_digits_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RETHINK_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
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
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data.load(fields("digits"))
    assert [path.name for path in tmp_path.iterdir()] == ["default"]
    assert [path.name for path in (tmp_path / "default").iterdir()] == ["digits"]
    assert capfd.readouterr() == ("", "")


def test_of_two_that_prepare_at_once_the_first_wins(tmp_path):
    def build(folder):
        digits.prepare(tmp_path)  # the other process, which starts later and finishes before
        return digits.Digits(data_dir=folder, file_format="array_record")

    tfds_writer.prepare("digits", tmp_path, build)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert len(data.load(fields("digits", tmp_path)).train.labels) == 1500


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / f"{atomic_dir.PREFIX}killed" / "digits" / "1.0.0").mkdir(parents=True)
    digits.prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    line = error(data.load, fields("digits", tmp_path / "file" / "tfds"))
    assert line.startswith(f"digits cannot be prepared in {tmp_path}/file/tfds: ")
    assert "config.data.data_dir" in line
