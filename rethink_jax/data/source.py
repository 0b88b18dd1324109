"""A data set encoded on disk (`Source`), decoded in memory (`Dataset`), and the decoding."""

import functools
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from rethink_jax.errors import UserError, one_line

_FLAGS = {
    1: cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION,
    3: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
}
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
# Records are fetched in batches: array_record reads a batch about 20 times faster than one by one.
_BATCH = 500
# How many encoded records of each split go into a `Source`'s fingerprint.
_FOR_FINGERPRINT = 200


class Examples(NamedTuple):
    """One split. An example's id is its position.

    Attributes:
      images: uint8 [n, height, width, channels].
      labels: int32 [n].
      own_ids: text [n], what the data set calls its examples, `train_16399` for example, or None.
    """

    images: np.ndarray
    labels: np.ndarray
    own_ids: np.ndarray | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """A data set's sizes; `image_shape` is (height, width, channels)."""

    name: str
    num_train: int
    num_test: int
    image_shape: tuple[int, int, int]
    num_classes: int


@dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    Attributes:
      info: its sizes.
      train, test: its splits.
      loaded: the `config.data.fake` and `.examples` that `rethink_jax.data.load` was called with; None for the
        caller's arrays.
    """

    info: DatasetInfo
    train: Examples
    test: Examples
    loaded: tuple[bool, int | None] | None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the number of classes and of all images and labels, before any corruption."""
        sizes = [np.array(self.info.num_classes, np.int32)]
        return digest([sizes, *(split[:2] for split in (self.train, self.test))])


@dataclass(frozen=True)
class EncodedSplit:
    """The encoded examples of one split, in the order of their ids.

    Attributes:
      count: the number of examples.
      fetch: positions → their raw records.
      parse: a raw record → the encoded image and its label.
      where: a position → that record and its file, in words.
      label: a raw record → its label alone, where that is cheaper than `parse`.
      own_id: a raw record → what the data set calls it; None where it has no names.
    """

    count: int
    fetch: Callable[[Sequence[int]], Sequence[Any]]
    parse: Callable[[Any], tuple[bytes, int]]
    where: Callable[[int], str]
    label: Callable[[Any], int] | None = None
    own_id: Callable[[Any], str] | None = None


@dataclass(frozen=True)
class Source:
    """A data set on disk: its sizes, version and files, and both splits, encoded."""

    info: DatasetInfo
    version: str
    files: Sequence[Path]
    train: EncodedSplit
    test: EncodedSplit

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what can be read quickly, wherever the files lie.

        It covers the sizes, the version, the files' names and lengths, and 200 evenly spaced encoded records of
        each split, images and labels. Other records that are replaced by equally long ones go unnoticed.

        Raises:
          UserError: naming a record that cannot be read.
        """
        info = asdict(self.info) | {"image_shape": list(self.info.image_shape)}
        sizes = [file.stat().st_size for file in self.files]
        digest = hashlib.sha256(
            json.dumps([info, self.version, relative_names(self.files), sizes]).encode()
        )
        for split in (self.train, self.test):
            count = min(split.count, _FOR_FINGERPRINT)
            for position in np.linspace(0, split.count - 1, count).astype(int).tolist():
                (record,) = fetch(split, [position])
                encoded, label = decode(split, position, record, lambda encoded: encoded)
                digest.update(f"{label}:{len(encoded)}:".encode())
                digest.update(encoded)
        return digest.hexdigest()


def digest(splits: Iterable[Iterable[np.ndarray]]) -> str:
    """Returns the SHA-256 of the splits' arrays, dtypes and shapes, in hexadecimal digits."""
    state = hashlib.sha256()
    for split in splits:
        for array in split:
            state.update(f"{array.dtype}{array.shape}".encode())
            state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def relative_names(files: Sequence[Path]) -> list[str]:
    """Returns the files' paths relative to the folder that holds them all."""
    if not files:
        return []
    folder = os.path.commonpath([file.parent for file in files])
    return [os.path.relpath(file, folder) for file in files]


