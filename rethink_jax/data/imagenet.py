"""`python -m rethink_jax.data.imagenet`: TFDS's imagenet2012 from the official tars, without TensorFlow.

The disk of `--data_dir` needs as much free space as the two tars take, 155 GB, and the machine 2 GB of memory.
TFDS puts the records into 1,000 files by their keys' hashes, sorts and writes one after the other, and removes
each as soon as it is read. The unlabelled test images are left out.
"""

import io
import os
import resource
import shutil
import sys
import tarfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO
from unittest import mock

import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.datasets.imagenet2012 import imagenet2012_dataset_builder as official

from rethink_jax import output, paper
from rethink_jax.data import tfds_writer
from rethink_jax.errors import Parser, UserError, exit_on_error, one_line

NAME = "imagenet2012"
TARS = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
_TFDS_FOLDER = tfds.core.tfds_path("datasets/imagenet2012")
_NOT_RGB_JPEG = {*official.CMYK_IMAGES, *official.PNG_IMAGES}
# What TFDS's shuffler uses of TensorFlow where the records are more than 1,000 MiB.
_PLAIN_FILES = SimpleNamespace(
    io=SimpleNamespace(
        gfile=SimpleNamespace(GFile=open, exists=os.path.exists, remove=os.remove),
    ),
    errors=SimpleNamespace(ResourceExhaustedError=()),
)


class Imagenet(official.Builder, skip_registration=True):  # type: ignore[call-arg]
    """TFDS's imagenet2012, built from given images."""

    name = NAME
    code_path = tfds_writer.NO_CODE_PATH
    pkg_dir_path = _TFDS_FOLDER  # with the description

    def __init__(self, data_dir: Path, splits: dict[str, dict[str, Any]]) -> None:
        """Takes, for each split, the arguments of TFDS's `_generate_examples`."""
        super().__init__(data_dir=data_dir, file_format="array_record")
        self._splits = splits

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {split: self._generate_examples(**given) for split, given in self._splits.items()}

    def _fix_image(self, image_fname: str, image: BinaryIO) -> BinaryIO:
        if image_fname not in _NOT_RGB_JPEG:
            return image
        buffer = io.BytesIO()
        with Image.open(image) as opened:
            opened.convert("RGB").save(buffer, "jpeg", quality=100)  # TFDS's quality
        buffer.seek(0)
        return buffer


def folder(root: Path) -> Path:
    """Returns where imagenet2012 lies in TFDS's data directory."""
    return root / NAME / str(Imagenet.VERSION)


def write(root: Path, build: Callable[[Path], Imagenet]) -> None:
    """Prepares imagenet2012 in TFDS's data directory; `build` as in `tfds_writer.prepare`.

    Raises:
      UserError: the directory cannot be written.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = shuffle.BUCKETS_NUMBER + 1000  # the shuffler's files are all open at once
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, hard)), hard))
    with mock.patch.object(shuffle, "tf", _PLAIN_FILES):
        tfds_writer.prepare(NAME, root, build)


def prepare(manual_dir: Path, root: Path) -> None:
    """Prepares imagenet2012 from the official tars.

    Args:
      manual_dir: the folder of the tars.
      root: TFDS's data directory.

    Raises:
      UserError: a tar is missing or damaged; the directory cannot be written or is too small.
    """
    tars = _find_tars(manual_dir)
    size = sum(tar.stat().st_size for tar in tars.values())

    def build(scratch: Path) -> Imagenet:
        free = shutil.disk_usage(scratch).free
        if free < size:
            has, needs = (f"{count / 1e9:,.1f} GB" for count in (free, size))
            raise UserError(f"--data_dir is {str(root)!r}, with {has} free; it must have {needs}")
        if sys.stderr.isatty():  # it takes long, and `tfds_writer.prepare` turns the bars off
            tfds.enable_progress_bar()
        return Imagenet(scratch, _splits(tars))

    try:
        write(root, build)
    except tarfile.TarError as error:
        raise UserError(f"a tar in {manual_dir} is damaged: {one_line(error)}") from error
    except RuntimeError as error:  # array_record's, where the disk is full
        raise UserError(f"{NAME} cannot be prepared in {root}: {one_line(error)}") from error


def _find_tars(manual_dir: Path) -> dict[str, Path]:
    """Returns the tars by split; `UserError` if one is missing or obviously truncated."""
    tars = {split: manual_dir / name for split, name in TARS.items()}
    if missing := [tar.name for tar in tars.values() if not tar.is_file()]:
        raise UserError(
            f"--manual_dir is {str(manual_dir)!r}; it must be a folder with image-net.org's "
            f"{' and '.join(TARS.values())}, and it has no {' and no '.join(missing)}"
        )
    for tar in tars.values():
        with tar.open("rb") as file:
            file.seek(max(tar.stat().st_size - 1024, 0))
            # Python does not notice a tar that is cut between two files.
            if not tarfile.is_tarfile(tar) or any(file.read()):
                raise UserError(f"{tar} is no tar, or cut short: a tar ends with 1,024 zeros")
    return tars


def _splits(tars: dict[str, Path]) -> dict[str, dict[str, Any]]:
    classes = (_TFDS_FOLDER / "labels.txt").read_text().split()
    labels = _validation_labels()
    train = _members(tars["train"], {f"{name}.tar" for name in classes})
    validation = _members(tars["validation"], labels)
    return {
        "train": {"archive": train},
        "validation": {"archive": validation, "validation_labels": labels},
    }


def _members(tar: Path, allowed: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
    with tar.open("rb") as file:
        for name, member in tfds.download.iter_archive(file, tfds.download.ExtractMethod.TAR):
            if name not in allowed:
                raise UserError(f"{tar} holds {name!r}, which image-net.org's {tar.name} does not")
            yield name, member


def _validation_labels() -> dict[str, str]:
    """Returns image → class. TFDS relies on the images' order, which is wrong if one is missing."""
    labels = (_TFDS_FOLDER / "validation_labels.txt").read_text().split()
    return {
        f"ILSVRC2012_val_{number:08d}.JPEG": name for number, name in enumerate(labels, start=1)
    }


def _run(argv: list[str] | None) -> str:
    """Runs the command line and returns a line that says what is prepared."""
    required = "--manual_dir=DIR --data_dir=DIR"
    parser = Parser("rethink_jax.data.imagenet", required, __doc__)
    for name, text in (
        ("--manual_dir", f"the folder with {' and '.join(TARS.values())}"),
        ("--data_dir", "TFDS's data directory, to prepare it in"),
    ):
        parser.add_argument(name, required=True, type=Path, metavar="DIR", help=text)
    arguments = parser.parse_args(argv)
    manual_dir, root = arguments.manual_dir.expanduser(), arguments.data_dir.expanduser()
    target = folder(root)
    if (target / "dataset_info.json").exists():
        return f"{target} is there already"
    if target.exists():
        raise UserError(f"{target} is in the way: it holds no whole data set")
    prepare(manual_dir, root)
    splits = tfds.builder_from_directory(target).info.splits
    counts = [splits[split].num_examples for split in TARS]
    line = "{} is prepared: {:,} images to train and {:,} to validate".format(target, *counts)
    whole = [paper.IMAGENET_TRAIN, paper.IMAGENET_VALIDATION]
    if counts != whole:
        line += "; all of ImageNet are {:,} and {:,}".format(*whole)
    return line


def main(argv: list[str] | None = None) -> None:
    """Prepares imagenet2012; exits with 0, 1 or 2."""
    with exit_on_error(OSError):
        print(_run(argv))


if __name__ == "__main__":
    output.drop_what_cannot_be_written()
    main()
