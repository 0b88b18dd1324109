"""TFDS's own CIFAR-10, downloaded and prepared without TensorFlow.

TFDS's builder needs TensorFlow to unpack the archive, to read its files and to encode the images. This one does
these three things without it and leaves splits, keys and features to TFDS, so the records and their order are
TFDS's.
"""

import hashlib
import http.client
import logging
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import cifar

from rethink_jax import paper
from rethink_jax.data import tfds_writer
from rethink_jax.errors import UserError

logger = logging.getLogger(__name__)

NUM_TRAIN, NUM_TEST = paper.CIFAR10_TRAIN, paper.CIFAR10_TEST
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_RECORD = 1 + 3 * 32 * 32  # a label and three planes


class Cifar10(cifar.Cifar10, skip_registration=True):  # type: ignore[call-arg]
    """TFDS's Cifar10, built from files that are already unpacked in its data directory."""

    name = "cifar10"
    code_path = tfds_writer.NO_CODE_PATH

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        unpacked = SimpleNamespace(download_and_extract=lambda url: self.data_dir_root)
        return super()._split_generators(unpacked)

    def _generate_examples(
        self, split_prefix: str, filepaths: Sequence[str]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        index = 0  # over all files of a split: TFDS's key, which decides the order
        for path in filepaths:
            for record in np.fromfile(path, np.uint8).reshape(-1, _RECORD):
                pixels = record[1:].reshape(3, 32, 32).transpose(1, 2, 0)
                image = tfds_writer.encode_png(np.ascontiguousarray(pixels))
                yield (
                    index,
                    {"id": f"{split_prefix}{index:05d}", "image": image, "label": int(record[0])},
                )
                index += 1


def prepare(root: Path, url: str = URL, sha256: str = SHA256) -> None:
    """Downloads CIFAR-10's binary archive and prepares it in TFDS's data directory.

    Args:
      root: TFDS's data directory.
      url: where the archive is.
      sha256: the archive's checksum in hexadecimal digits.

    Raises:
      UserError: the download fails or is not the archive; the directory cannot be written.
    """

    def build(scratch: Path) -> Cifar10:
        archive = scratch / "archive.tar.gz"
        _download(url, sha256, archive)
        folder = scratch / "cifar-10-batches-bin"
        folder.mkdir()
        with tarfile.open(archive) as tar:
            for member in tar:
                if (
                    file := tar.extractfile(member)
                ) is not None:  # by its last name, so it stays here
                    (folder / Path(member.name).name).write_bytes(file.read())
        return Cifar10(data_dir=scratch, file_format="array_record")

    tfds_writer.prepare("cifar10", root, build)


def _download(url: str, sha256: str, archive: Path) -> None:
    try:
        checksum = _fetch(url, archive)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        raise _failed(url, str(error) or type(error).__name__) from error
    if checksum != sha256:
        raise _failed(url, f"the checksum of what came is {checksum}, and it must be {sha256}")


def _fetch(url: str, archive: Path) -> str:
    """Writes what is at the URL to a file and returns its SHA-256."""
    digest = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=60) as response, archive.open("wb") as file:
        size = int(response.headers.get("Content-Length") or 0)
        logger.info("downloading CIFAR-10, %d MB, from %s", size >> 20, url)
        while block := response.read(1 << 24):
            file.write(block)
            digest.update(block)
            logger.info("downloading CIFAR-10: %d of %d MB", file.tell() >> 20, size >> 20)
        if file.tell() < size:
            raise OSError(f"it was cut short after {file.tell()} of {size} bytes")
    return digest.hexdigest()


def _failed(url: str, what: str) -> UserError:
    return UserError(f"cifar10 cannot be downloaded from {url}: {what}; {tfds_writer.WAYS_ON}")