def decode_image(encoded: bytes, channels: int) -> np.ndarray:
    """Returns the pixels of a PNG, JPEG, … as uint8 [height, width, channels], in memory and in streams alike.

    OpenCV, which is faster, decodes JPEGs whose components are the channels; Pillow decodes everything else.
    EXIF orientation is ignored.

    Raises `ValueError` for pixels of more than 8 bits, which Pillow would clip or cut, and its errors.
    """
    if channels in _FLAGS and _components_of_jpeg(encoded) == channels:
        decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), _FLAGS[channels])
        if decoded is None:
            raise ValueError("a JPEG that OpenCV does not decode")
        return decoded.reshape(*decoded.shape[:2], channels)
    with Image.open(io.BytesIO(encoded)) as image:
        if image.mode.startswith(("I", "F")) or ";16" in str(image.tile):
            raise ValueError(f"its pixels have more than 8 bits (mode {image.mode})")
        if channels in (1, 3):
            image.info.pop("transparency", None)  # it is dropped, and Pillow would warn
        pixels = np.asarray(image.convert(_MODES[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)


def _components_of_jpeg(encoded: bytes) -> int:
    """Returns how many components a JPEG of 8 bits has; 0 for anything else, and for a truncated one."""
    if not (encoded.startswith(b"\xff\xd8") and encoded.endswith(b"\xff\xd9")):
        return 0
    at = 2
    while at + 9 < len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the frame's header
            return encoded[at + 9] if encoded[at + 4] == 8 else 0
        at += 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
    return 0


def first_image_shape(split: EncodedSplit, channels: int) -> tuple[int, int, int]:
    """Returns (height, width, channels) of record 0; `UserError` if it does not decode."""
    (record,) = fetch(split, [0])
    height, width, _ = decode(split, 0, record, _pillow(channels))[0].shape
    return height, width, channels


def decode_split(split: EncodedSplit, info: DatasetInfo) -> Examples:
    """Decodes a whole split, in threads.

    Returns:
      images uint8 [split.count, *info.image_shape], labels int32 [split.count] and its own ids.

    Raises:
      UserError: a record does not decode, its image has another size, or its label is none of the classes; the
        line names it.
    """
    images = np.empty((split.count, *info.image_shape), np.uint8)
    labels = np.empty(split.count, np.int32)
    own_ids = [""] * split.count
    to_pixels = _pillow(info.image_shape[-1])

    def fill(start: int) -> None:
        positions = range(start, min(start + _BATCH, split.count))
        for position, record in zip(positions, fetch(split, positions), strict=True):
            image, label = decode(split, position, record, to_pixels)
            if image.shape != info.image_shape:
                sizes = f"{_size(image.shape)}; the data set's are {_size(info.image_shape)}"
                raise UserError(f"{split.where(position)}: the image is {sizes}")
            check_label(split, position, label, info.num_classes)
            images[position], labels[position] = image, label
            if split.own_id is not None:
                own_ids[position] = split.own_id(record)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(fill, range(0, split.count, _BATCH)):
            pass
    return Examples(images, labels, None if split.own_id is None else np.array(own_ids))


def read_labels(
    split: EncodedSplit, num_classes: int, positions: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Returns the labels at some positions, int32 [n]; `UserError` as `decode_split`."""
    labels, positions = [], [int(position) for position in positions]
    for start in range(0, len(positions), _BATCH):
        some = positions[start : start + _BATCH]
        for position, record in zip(some, fetch(split, some), strict=True):
            try:
                label = split.label(record) if split.label else split.parse(record)[1]
            except Exception as error:  # as in `decode`
                raise _broken(split, position, error) from error
            check_label(split, position, label, num_classes)
            labels.append(label)
    return np.asarray(labels, np.int32)


def fetch(split: EncodedSplit, positions: Sequence[int]) -> Sequence[Any]:
    """Returns the raw records at some positions; `UserError` naming the one that cannot be read."""
    try:
        return split.fetch(positions)
    except Exception as error:  # the readers raise whatever C++ raises; this adds the record's name
        if len(positions) > 1:
            return [record for position in positions for record in fetch(split, [position])]
        raise UserError(f"{split.where(positions[0])}: cannot be read: {_line(error)}") from error


def decode(
    split: EncodedSplit, position: int, record: Any, to_pixels: Callable[[bytes], Any]
) -> tuple[Any, int]:
    """Returns a record's image, uint8 [height, width, ...], and label; `UserError` naming a broken one."""
    try:
        encoded, label = split.parse(record)
        return to_pixels(encoded), label
    except Exception as error:  # decoders and protobuf have no common error for broken bytes
        raise _broken(split, position, error) from error


def check_label(split: EncodedSplit, position: int, label: int, num_classes: int) -> None:
    """Raises `UserError` naming a record whose label is none of the classes."""
    if not 0 <= label < num_classes:
        allowed = f"it must be in [0, {num_classes})"
        raise UserError(f"{split.where(position)}: the label is {label}; {allowed}")


def _broken(split: EncodedSplit, position: int, error: Exception) -> UserError:
    return UserError(f"{split.where(position)}: does not decode: {_line(error)}")


def _pillow(channels: int) -> Callable[[bytes], np.ndarray]:
    return functools.partial(decode_image, channels=channels)


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _line(error: Exception) -> str:
    """Returns an error's text in one line."""
    # Pillow's errors name the object that it reads from.
    return re.sub(r" <_io.BytesIO object at \w+>", "", one_line(error)) or type(error).__name__
