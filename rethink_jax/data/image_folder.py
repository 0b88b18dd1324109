"""A folder of class folders as a data set: `config.data.name = "image_folder"`."""

import functools
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from rethink_jax.data.source import DatasetInfo, EncodedSplit, Source, first_image_shape
from rethink_jax.errors import UserError

logger = logging.getLogger(__name__)

NAME = "image_folder"
_TESTS = ("test", "val", "valid", "validation")
_LAYOUT = (
    "it must hold train/CLASS/* and test/CLASS/* (or val, valid or validation), or CLASS/* alone"
)
_MODES_OF_GREY = ("1", "L", "LA")
_SUFFIXES = {
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm"),
    *(".tif", ".tiff", ".webp"),
}
# What desktop systems leave beside images, apart from hidden files.
_OF_THE_SYSTEM = {"thumbs.db", "desktop.ini", "__macosx"}


# Why something is passed over: in the singular and in the plural.
_PLURALS = {
    "file of another kind": "files of other kinds",
    "unreadable file": "unreadable files",
    "broken link": "broken links",
    "link to a folder above it": "links to a folder above it",
    "image outside of class folders": "images outside of class folders",
    "class folder without images": "class folders without images",
    "folder beside train/ and test/": "folders beside train/ and test/",
}


@dataclass
class _Ignored:
    """What was passed over in class folders: how many of each kind, and the first one."""

    passed_over: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def pass_over(self, kind: str, name: str) -> None:
        self.passed_over[kind] += 1
        self.first.setdefault(kind, name)


def open_source(data_dir: str, channels: int | None = None, tell: bool = False) -> Source:
    """Opens `DIR/train/CLASS/**` and `DIR/test/CLASS/**`, or `DIR/CLASS/**` alone.

    In the second case every sixth file of each class is a test example. val/, valid/ or validation/ may replace
    test/. Classes are numbered in the order of their names; ids follow the relative paths.

    Args:
      data_dir: the folder.
      channels: to which images are converted; None for those that all images have.
      tell: whether to log what was found and what was passed over.

    Raises:
      UserError: the folder is missing or has another layout, fewer than two classes, classes that look alike,
        both grey and coloured images, an empty split, or a broken first image.
    """
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise _error(data_dir, "it must be a folder of class folders")
    ignored, train, test = _splits(root, data_dir)
    for split, files in (("train", train), ("test", test)):
        if not files and (train or test):
            raise _error(data_dir, f"it has no {split} images")
    classes = _classes(train, data_dir)
    if strange := sorted({name for name, _ in test} - {*classes}):
        raise _error(data_dir, f"classes of its test images have no training images: {strange}")
    splits = [_split(root, files, classes) for files in (train, test)]
    paths = [file for _, file in train + test]
    if channels is None:
        stats = ((file, file.stat()) for file in paths)
        versions = tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)
        channels = _channels(versions, root, data_dir)
    shape = first_image_shape(splits[0], channels)
    info = DatasetInfo(NAME, len(train), len(test), shape, len(classes))
    if tell:
        counts = f"{len(train):,} training and {len(test):,} test images"
        logger.info("%s: %d classes, %s%s", NAME, len(classes), counts, _passed_over(ignored))
    return Source(info, "folder", paths, *splits)


def _error(data_dir: str, what: str) -> UserError:
    return UserError(f"config.data.data_dir is {data_dir!r}; {what}")


Labelled = tuple[str, Path]  # a class and one of its images


def _splits(root: Path, data_dir: str) -> tuple[_Ignored, list[Labelled], list[Labelled]]:
    """Returns what was passed over in a folder, its training images and its test images."""
    ignored = _Ignored()
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and _shows(entry))
    tests = [name for name in _TESTS if name in folders]
    if "train" in folders and tests:
        for name in {*folders} - {"train", tests[0]}:
            ignored.pass_over("folder beside train/ and test/", f"{name}/")
        return ignored, _labelled(root / "train", ignored), _labelled(root / tests[0], ignored)
    if folders and all(_is_of_a_split(name) for name in folders):
        raise _error(data_dir, f"it has {', '.join(f'{name}/' for name in folders)}; {_LAYOUT}")
    files = _labelled(root, ignored)
    by_class: dict[str, list[Path]] = {}
    for name, file in files:
        by_class.setdefault(name, []).append(file)
    if len(by_class) < 2:
        also = _passed_over(ignored)
        raise _error(
            data_dir,
            f"it must hold 2 or more class folders with files, and it has {len(by_class)}, in itself or in "
            f"train/ and test/{also}",
        )
    test = {file for members in by_class.values() for file in members[5::6]}
    train = [pair for pair in files if pair[1] not in test]
    return ignored, train, [pair for pair in files if pair[1] in test]


