"""Data sets that fit in memory: uint8 arrays, decoded once and cached."""

import dataclasses
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from rethink_jax.data import cache, fake, image_folder
from rethink_jax.data.source import Dataset, DatasetInfo, Examples, Source, decode_split
from rethink_jax.data.subset import choose_examples
from rethink_jax.errors import UserError, require

Arrays = tuple[np.ndarray, np.ndarray] | tuple[np.ndarray, np.ndarray, np.ndarray | None]


def describe(data: ConfigDict) -> DatasetInfo:
    """Returns the sizes of the data set that `config.data` names, without decoding or downloading anything.

    Raises:
      UserError: the set is unknown or not prepared, or has no images, labels or test split.
    """
    _check(data)
    if data.fake:
        info = fake.describe(data.name, data.examples)
    elif data.name == image_folder.NAME:
        info = image_folder.open_source(data.data_dir, data.channels).info
    else:
        from rethink_jax.data import tfds_reader  # TFDS takes two seconds to import

        info = tfds_reader.describe(data.name, _root(data), data.label)
    return _first(_in_channels(info, data.channels), data.examples)


def open_source(data: ConfigDict) -> Source:
    """Opens the data set that `config.data` names: all its examples, encoded. Raises `UserError` as `load`."""
    _check(data)
    if data.fake:
        source = fake.open_source(data.name, data.examples)
    elif data.name == image_folder.NAME:
        source = image_folder.open_source(data.data_dir, data.channels, tell=True)
    else:
        from rethink_jax.data import tfds_reader  # TFDS takes two seconds to import

        source = tfds_reader.open_source(data.name, _root(data), data.label)
    return dataclasses.replace(source, info=_in_channels(source.info, data.channels))


def load(data: ConfigDict) -> Dataset:
    """Returns the data set that `config.data` names, in memory; `Examples` has shapes and dtypes.

    It is decoded once and cached in `$RETHINK_JAX_CACHE`, else `$XDG_CACHE_HOME/rethink_jax`, else
    `~/.cache/rethink_jax`. `digits` and `cifar10` are prepared on first use.

    Raises:
      UserError: as `describe`, or a record that does not decode.
    """
    source = open_source(data)
    _first(source.info, data.examples)  # before anything is decoded
    dataset = take(cache.load(source, _decode), data.examples)
    return dataclasses.replace(dataset, loaded=(data.fake, data.examples))


def take(dataset: Dataset, examples: int | None) -> Dataset:
    """Returns the part of both splits that `config.data.examples` asks for, and logs which examples it took.

    Raises:
      UserError: there are fewer training examples.
    """
    info = _first(dataset.info, examples)
    if info == dataset.info:
        return dataset

    def part(split: Examples, count: int, title: str) -> Examples:
        what = f"{info.name}'s {title} examples"
        ids = choose_examples(len(split.labels), count, split.labels.__getitem__, what)
        own_ids = None if split.own_ids is None else split.own_ids[ids]
        return Examples(split.images[ids], split.labels[ids], own_ids)

    train = part(dataset.train, info.num_train, "training")
    return Dataset(info, train, part(dataset.test, info.num_test, "test"))


def as_asked(dataset: Dataset, data: ConfigDict) -> Dataset:
    """Returns the examples that `config.data` asks for of a data set in memory.

    Raises:
      UserError: it asks for more than there are, or for something else: a stream, a folder, made-up examples.
    """
    _check_asked(dataset, data)
    return dataset if dataset.loaded else take(dataset, data.examples)


def describe_as_asked(dataset: Dataset, data: ConfigDict) -> DatasetInfo:
    """Returns the sizes of what `as_asked` returns; raises the same errors."""
    _check_asked(dataset, data)
    return dataset.info if dataset.loaded else _first(dataset.info, data.examples)


def _check_asked(dataset: Dataset, data: ConfigDict) -> None:
    given = "for a data set that is handed over"
    require(data.label is None, "data.label", data.label, f"left out {given}")
    stream = data.get("stream", False)
    require(not stream, "data.stream", stream, f"False {given}: it is in memory")
    if dataset.loaded is not None:
        fake, examples = dataset.loaded
        loaded = "as the data set was loaded that is handed over"
        require(data.fake == fake, "data.fake", data.fake, f"{fake}, {loaded}")
        require(data.examples == examples, "data.examples", data.examples, f"{examples}, {loaded}")
        return
    require(not data.fake, "data.fake", data.fake, f"False {given}")
    require(data.data_dir is None, "data.data_dir", data.data_dir, f"left out {given}")


