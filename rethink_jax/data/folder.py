"""A folder of class folders as a data set: `config.data.name = "image_folder"`."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from rethink_jax.config import UserError
from rethink_jax.data.examples import DatasetInfo, Source, Split, first_image_shape

NAME = "image_folder"
_MODES_OF_GREY = ("1", "L", "LA")


def open_source(data_dir: str) -> Source:
    """Opens `DIR/train/CLASS/*` and `DIR/test/CLASS/*`, or `DIR/CLASS/*` alone.

    In the second case every sixth file of each class is a test example. Classes are numbered in the
    order of their names, ids follow the relative paths. Only the first image is read.

    Raises:
      UserError: no such folder, fewer than two classes, an empty split, a broken first image.
    """
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise UserError(
            f"config.data.data_dir is {data_dir!r}; it must be a folder of class folders"
        )
    train, test = _files(root)
    classes = sorted({file.parent.name for file in train + test})
    if len(classes) < 2:
        raise UserError(
            f"config.data.data_dir is {data_dir!r}; it must hold 2 or more class folders with "
            f"files, and it has {len(classes)}, in itself or in train/ and test/"
        )
    for split, files in (("train", train), ("test", test)):
        if not files:
            raise UserError(f"config.data.data_dir is {data_dir!r}; it has no {split} images")
    train_split, test_split = _split(root, train, classes), _split(root, test, classes)
    shape = first_image_shape(train_split, _channels(train[0]))
    info = DatasetInfo(NAME, len(train), len(test), shape, len(classes))
    return Source(info, "folder", train + test, train_split, test_split)


def _files(root: Path) -> tuple[list[Path], list[Path]]:
    if (root / "train").is_dir() and (root / "test").is_dir():
        return _in_order(root / "train"), _in_order(root / "test")
    files = _in_order(root)
    by_class: dict[str, list[Path]] = {}
    for file in files:
        by_class.setdefault(file.parent.name, []).append(file)
    test = {file for members in by_class.values() for file in members[5::6]}
    return [file for file in files if file not in test], [file for file in files if file in test]


def _in_order(folder: Path) -> list[Path]:
    files = (file for file in folder.glob("*/*") if file.is_file())
    visible = (file for file in files if not file.relative_to(folder).as_posix().startswith("."))
    # Desktop systems leave .DS_Store and its like beside the images.
    return sorted(file for file in visible if not file.name.startswith("."))


def _split(root: Path, files: Sequence[Path], classes: Sequence[str]) -> Split:
    return Split(
        count=len(files),
        fetch=lambda positions: [files[position] for position in positions],
        parse=lambda file: (file.read_bytes(), classes.index(file.parent.name)),
        where=lambda position: f"{files[position].relative_to(root)} in {root}",
        label=lambda file: classes.index(file.parent.name),
    )


def _channels(file: Path) -> int:
    try:
        with Image.open(file) as image:
            return 1 if image.mode in _MODES_OF_GREY else 3
    except OSError:
        return 3  # reading it again, as record 0, says what is wrong with it
