import json
import logging
from pathlib import Path

import numpy as np
import pytest

from rethink_jax import data
from rethink_jax.data import arrays, cache
from tests.data_helpers import assert_same, fields, random_examples, rows, write_set


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RETHINK_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


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
