"""Data sets that TFDS has prepared, read without TensorFlow if they are array_record."""

import bisect
import difflib
import functools
import importlib.util
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.read_only_builder import ReadOnlyBuilder
from tensorflow_datasets.proto import tf_example_pb2

from rethink_jax.data import cifar10, digits, tfds_writer
from rethink_jax.data.source import DatasetInfo, EncodedSplit, Source, first_image_shape
from rethink_jax.errors import UserError, one_line, require

# TFDS's NAME/CONFIG:VERSION. For anything else TFDS would look for community data sets on the network.
_NAME = re.compile(r"(\w+)(/[\w.-]+)?(:[\d.*]+)?")
# The feature in which TFDS keeps what a data set calls its examples.
_OWN_ID = "id"
_PREPARED_HERE: dict[str, Any] = {"digits": digits, "cifar10": cifar10}


def describe(name: str, data_dir: Path | None, label: str | None = None) -> DatasetInfo:
    """Returns a data set's sizes; reads record 0 only if the metadata do not give the image size.

    Args:
      name: of the data set.
      data_dir: TFDS's data directory; None for its own.
      label: the feature that holds the labels; None for the data set's first.

    Raises:
      UserError: unknown, unprepared, or without images, class labels or a test split.
    """
    builder = _open_builder(name, data_dir)
    module = _PREPARED_HERE.get(name)
    if module and not _is_prepared(builder):
        keys = _feature_keys(name, builder, label)
        image, labels = (builder.info.features[key] for key in keys)
        return DatasetInfo(name, module.NUM_TRAIN, module.NUM_TEST, image.shape, labels.num_classes)
    return _source(name, builder, label).info


def open_source(name: str, data_dir: Path | None, label: str | None = None) -> Source:
    """Opens a prepared data set; `digits` and `cifar10` are prepared if they are not.

    Raises:
      UserError: as `describe`, or it cannot be prepared.
    """
    builder = _open_builder(name, data_dir)
    if name in _PREPARED_HERE and not _is_prepared(builder):
        _PREPARED_HERE[name].prepare(Path(builder.data_dir_root).expanduser())
        builder = _open_builder(name, data_dir)
    return _source(name, builder, label)


def _open_builder(name: str, data_dir: Path | None) -> tfds.core.DatasetBuilder:
    looked_in = data_dir or tfds.core.constants.DATA_DIR
    try:
        if not _NAME.fullmatch(name):
            raise tfds.core.DatasetNotFoundError
        if name == "digits":
            return digits.Digits(data_dir=data_dir)
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = [*tfds.list_builders(with_community_datasets=False), "digits", "image_folder"]
        close = " or ".join(difflib.get_close_matches(name, known)) or "digits or cifar10"
        raise UserError(
            f"config.data.name is {name!r}; TFDS knows no such data set and none is prepared in "
            f"{looked_in}; did you mean {close}? Otherwise {tfds_writer.WAYS_ON}"
        ) from error
    except (
        Exception
    ) as error:  # TFDS raises many types for a wrong config, version or broken metadata
        reason = one_line(error)
        raise UserError(
            f"config.data.name is {name!r}; TFDS cannot open it in {looked_in}: {reason}"
        ) from error


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    return (builder.data_path / "dataset_info.json").exists()


def _source(name: str, builder: tfds.core.DatasetBuilder, label_key: str | None) -> Source:
    version = "-".join(filter(None, (str(builder.version), label_key)))
    image_key, label_key = _feature_keys(name, builder, label_key)
    if not _is_prepared(builder):
        command = _command(name, builder.data_dir_root)
        raise UserError(
            f"config.data.name is {name!r}, which is not prepared: no {builder.data_path}. "
            f"{command} prepares it; or {tfds_writer.WAYS_ON}"
        )
    splits = builder.info.splits
    # The labels of imagenet2012's test split are all −1.
    test_name = "test" if "test" in splits and builder.name != "imagenet2012" else "validation"
    for split_name in ("train", test_name):
        if split_name not in splits:
            raise UserError(
                f"config.data.name is {name!r}; it must have the splits train and test or "
                f"validation, and it has {', '.join(splits)}"
            )
    reader = _reader(name, builder)
    train, test = (reader(split, image_key, label_key) for split in ("train", test_name))
    image, label = builder.info.features[image_key], builder.info.features[label_key]
    files = [Path(file) for split in ("train", test_name) for file in splits[split].filepaths]
    for file in files:
        if not file.exists():
            raise UserError(f"config.data.name is {name!r}; its file {file} is missing")
    if label.num_classes > 2**31:
        raise UserError(
            f"config.data.name is {name!r}; it has {label.num_classes} classes, and 2**31 are the most"
        )
    shape = image.shape
    if None in shape[:2]:
        shape = first_image_shape(train, shape[-1])
    info = DatasetInfo(name, train.count, test.count, shape, label.num_classes)
    return Source(info, version, files, train, test)


