"""Made-up examples with a known data set's shapes and sizes, to try things out without it."""

import dataclasses
import functools
import logging

import cv2
import numpy as np

from rethink_jax import paper
from rethink_jax.data.source import DatasetInfo, EncodedSplit, Source
from rethink_jax.errors import require

logger = logging.getLogger(__name__)

INFOS = {
    info.name: info
    for info in (
        DatasetInfo("digits", 1500, 297, (8, 8, 1), 10),
        DatasetInfo("mnist", 60_000, 10_000, (28, 28, 1), 10),
        DatasetInfo("cifar10", paper.CIFAR10_TRAIN, paper.CIFAR10_TEST, (32, 32, 3), 10),
        DatasetInfo(
            "imagenet2012", paper.IMAGENET_TRAIN, paper.IMAGENET_VALIDATION, (375, 500, 3), 1000
        ),
    )
}
# Large images consist of so many cells: they cost little and survive being cropped and resized.
_CELLS = 32
# Sets with more training examples than this are made small unless a number is asked for.
_LARGE, _NUM_TRAIN, _NUM_TEST = 10_000, 1024, 256


def describe(name: str, examples: int | None = None) -> DatasetInfo:
    """Returns the sizes of a made-up data set.

    Args:
      name: of the data set that it imitates.
      examples: `config.data.examples`; without it large sets get 1,024 + 256.

    Raises:
      UserError: it is not known here, or has fewer training examples.
    """
    allowed = f"one of {', '.join(INFOS)} where config.data.fake is True"
    require(name in INFOS, "data.name", name, allowed)
    info = INFOS[name]
    if examples is None and info.num_train <= _LARGE:
        return info
    if examples is None:
        return dataclasses.replace(info, num_train=_NUM_TRAIN, num_test=_NUM_TEST)
    allowed = f"in [1, {info.num_train}], the training examples of {name}"
    require(1 <= examples <= info.num_train, "data.examples", examples, allowed)
    return dataclasses.replace(info, num_train=examples, num_test=min(examples, info.num_test))


def open_source(name: str, examples: int | None = None) -> Source:
    """Returns a source of random images and labels that depend on the split and the id alone; as `describe`."""
    info = describe(name, examples)
    counts = f"{info.num_train:,} training and {info.num_test:,} test images"
    logger.info("%s: %s, made up; config.data.examples makes more or fewer", name, counts)

    def split(number: int, title: str, count: int) -> EncodedSplit:
        return EncodedSplit(
            count, list, functools.partial(_make, number, info), f"made-up {title} {{}}".format
        )

    train, test = split(0, "train", info.num_train), split(1, "test", info.num_test)
    return Source(info, "fake", [], train, test)


def _make(number: int, info: DatasetInfo, example_id: int) -> tuple[bytes, int]:
    rng = np.random.default_rng((number, example_id))
    height, width, channels = info.image_shape
    cells = rng.integers(
        256, size=(min(height, _CELLS), min(width, _CELLS), channels), dtype=np.uint8
    )
    image = cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST)
    _, encoded = cv2.imencode(".bmp", image)  # quick to decode
    return encoded.tobytes(), int(rng.integers(info.num_classes))
