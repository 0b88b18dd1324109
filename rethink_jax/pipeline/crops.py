"""From an image of any size to the square that a model sees: which part of it, and its new size."""

import math
from typing import NamedTuple

import cv2
import numpy as np


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


# What an evaluation sees of a side: 224 of 256 pixels, and Inception's 87.5 %.
_CENTRAL = 0.875
# Ratios of width to height, and how often a box that does not fit is drawn anew.
_LOW, _HIGH, _TRIES = 3 / 4, 4 / 3, 10


def central_box(height: int, width: int, square: bool) -> Box:
    """Returns the central part of an image that an evaluation sees.

    Args:
      height: of the image, in pixels.
      width: of the image, in pixels.
      square: with `True`, a square of 87.5 % of the shorter side: resizing that side to 256 and cutting out the
        central 224 pixels sees the same (Krizhevsky et al. 2012; He et al. 2015). With `False`, 87.5 % of each
        side, which changes the ratio of the sides once it is resized, as in the Inceptions' own evaluation.
    """
    sides = 2 * (min(height, width),) if square else (height, width)
    rows, columns = (max(1, round(_CENTRAL * side)) for side in sides)
    return Box((height - rows) // 2, (width - columns) // 2, rows, columns)


def random_box(height: int, width: int, rng: np.random.Generator, least_area: float) -> Box:
    """Returns a random part of an image: its area, the ratio of its sides and its place are drawn.

    The area is uniform in [least_area, 1] of the image's, the ratio log-uniform in [3/4, 4/3] (Szegedy et al.
    2014, arXiv 1409.4842, section 6). Where ten of them do not fit, it is the largest central part whose
    ratio is allowed.

    Args:
      height: of the image.
      width: likewise.
      rng: draws.
      least_area: a share.
    """
    for _ in range(_TRIES):
        area = height * width * rng.uniform(least_area, 1)
        ratio = math.exp(rng.uniform(math.log(_LOW), math.log(_HIGH)))
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
            return Box(int(top), int(left), rows, columns)
    rows, columns = min(height, round(width / _LOW)), min(width, round(height * _HIGH))
    return Box((height - rows) // 2, (width - columns) // 2, rows, columns)


def resize(image: np.ndarray, box: Box, square: np.ndarray) -> None:
    """Fills a square with a part of an image: averaged where it shrinks, else bilinear.

    Args:
      image: uint8 [height, width, channels]; of one channel also [height, width].
      box: the part.
      square: uint8 [size, size, channels].
    """
    top, left, height, width = box
    part, size = image[top : top + height, left : left + width], len(square)
    shrinks = min(height, width) >= size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    into = square[..., 0] if square.shape[-1] == 1 else square
    cv2.resize(part, (size, size), into, interpolation=method)