def _feature_keys(
    name: str, builder: tfds.core.DatasetBuilder, asked: str | None
) -> tuple[str, str]:
    """Returns the names of the features that hold images and labels."""
    features = builder.info.features
    top_level = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    supervised = builder.info.supervised_keys or ()

    def find(is_wanted: Callable[[Any], bool]) -> str | None:
        keys = [key for key, feature in top_level.items() if is_wanted(feature)]
        return next((key for key in keys if key in supervised), keys[0] if keys else None)

    image, label = find(_is_image), asked or find(_is_label)
    known = sorted(key for key, feature in top_level.items() if _is_label(feature))
    allowed = f"one of {', '.join(known)}, the labels of {name}, or left out"
    require(asked is None or asked in known, "data.label", asked, allowed)
    if image and label:
        return image, label
    wanted = (("8-bit Image", image), ("ClassLabel", label))
    missing = " and no ".join(kind for kind, key in wanted if key is None)
    raise UserError(
        f"config.data.name is {name!r}; it must have an 8-bit Image and a ClassLabel, "
        f"and it has no {missing}"
    )


def _is_image(feature: Any) -> bool:
    if not isinstance(feature, tfds.features.Image) or feature.np_dtype != np.uint8:
        return False
    return len(feature.shape) == 3 and bool(feature.shape[-1])  # GIFs have frames too


def _is_label(feature: Any) -> bool:
    return isinstance(feature, tfds.features.ClassLabel) and bool(feature.num_classes)


def _reader(
    name: str, builder: tfds.core.DatasetBuilder
) -> Callable[[str, str, str], EncodedSplit]:
    file_format = tfds.core.FileFormat
    formats = builder.info.available_file_formats()
    if file_format.ARRAY_RECORD in formats:
        builder.info.set_file_format(
            file_format.ARRAY_RECORD, override=True, override_if_initialized=True
        )
        return functools.partial(_array_record_split, builder)
    if importlib.util.find_spec("tensorflow"):
        return functools.partial(_tensorflow_split, builder)
    held = ", ".join(sorted(held.value for held in formats)) or "no known format"
    line = (
        f"config.data.name is {name!r}, which is prepared in {builder.data_path} as {held}; "
        "to read that, `pip install tensorflow`"
    )
    if not isinstance(builder, ReadOnlyBuilder):
        other = builder.data_dir_root / "array_record"
        line += f"; or {_command(name, other)} prepares it for --config.data.data_dir={other}"
    raise UserError(line)


def _command(name: str, data_dir: Path) -> str:
    """Returns the command that prepares one of TFDS's sets. (`tfds build` needs Apache Beam.)"""
    if name.partition(":")[0] == "imagenet2012":
        return f"`python -m rethink_jax.data.imagenet --manual_dir=TARS --data_dir={data_dir}`"
    builder = f"tfds.builder('{name}', data_dir='{data_dir}', file_format='array_record')"
    return (
        "`pip install tensorflow importlib_resources` and then `python -c "
        f'"import tensorflow_datasets as tfds; {builder}.download_and_prepare()"`'
    )


def _array_record_split(
    builder: tfds.core.DatasetBuilder, split: str, image_key: str, label_key: str
) -> EncodedSplit:
    records = builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )

    def fetch(positions: Sequence[int]) -> Sequence[bytes]:
        if len(positions) == 1:  # no threads for a single record
            return [records[positions[0]]]
        return records.__getitems__(positions)

    def parse(record: bytes) -> tuple[bytes, int]:
        if not record:  # array_record returns this for a file that was cut between two blocks
            raise ValueError("the record is empty")
        features = _features_of(record)
        return features[image_key].bytes_list.value[0], features[label_key].int64_list.value[0]

    def own_id(record: bytes) -> str:
        return _features_of(record)[_OWN_ID].bytes_list.value[0].decode()

    named = own_id if _has_own_ids(builder) else None
    return EncodedSplit(len(records), fetch, parse, _where(builder, split), own_id=named)


def _features_of(record: bytes) -> Any:
    """Parses a record. TFDS's own parser is slow, and other features may need TensorFlow."""
    return tf_example_pb2.Example.FromString(record).features.feature


def _tensorflow_split(
    builder: tfds.core.DatasetBuilder, split: str, image_key: str, label_key: str
) -> EncodedSplit:
    has_own_ids = _has_own_ids(builder)
    decoders = tfds.decode.PartialDecoding(
        {image_key: True, label_key: True, **({_OWN_ID: True} if has_own_ids else {})},
        decoders={image_key: tfds.decode.SkipDecoding()},
    )
    # One file after the other, in the order of the records.
    read_config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)

    def fetch(positions: Sequence[int]) -> list[dict[str, Any]]:
        dataset = builder.as_dataset(
            split=f"{split}[{positions[0]}:{positions[-1] + 1}]",
            shuffle_files=False,
            decoders=decoders,
            read_config=read_config,
        )
        return list(tfds.as_numpy(dataset))

    count = builder.info.splits[split].num_examples
    return EncodedSplit(
        count,
        fetch,
        lambda example: (example[image_key], int(example[label_key])),
        _where(builder, split),
        own_id=(lambda example: example[_OWN_ID].decode()) if has_own_ids else None,
    )


def _has_own_ids(builder: tfds.core.DatasetBuilder) -> bool:
    features = builder.info.features
    is_dict = isinstance(features, tfds.features.FeaturesDict)
    return is_dict and isinstance(dict(features.items()).get(_OWN_ID), tfds.features.Text)


def _where(builder: tfds.core.DatasetBuilder, split: str) -> Callable[[int], str]:
    split_info = builder.info.splits[split]
    ends = list(itertools.accumulate(split_info.shard_lengths))

    def where(position: int) -> str:
        file = split_info.filepaths[bisect.bisect_right(ends, position)]
        return f"record {position} of {builder.name}'s {split} split, in {file}"

    return where