def from_arrays(train: Arrays, test: Arrays, name: str = "arrays") -> Dataset:
    """Returns a data set of the caller's arrays. Classes are 0 to the largest label.

    Args:
      train: images uint8 [n, height, width] or [n, height, width, channels], labels integer [n], and what the
        examples are called, text [n], if they have names.
      test: the same, with images of the same size.
      name: what the data set is called.

    Raises:
      UserError: another dtype or shape, no examples, a negative label, the same name twice.

    Example:
      >>> images, labels = np.zeros((40, 28, 28), np.uint8), np.arange(40) % 10
      >>> dataset = from_arrays((images, labels), (images[:20], labels[:20]))
      >>> dataset.info.num_train, dataset.info.num_test, dataset.info.num_classes
      (40, 20, 10)
      >>> dataset.info.image_shape
      (28, 28, 1)
    """
    train_examples = _examples(f"{name}'s train", *train)
    test_examples = _examples(f"{name}'s test", *test)
    shape, test_shape = train_examples.images.shape[1:], test_examples.images.shape[1:]
    if shape != test_shape:
        raise UserError(f"{name}'s train images are {shape} and its test images are {test_shape}")
    num_classes = 1 + int(max(train_examples.labels.max(), test_examples.labels.max()))
    info = DatasetInfo(
        name, len(train_examples.labels), len(test_examples.labels), shape, num_classes
    )
    return Dataset(info, train_examples, test_examples)


def _check(data: ConfigDict) -> None:
    name, data_dir = data.name, data.data_dir
    require(bool(name), "data.name", name, "the name of a data set")
    require(data.channels in (None, 1, 3), "data.channels", data.channels, "1 or 3")
    if name == image_folder.NAME or data.fake:
        allowed = "left out for images of a folder, and for made-up ones"
        require(data.label is None, "data.label", data.label, allowed)
    if name == image_folder.NAME and not data.fake:
        require(bool(data_dir), "data.data_dir", data_dir, "the folder that holds the images")
    if data_dir:
        try:
            is_file = Path(data_dir).expanduser().is_file()
        except (OSError, RuntimeError) as error:  # too long a name, no home directory
            raise UserError(f"config.data.data_dir is {data_dir!r}: {error}") from error
        require(not is_file, "data.data_dir", data_dir, "a folder, and it is a file")


def _root(data: ConfigDict) -> Path | None:
    return Path(data.data_dir).expanduser() if data.data_dir else None


def _decode(source: Source) -> Dataset:
    info = source.info
    return Dataset(info, decode_split(source.train, info), decode_split(source.test, info))


def _in_channels(info: DatasetInfo, channels: int | None) -> DatasetInfo:
    """Returns the info with the number of channels to which images are converted."""
    shape = (*info.image_shape[:2], channels or info.image_shape[2])
    return dataclasses.replace(info, image_shape=shape)


def _first(info: DatasetInfo, examples: int | None) -> DatasetInfo:
    if examples is None:
        return info
    n = info.num_train
    allowed = f"in [1, {n}], the training examples of {info.name}"
    require(1 <= examples <= n, "data.examples", examples, allowed)
    return dataclasses.replace(info, num_train=examples, num_test=min(examples, info.num_test))


def _examples(
    what: str, images: np.ndarray, labels: np.ndarray, own_ids: np.ndarray | None = None
) -> Examples:
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8:
        raise UserError(f"{what} images are {images.dtype}; they must be uint8, 0 to 255")
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or 0 in images.shape:
        raise UserError(
            f"{what} images have shape {images.shape}; it must be [n, h, w] or [n, h, w, c]"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{what} labels are {labels.dtype}; they must be integers")
    if labels.shape != images.shape[:1]:
        raise UserError(f"{what} labels have shape {labels.shape}; there are {len(images)} images")
    if labels.min() < 0:
        raise UserError(f"{what} labels go down to {labels.min()}; they must be 0 or more")
    if labels.max() >= 2**31:
        raise UserError(f"{what} labels go up to {labels.max()}; they must be below 2**31")
    if own_ids is not None:
        own_ids = np.asarray(own_ids).astype(str)
        if own_ids.shape != labels.shape or len(np.unique(own_ids)) < len(own_ids):
            raise UserError(f"{what} ids must be {len(images)} different texts, one for each image")
    return Examples(images, labels.astype(np.int32), own_ids)
