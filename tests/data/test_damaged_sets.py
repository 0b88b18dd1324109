"""Damaged data sets are named with file and record; none is trained on."""

import re

import numpy as np
import pytest

from rethink_jax import data
from tests.data_helpers import error, fields, png, random_examples, rows, write_set


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
    file = folder / "toy-train.array_record-00001-of-00002"
    described = folder / "features.json"
    described.write_text(described.read_text().replace('"numClasses": "10"', '"numClasses": "9"'))
    line = error(data.load, fields("toy", tmp_path))
    allowed = "it must be in [0, 9)"
    assert line == f"record 2 of toy's train split, in {file}: the label is 9; {allowed}"


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


def test_file_with_other_bytes(tmp_path):
    folder = write_set(tmp_path, {split: rows(*random_examples(9)) for split in ("train", "test")})
    file = folder / "toy-train.array_record-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    line = error(data.load, fields("toy", tmp_path))
    assert re.match(rf"record \d of toy's train split, in {file}: cannot be read: ", line)


def test_file_with_too_few_records(tmp_path):
    splits = {split: rows(*random_examples(9)) for split in ("train", "test")}
    folder = write_set(tmp_path / "whole", splits)
    few = write_set(tmp_path / "few", splits | {"train": splits["train"][:7]})
    file = folder / "toy-train.array_record-00000-of-00001"
    file.write_bytes((few / file.name).read_bytes())
    line = error(data.load, fields("toy", tmp_path / "whole"))
    assert line.startswith(f"record 7 of toy's train split, in {file}: cannot be read: ")


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
