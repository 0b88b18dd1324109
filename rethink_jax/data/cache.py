"""Decoded data sets on disk: one folder a data set, one `.npy` an array."""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rethink_jax.data.examples import Dataset, DatasetInfo, Examples, Source

logger = logging.getLogger(__name__)

FORMAT = 1


def load(source: Source, decode: Callable[[Source], Dataset]) -> Dataset:
    """Returns `decode(source)`, from the cache where it is there and whole, and leaves it there.

    A cache that is broken is rebuilt, one that cannot be written is done without; both are logged.
    """
    name = re.sub(r"[^\w.-]", "-", source.info.name)
    folder = _root() / f"{name}-{source.version}-{_digest(source)}"
    if folder.exists():
        try:
            return _read(folder, source.info)
        except (OSError, ValueError, EOFError) as error:
            logger.info("rebuilding the cached arrays in %s: %s", folder, error)
    dataset = decode(source)
    try:
        _write(folder, dataset)
    except OSError as error:
        logger.warning("going on without a cache of decoded arrays: %s", error)
    return dataset


def _root() -> Path:
    if own := os.environ.get("RETHINK_JAX_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rethink_jax"


def _digest(source: Source) -> str:
    """Returns what changes when the files are written again: a stale cache is never found."""
    files = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in source.files]
    return hashlib.sha256(json.dumps([_description(source.info), files]).encode()).hexdigest()[:16]


def _description(info: DatasetInfo) -> dict[str, Any]:
    return {"format": FORMAT, **asdict(info), "image_shape": list(info.image_shape)}


def _read(folder: Path, info: DatasetInfo) -> Dataset:
    if json.loads((folder / "info.json").read_text()) != _description(info):
        raise ValueError("another format")

    def read(split: str, count: int) -> Examples:
        examples = Examples(*(np.load(folder / f"{split}_{part}.npy") for part in Examples._fields))
        if examples.images.shape != (count, *info.image_shape) or examples.labels.shape != (count,):
            raise ValueError(f"another shape of {split}")
        return examples

    return Dataset(info, read("train", info.num_train), read("test", info.num_test))


def _write(folder: Path, dataset: Dataset) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="incomplete-", dir=folder.parent) as scratch:
        new = Path(scratch, folder.name)
        new.mkdir()
        for split, examples in (("train", dataset.train), ("test", dataset.test)):
            for part, array in examples._asdict().items():
                np.save(new / f"{split}_{part}.npy", array)
        (new / "info.json").write_text(json.dumps(_description(dataset.info)))
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
