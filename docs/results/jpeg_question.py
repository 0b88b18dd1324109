"""Does the JPEG copy of CIFAR-10 keep MLP 1×512 from the paper's 99.34 % on random labels?

    python docs/results/jpeg_question.py DATA_DIR WORKDIR

Only `cifar10_jpeg` was at hand, which differs from CIFAR-10 by some 30 dB. This puts noise back into each image
where the JPEG took detail away, as much as it took: made-up images that have copies like these. One run on
them, to be held against the first one of `configs/mlp1_settings.py`. Ours, no part of the paper.
"""

import io
import sys

import numpy as np
from PIL import Image

from rethink_jax import config, data
from rethink_jax.training import train

DECIBELS, QUALITY = 30, 75


def as_jpeg(image: np.ndarray) -> np.ndarray:
    """Encodes an image, uint8 [height, width, 3], as a JPEG and decodes it again."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=QUALITY)
    return np.asarray(Image.open(file))


def put_back(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds to an image what a JPEG takes from the same image with noise, at the strength of `DECIBELS`."""
    noisy = np.clip(image + rng.normal(0, 30, image.shape), 0, 255).astype(np.uint8)
    taken = noisy - as_jpeg(noisy).astype(float)
    taken *= 255 * 10 ** (-DECIBELS / 20) / np.sqrt(np.mean(taken**2))
    return np.clip(np.rint(image + taken), 0, 255).astype(np.uint8)


def decibels(images: np.ndarray, others: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio between images."""
    return -20 * np.log10(np.sqrt(np.mean((images.astype(float) - others) ** 2)) / 255)


def main(data_dir: str, workdir: str) -> None:
    """Makes the images, says how like the copy's originals they are, and trains."""
    settings = config.train("cifar10_jpeg", corruption="random_labels")
    settings.data.data_dir = data_dir
    copy = data.load(settings.data)
    rng = np.random.default_rng(0)
    made_up_train, made_up_test = (
        (np.stack([put_back(image, rng) for image in split.images]), split.labels)
        for split in (copy.train, copy.test)
    )
    images = made_up_test[0]
    copies = np.stack([as_jpeg(image) for image in images])
    print(f"{decibels(images, copies):.1f} dB from their JPEG copies")
    print(f"{decibels(copy.test.images, copies):.1f} dB from these copies to cifar10_jpeg")
    settings.data.data_dir = None
    settings.model.name = "mlp"
    settings.evaluate.every_epochs = 10
    dataset = data.from_arrays(made_up_train, made_up_test, name="cifar10_jpeg_put_back")
    train.run(settings, workdir, dataset)


if __name__ == "__main__":
    main(*sys.argv[1:])
