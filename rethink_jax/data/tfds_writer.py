"""Prepares a data set as array_record where TFDS looks for it, without TensorFlow."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from rethink_jax.data import atomic_dir
from rethink_jax.errors import UserError

WAYS_ON = (
    "point config.data.data_dir at a folder where it is prepared, or use the embedded data set: "
    "--config=FILE:digits"
)
# TFDS looks for checksums in a builder's `code_path`, with a package on which it does not depend
# (importlib_resources).
NO_CODE_PATH = None


_PLACES = (
    "name folders that can be written: config.data.data_dir or TFDS_DATA_DIR for data sets, "
    "RETHINK_JAX_CACHE for the cache"
)


def prepare(name: str, root: Path, build: Callable[[Path], tfds.core.DatasetBuilder]) -> None:
    """Prepares a data set in a scratch folder and renames it when it is complete.

    Nothing half-done can thus be taken for the data set. Of several processes that start at once, the first to
    finish wins, and the others use what it left.

    Args:
      name: the data set's name, for the error.
      root: TFDS's data directory; created if it is missing.
      build: scratch folder → a builder whose data directory it is.

    Raises:
      UserError: the directory cannot be written.
    """
    tfds.disable_progress_bar()
    try:
        with atomic_dir.create(root) as folder:
            builder = build(folder)
            config = tfds.download.DownloadConfig(try_download_gcs=False)
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS reports by print
                builder.download_and_prepare(download_config=config)
            prepared = Path(builder.data_dir)
            atomic_dir.publish(prepared, root / prepared.relative_to(folder))
    except OSError as error:
        raise UserError(f"{name} cannot be prepared in {root}: {error}; {_PLACES}") from error


def encode_png(pixels: np.ndarray) -> bytes:
    """Returns uint8 pixels [height, width] or [height, width, 3] as a PNG.

    TFDS encodes arrays too, but with TensorFlow.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()
