import functools
import hashlib
import http.server
import io
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import hashing

from rethink_jax.data import cifar10, tfds_reader
from rethink_jax.data.source import decode_split
from rethink_jax.errors import UserError

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PER_FILE = 24


class _Server(http.server.ThreadingHTTPServer):
    requests = 0


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def records():
    """What the files hold, per split: uint8 [n, 1 + 3072]."""
    rng = np.random.default_rng(0)
    train = rng.integers(0, 256, (5 * PER_FILE, 3073), dtype=np.uint8)
    test = rng.integers(0, 256, (PER_FILE, 3073), dtype=np.uint8)
    train[:, 0], test[:, 0] = rng.integers(0, 10, 5 * PER_FILE), rng.integers(0, 10, PER_FILE)
    return {"train": train, "test": test}


@pytest.fixture(scope="module")
def archive(records):
    """CIFAR-10's binary archive, with fewer records."""
    members = {"batches.meta.txt": "\n".join([*CLASSES, "", ""]).encode()}
    for number, part in enumerate(np.split(records["train"], 5), start=1):
        members[f"data_batch_{number}.bin"] = part.tobytes()
    members["test_batch.bin"] = records["test"].tobytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def server(archive, tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "archive.tar.gz").write_bytes(archive)
    handler = functools.partial(_Handler, directory=folder)
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url_of(server):
    return f"http://127.0.0.1:{server.server_port}/archive.tar.gz"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def tfds_order(split, count):
    """The keys 0 to count − 1 in the order of TFDS: by their hash, salted with the split's name."""
    return sorted(range(count), key=hashing.Hasher(split).hash_key)


def test_examples_are_those_of_the_archive_in_tfds_order(server, archive, records, tmp_path):
    root = tmp_path / "tfds"
    cifar10.prepare(root, url_of(server), sha256(archive))
    source = tfds_reader.open_source("cifar10", root)
    builder = tfds.builder("cifar10", data_dir=root)
    assert builder.info.features["label"].names == CLASSES
    skip = {"image": tfds.decode.SkipDecoding()}
    for name, split in (("train", source.train), ("test", source.test)):
        order = tfds_order(name, len(records[name]))
        assert order != sorted(order)
        images, labels, own_ids = decode_split(split, source.info)
        expected = records[name][order, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(labels, records[name][order, 0])
        read = builder.as_data_source(name, decoders=skip)
        assert [row["id"] for row in read] == [f"{name}_{key:05d}".encode() for key in order]
        assert own_ids.tolist() == [f"{name}_{key:05d}" for key in order]


def test_order_is_the_one_that_tfds_wrote_with_tensorflow():
    # The first ids of TFDS 4.9.10's own Cifar10 under TensorFlow 2.21, of 5,000 and 1,000 records.
    assert tfds_order("train", 5_000)[:3] == [1680, 1456, 4223]
    assert tfds_order("test", 1_000)[:3] == [163, 131, 166]


def test_it_is_downloaded_once(server, archive, tmp_path, monkeypatch):
    once = functools.partial(cifar10.prepare, url=url_of(server), sha256=sha256(archive))
    monkeypatch.setattr(cifar10, "prepare", once)
    first = tfds_reader.open_source("cifar10", tmp_path / "tfds")
    second = tfds_reader.open_source("cifar10", tmp_path / "tfds")
    assert server.requests == 1
    assert first.info == second.info
    assert (first.info.num_train, first.info.num_test) == (5 * PER_FILE, PER_FILE)


def test_describe_does_not_download(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "prepare", None)
    info = tfds_reader.describe("cifar10", tmp_path)
    assert (info.num_train, info.num_test) == (50_000, 10_000)
    assert (info.image_shape, info.num_classes) == ((32, 32, 3), 10)
    assert list(tmp_path.iterdir()) == []


def refused(root, url, checksum):
    """Returns the one line of the error; nothing may be left that looks prepared."""
    with pytest.raises(UserError) as caught:
        cifar10.prepare(root, url, checksum)
    assert list(root.iterdir()) == []
    line = str(caught.value)
    assert url in line
    assert "config.data.data_dir" in line
    assert "--config=FILE:digits" in line
    assert "\n" not in line
    return line


def test_wrong_checksum_is_refused(server, archive, tmp_path):
    line = refused(tmp_path / "tfds", url_of(server), "0" * 64)
    assert f"the checksum of what came is {sha256(archive)}, and it must be {'0' * 64}" in line


def test_server_that_is_gone_is_refused(server, archive, tmp_path):
    server.shutdown()
    server.server_close()
    assert "refused" in refused(tmp_path / "tfds", url_of(server), sha256(archive))


def test_missing_file_is_refused(server, archive, tmp_path):
    url = url_of(server).replace("archive", "nothing")
    assert "404" in refused(tmp_path / "tfds", url, sha256(archive))


def test_download_cut_short_is_refused(server, archive, tmp_path, monkeypatch):
    half = len(archive) // 2
    monkeypatch.setattr(_Handler, "copyfile", lambda self, file, out: out.write(file.read(half)))
    line = refused(tmp_path / "tfds", url_of(server), sha256(archive))
    assert f"it was cut short after {half} of {len(archive)} bytes" in line


def test_url_and_checksum_are_those_of_tfds():
    checksums = Path(tfds.__file__).parent / "url_checksums" / "cifar10.txt"
    url, _, checksum, _ = checksums.read_text().split("\t")
    assert (url, checksum) == (cifar10.URL, cifar10.SHA256)
