import hashlib
import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rethink_jax import data
from rethink_jax.data import arrays, atomic_dir, cache
from tests.data_helpers import (
    assert_same,
    fields,
    random_examples,
    rows,
    write_images,
    write_set,
)


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


def flip(position):
    def flip_there(file):
        content = bytearray(file.read_bytes())
        content[position] ^= 1
        file.write_bytes(content)

    return flip_there


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
        *(("train_images.npy", flip(position)) for position in (0, 6, 30, 127, 128, -1)),
        ("test_labels.npy", flip(-4)),
        ("info.json", cut),
        ("info.json", flip(0)),
        ("info.json", flip(-5)),
        ("info.json", Path.unlink),
        ("info.json", lambda file: file.write_bytes(b"")),
        ("info.json", lambda file: file.write_bytes(b"\xff")),
        ("info.json", lambda file: file.write_text("null")),
        ("info.json", of_another_format),
    ],
)
def test_spoilt_cache_is_rebuilt(prepared_toy, cache_folder, decoded, caplog, file, spoil):
    first = data.load(fields("toy", prepared_toy))
    (folder,) = cache_folder.iterdir()
    spoil(folder / file)
    with caplog.at_level(logging.INFO, "rethink_jax"):
        assert_same(first, data.load(fields("toy", prepared_toy)))
    (message,) = (message for message in caplog.messages if "rebuilding" in message)
    assert str(folder) in message
    assert file in message or file == "info.json"
    assert_same(first, data.load(fields("toy", prepared_toy)))
    assert decoded == [30, 20] * 2
    assert [*cache_folder.iterdir()] == [folder]


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, sprung):
        self.sprung = sprung

    def __reduce__(self):
        return Path.touch, (self.sprung,)


def as_object_array(file, trap):
    np.save(file, np.array([trap], dtype=object), allow_pickle=True)


def as_pickle(file, trap):
    file.write_bytes(pickle.dumps(trap))


@pytest.mark.parametrize("is_noted", [False, True])
@pytest.mark.parametrize("store", [as_object_array, as_pickle])
def test_nothing_is_unpickled(prepared_toy, cache_folder, decoded, tmp_path, store, is_noted):
    first = data.load(fields("toy", prepared_toy))
    (folder,) = cache_folder.iterdir()
    file, noted = folder / "train_labels.npy", folder / "info.json"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    store(file, Trap(tmp_path / "sprung"))
    if is_noted:
        new_digest = hashlib.sha256(file.read_bytes()).hexdigest()
        noted.write_text(noted.read_text().replace(digest, new_digest))
    assert_same(first, data.load(fields("toy", prepared_toy)))
    assert decoded == [30, 20] * 2
    assert not (tmp_path / "sprung").exists()


def test_what_a_killed_process_left_is_removed(prepared_toy, cache_folder):
    (cache_folder / f"{atomic_dir.PREFIX}killed" / "new").mkdir(parents=True)
    data.load(fields("toy", prepared_toy))
    (folder,) = cache_folder.iterdir()
    assert folder.name.startswith("toy-1.0.0-")


def test_of_two_that_write_at_once_the_first_wins(prepared_toy, cache_folder, monkeypatch, caplog):
    decode_split, others = arrays.decode_split, []

    def decode_after_another(split, info):
        monkeypatch.setattr(arrays, "decode_split", decode_split)
        others.append(data.load(fields("toy", prepared_toy)))
        return decode_split(split, info)

    monkeypatch.setattr(arrays, "decode_split", decode_after_another)
    assert_same(data.load(fields("toy", prepared_toy)), others[0])
    assert len([*cache_folder.iterdir()]) == 1
    assert caplog.messages == []


LOAD_AND_SPOIL = """
import sys
from pathlib import Path
from rethink_jax import config, data

folder, cache = map(Path, sys.argv[1:])
fields = config.base().data
fields.update(name="image_folder", data_dir=str(folder))
print("ready", flush=True)
input()
for _ in range(30):
    loaded = data.load(fields)
    print(loaded.train.images.tobytes().hex(), loaded.test.labels.tolist())
    for file in cache.glob("image_folder-*/info.json"):
        file.unlink(missing_ok=True)
"""


def test_processes_that_write_at_once(tmp_path, cache_folder):
    names = [f"{animal}/{number}.png" for animal in ("ant", "bee") for number in range(6)]
    write_images(tmp_path / "images", names)
    expected = data.load(fields("image_folder", tmp_path / "images"))
    line = f"{expected.train.images.tobytes().hex()} {expected.test.labels.tolist()}"
    command = [sys.executable, "-c", LOAD_AND_SPOIL, tmp_path / "images", cache_folder]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(3)]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        output, warnings = process.communicate()
        assert output.splitlines() == [line] * 30
        assert warnings == ""
    assert len([*cache_folder.iterdir()]) == 1


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
    assert any("continuing without a cache" in message for message in caplog.messages)


def test_where_the_cache_is(prepared_toy, tmp_path, monkeypatch):
    monkeypatch.delenv("RETHINK_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    data.load(fields("toy", prepared_toy))
    assert len([*(tmp_path / "xdg" / "rethink_jax").iterdir()]) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    data.load(fields("toy", prepared_toy))
    assert len([*(tmp_path / "home" / ".cache" / "rethink_jax").iterdir()]) == 1
