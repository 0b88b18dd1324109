"""Rows of a data set's images with words below them."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure


class Row(NamedTuple):
    """Images side by side.

    Attributes:
      title: at the left.
      images: uint8 [n, height, width, channels]; of one channel grey, of three colours.
      words: below each image.
    """

    title: str
    images: np.ndarray
    words: list[str]


def fill(figure: Figure, rows: list[Row]) -> None:
    """Draws the rows on an empty figure, as many images wide as the longest."""
    figure.set_layout_engine("none")
    titles, width = 0.24, max(len(row.images) for row in rows)
    for place, row in enumerate(rows):
        height = 1 / len(rows)
        bottom = 1 - (place + 1) * height
        for column, (image, word) in enumerate(zip(row.images, row.words, strict=True)):
            left = titles + (1 - titles) * column / width
            axes = figure.add_axes(
                (left, bottom + 0.22 * height, 0.96 * (1 - titles) / width, 0.76 * height)
            )
            axes.imshow(_with_colours(image), interpolation="nearest")
            axes.set_axis_off()
            axes.text(0.5, -0.04, word, transform=axes.transAxes, ha="center", va="top", fontsize=6)
        figure.text(0.005, bottom + 0.6 * height, row.title, va="center", fontsize=7)


def _with_colours(image: np.ndarray) -> np.ndarray:
    return np.broadcast_to(image, (*image.shape[:2], 3))
