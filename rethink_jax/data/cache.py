"""Decoded data sets on disk: one folder a data set, one `.npy` an array, their SHA-256 in `info.json`."""

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rethink_jax.data import atomic_dir
from rethink_jax.data.source import Dataset, DatasetInfo, Examples, Source, relative_names
from rethink_jax.errors import UserError

logger = logging.getLogger(__name__)

FORMAT = 4
SPLITS, ARRAYS = ("train", "test"), ("images", "labels", "own_ids")


def load(source: Source, decode: Callable[[Source], Dataset]) -> Dataset:
    """Returns `decode(source)`, from the cache if it is there and intact, and caches it otherwise.

    A damaged cache is rebuilt. If the cache cannot be written, the run continues without it. Both are logged.
    """
    name = re.sub(r"[^\w.-]", "-", source.info.name)
    folder = root() / f"{name}-{source.version}-{_digest(source)}"
    if folder.exists():
        try:
            return _read(folder, source.info)
        except (OSError, ValueError) as error:
            logger.info("rebuilding the cached arrays in %s: %s", folder, error)
    dataset = decode(source)
    try:
        _write(folder, dataset)
    except OSError as error:
        logger.warning("continuing without a cache of decoded arrays: %s", error)
    return dataset


def root() -> Path:
    """Returns the user's folder for what can be recomputed: decoded arrays, compiled programs."""
    if own := os.environ.get("RETHINK_JAX_CACHE"):
        return Path(own).expanduser()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rethink_jax"
    except RuntimeError as error:
        raise UserError(f"{error} Name a folder for the cache in RETHINK_JAX_CACHE.") from error


def _digest(source: Source) -> str:
    """Returns a digest of the files' names and contents. Swapped files can keep their sizes and times."""
    state = hashlib.sha256(json.dumps(_description(source.info)).encode())
    for name, file in zip(relative_names(source.files), source.files, strict=True):
        state.update(json.dumps([name, _sha256(file)]).encode())
    return state.hexdigest()[:16]


def _description(info: DatasetInfo) -> dict[str, Any]:
    return {"format": FORMAT, **asdict(info), "image_shape": list(info.image_shape)}


def _read(folder: Path, info: DatasetInfo) -> Dataset:
    noted = (folder / "info.json").read_text()
    digests = _digests(folder)
    # Own ids alone may be missing.
    if missing := {*_names(("images", "labels"))} - {*digests}:
        raise ValueError(f"{', '.join(sorted(missing))} is missing")
    for file, digest in digests.items():
        if digest not in noted:
            raise ValueError(f"{file} has another SHA-256 than info.json says")
    if noted != _noted(info, digests):
        raise ValueError("info.json is not as it was written")
    arrays = {file: np.load(folder / file, allow_pickle=False) for file in digests}
    train, test = (
        Examples(images, labels, arrays.get(f"{split}_own_ids.npy"))
        for split in SPLITS
        for images, labels in [(arrays[f"{split}_images.npy"], arrays[f"{split}_labels.npy"])]
    )
    return Dataset(info, train, test)


def _noted(info: DatasetInfo, digests: dict[str, str]) -> str:
    return json.dumps(_description(info) | {"sha256": digests})


def _digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of whole files, so that a damaged header is noticed before NumPy parses it."""
    return {name: _sha256(folder / name) for name in _names(ARRAYS) if (folder / name).exists()}


def _names(arrays: Sequence[str]) -> list[str]:
    return [f"{split}_{array}.npy" for split in SPLITS for array in arrays]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(folder: Path, dataset: Dataset) -> None:
    with atomic_dir.create(folder.parent) as temporary:
        new = temporary / "new"
        new.mkdir()
        for file, array in zip(_names(ARRAYS), (*dataset.train, *dataset.test), strict=True):
            if array is not None:
                np.save(new / file, array)
        (new / "info.json").write_text(_noted(dataset.info, _digests(new)))
        with contextlib.suppress(FileNotFoundError):
            folder.rename(temporary / "replaced")
        atomic_dir.publish(new, folder)