def _is_of_a_split(name: str) -> bool:
    return name.lower().startswith(("train", "test", "val", "eval", "dev")) and (
        name.lower().rstrip("0123456789_- ")
        in {"train", "training", "testing", "eval", "dev", *_TESTS}
    )


def _labelled(folder: Path, ignored: _Ignored) -> list[Labelled]:
    """Returns the images below a folder's class folders, in the order of their paths."""
    labelled: list[Labelled] = []
    for entry in sorted(folder.iterdir()):
        if not _shows(entry):
            continue
        if not entry.is_dir():
            is_image = entry.suffix.lower() in _SUFFIXES and entry.exists()
            kind = "image outside of class folders" if is_image else _kind(entry)
            ignored.pass_over(kind or "file of another kind", entry.name)
            continue
        files = [file for file in _walk(entry, ignored, ()) if _is_taken(file, ignored)]
        if not files:
            ignored.pass_over("class folder without images", f"{entry.name}/")
        labelled += [(entry.name, file) for file in sorted(files)]
    return labelled


def _walk(folder: Path, ignored: _Ignored, above: tuple[str, ...]) -> Iterator[Path]:
    """Yields the files below a folder, following links to folders but no loops."""
    try:
        entries, real = [*folder.iterdir()], os.path.realpath(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror or error}") from error
    if real in above:
        ignored.pass_over("link to a folder above it", folder.name)
        return
    for entry in filter(_shows, entries):
        if entry.is_dir():
            yield from _walk(entry, ignored, (*above, real))
        else:
            yield entry


def _shows(entry: Path) -> bool:
    return not entry.name.startswith(".") and entry.name.lower() not in _OF_THE_SYSTEM


def _is_taken(file: Path, ignored: _Ignored) -> bool:
    kind = _kind(file)
    if kind:
        ignored.pass_over(kind, file.name)
    return not kind


def _kind(file: Path) -> str | None:
    """Returns why a file is passed over; None for an image."""
    if not file.exists():
        return "broken link"
    if not file.is_file():
        return "file of another kind"
    if not os.access(file, os.R_OK):
        return "unreadable file"
    if file.suffix.lower() in _SUFFIXES or _mode(file):
        return None
    return "file of another kind"


def _passed_over(ignored: _Ignored) -> str:
    """Returns what was passed over, in words, with an example of each kind."""
    if not ignored.passed_over:
        return ""
    words = [
        f"{count:,} {kind} ({ignored.first[kind]})"
        if count == 1
        else f"{count:,} {_PLURALS[kind]} ({ignored.first[kind]}, …)"
        for kind, count in ignored.passed_over.items()
    ]
    return f"; passed over: {', '.join(words)}"


def _classes(train: Sequence[Labelled], data_dir: str) -> list[str]:
    """Returns the classes' names in order; refuses fewer than two and names that look alike."""
    classes = sorted({name for name, _ in train})
    if len(classes) < 2:
        raise _error(
            data_dir,
            f"it must hold 2 or more class folders with files, and it has {len(classes)} in train/",
        )
    by_folded_name: dict[str, str] = {}
    for name in classes:
        other = by_folded_name.setdefault(
            unicodedata.normalize("NFC", name).casefold().strip(), name
        )
        if other != name:
            raise _error(data_dir, f"its classes {other!r} and {name!r} differ only by case")
    return classes


def _split(root: Path, files: Sequence[Labelled], classes: Sequence[str]) -> EncodedSplit:
    number_of = {name: number for number, name in enumerate(classes)}
    return EncodedSplit(
        count=len(files),
        fetch=lambda positions: [files[position] for position in positions],
        parse=lambda pair: (pair[1].read_bytes(), number_of[pair[0]]),
        where=lambda position: f"{files[position][1].relative_to(root)} in {root}",
        label=lambda pair: number_of[pair[0]],
    )


@functools.lru_cache(maxsize=1)  # a run asks more than once
def _channels(files: tuple[tuple[Path, int, int], ...], root: Path, data_dir: str) -> int:
    """Returns 1 if all images are grey, 3 if all are coloured; ignores broken ones."""
    first: dict[int, Path] = {}
    for file, _, _ in files:
        if mode := _mode(file):
            first.setdefault(1 if mode in _MODES_OF_GREY or mode[0] in "IF" else 3, file)
        if len(first) == 2:
            grey, coloured = (first[count].relative_to(root) for count in (1, 3))
            raise _error(
                data_dir,
                f"{grey} is grey and {coloured} has colours; set config.data.channels to 1 or 3, "
                "which converts all images",
            )
    return next(iter(first), 3)


def _mode(file: Path) -> str | None:
    """Returns Pillow's mode of an image; None if it is none."""
    try:
        with Image.open(file) as image:
            return image.mode
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
