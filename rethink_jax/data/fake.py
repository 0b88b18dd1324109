"""Made-up examples of a known data set's shapes and sizes, for trying things out without it."""

import functools

import cv2
import numpy as np

from rethink_jax.config import require
from rethink_jax.data.examples import DatasetInfo, Source, Split

INFOS = {
    info.name: info
    for info in (
        DatasetInfo("digits", 1500, 297, (8, 8, 1), 10),
        DatasetInfo("mnist", 60_000, 10_000, (28, 28, 1), 10),
        DatasetInfo("cifar10", 50_000, 10_000, (32, 32, 3), 10),
        DatasetInfo("imagenet2012", 1_281_167, 50_000, (375, 500, 3), 1000),
    )
}
# Of large images: coarse ones cost little and survive being cut and resized.
_CELLS = 32


def describe(name: str) -> DatasetInfo:
    """Returns the sizes of a data set; `UserError` where they are not known here."""
    allowed = f"one of {', '.join(INFOS)} where config.data.fake is True"
    require(name in INFOS, "data.name", name, allowed)
    return INFOS[name]


def open_source(name: str) -> Source:
    """Returns a source of random images and labels, functions of the split and the id alone."""
    info = describe(name)

    def split(number: int, title: str, count: int) -> Split:
        return Split(
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
    _, encoded = cv2.imencode(".bmp", image)  # what takes no time to decode
    return encoded.tobytes(), int(rng.integers(info.num_classes))
