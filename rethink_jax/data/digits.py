"""The 1,797 handwritten digits that scikit-learn carries, as a TFDS data set."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from rethink_jax.data import tfds_writer

NUM_TRAIN, NUM_TEST = 1_500, 297


class _Info(tfds.core.DatasetInfo):
    """Is not looked for in TFDS's bucket, which has no digits: that leaves a directory in `/tmp` each time."""

    def initialize_from_bucket(self) -> None:
        """Does nothing."""


class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """8×8 digits: scikit-learn's first 1,500 are the train set, its other 297 the test set."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = tfds_writer.NO_CODE_PATH

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            description="scikit-learn's 8x8 digits, their values 0 to 16 scaled to 0 to 255.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_digits.html",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {
            "train": self._generate_examples(0, NUM_TRAIN),
            "test": self._generate_examples(NUM_TRAIN, NUM_TRAIN + NUM_TEST),
        }

    def _generate_examples(self, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
        from sklearn.datasets import load_digits  # slow to import, and only preparing needs it

        bunch = load_digits()
        images = np.round(bunch.images * 255 / 16).astype(np.uint8)
        for key in range(start, stop):
            yield (
                key,
                {"image": tfds_writer.encode_png(images[key]), "label": int(bunch.target[key])},
            )


def prepare(root: Path) -> None:
    """Prepares the digits in TFDS's data directory; `UserError` if it cannot be written."""
    tfds_writer.prepare(
        "digits", root, lambda scratch: Digits(data_dir=scratch, file_format="array_record")
    )
