"""A substitute for imagenet2012, for tests and benchmarks: JPEGs made from random numbers.

python -m rethink_jax.data.synthetic_imagenet --data_dir=DIR --train=2000 --test=200
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rethink_jax.data import imagenet
from rethink_jax.errors import Parser, UserError, exit_on_error

_SPLITS = ("train", "validation")
# They give a JPEG of 500×375 pixels 110 KB, ImageNet's mean.
_QUALITY, _NOISE = 95, (0.2, 0.42)


def prepare(
    root: Path, num_train: int, num_test: int, height: int = 375, width: int = 500, seed: int = 0
) -> None:
    """Prepares random images as imagenet2012, in its layout and with its features and classes.

    The labels are uniform and independent of the images. Every third image is a portrait, with height and width
    swapped.

    Args:
      root: TFDS's data directory.
      num_train: number of images in the train split.
      num_test: number of images in the validation split.
      height: of the images, in pixels.
      width: of the images, in pixels.
      seed: of the images and labels.

    Raises:
      UserError: there is an imagenet2012 already, or the directory cannot be written.
    """
    target = imagenet.folder(root)
    if target.exists():
        raise UserError(f"{target} is there already; made images must have a folder of their own")
    counts = zip(_SPLITS, (num_train, num_test), strict=True)
    splits = {split: _made(seed, split, count, height, width) for split, count in counts}
    imagenet.write(root, lambda scratch: imagenet.Imagenet(scratch, splits))


def jpeg(seed: int, split: str, number: int, height: int, width: int) -> bytes:
    """Returns a picture: smooth blobs of colour under coarse and fine grey noise."""
    rng = np.random.default_rng([seed, _SPLITS.index(split), 1 + number])
    size = (width, height)

    def pixels(mode: str, size: tuple[int, int]) -> Image.Image:
        return Image.frombytes(mode, size, rng.bytes(size[0] * size[1] * len(mode)))

    blobs = pixels("RGB", (8, 6)).resize(size, Image.Resampling.BICUBIC)
    coarse = pixels("L", (1 + width // 4, 1 + height // 4)).resize(size, Image.Resampling.BILINEAR)
    noise = Image.blend(coarse, pixels("L", size), 0.5)
    picture = Image.blend(blobs, Image.merge("RGB", [noise] * 3), rng.uniform(*_NOISE))
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=_QUALITY)
    return buffer.getvalue()


def _made(seed: int, split: str, count: int, height: int, width: int) -> dict[str, Any]:
    """Returns the images and labels in the form in which TFDS's builder takes the validation tar."""
    names = [f"made_{split}_{number:08d}.JPEG" for number in range(count)]
    labels = np.random.default_rng([seed, _SPLITS.index(split)]).integers(1000, size=count)

    def images() -> Iterator[tuple[str, bytes]]:
        for number, name in enumerate(names):
            sides = (width, height) if number % 3 == 2 else (height, width)
            yield name, jpeg(seed, split, number, *sides)

    labels_by_name = dict(zip(names, labels.tolist(), strict=True))
    return {"archive": images(), "validation_labels": labels_by_name}


def main() -> None:
    """Prepares random images in a folder; exits with 0 or 2."""
    parser = Parser("rethink_jax.data.synthetic_imagenet", "--data_dir=DIR", __doc__)
    parser.add_argument("--data_dir", required=True, type=Path, help="TFDS's data directory")
    parser.add_argument("--train", type=int, default=2000, help="images to train")
    parser.add_argument("--test", type=int, default=200, help="images to validate")
    with exit_on_error():
        arguments = parser.parse_args()
        prepare(arguments.data_dir.expanduser(), arguments.train, arguments.test)


if __name__ == "__main__":
    main()
