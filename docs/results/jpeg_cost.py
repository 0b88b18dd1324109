"""What does the JPEG copy of CIFAR-10 cost in test accuracy?

    python docs/results/jpeg_cost.py DATA_DIR WORKDIR

Only `cifar10_jpeg` was available, which is about 30 dB from CIFAR-10. This removes as much detail once
more: it encodes the copy's images at the JPEG quality that leaves 30 dB to the copy, and trains small AlexNet
on both, on true labels of the first 10,000 training images, with three seeds. The difference in test accuracy
estimates what the first encoding cost. Not part of the paper.
"""

import io
import statistics
import sys

import numpy as np
from PIL import Image

from rethink_jax import config, data
from rethink_jax.distributed import parallel
from rethink_jax.training import train

DECIBELS = 30.0
EXAMPLES, SEEDS = 10_000, 3
Pair = tuple[np.ndarray, np.ndarray]


def as_jpeg(images: np.ndarray, quality: int) -> np.ndarray:
    """Encodes images, uint8 [n, height, width, 3], as JPEGs and decodes them again."""

    def one(image: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return np.stack([one(image) for image in images])


def decibels(images: np.ndarray, others: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio between two sets of images."""
    mse = np.mean((images.astype(np.float64) - others) ** 2)
    return float(10 * np.log10(255**2 / mse))


def test_accuracies(name: str, splits: tuple[Pair, Pair], workdir: str) -> list[float]:
    """Trains small AlexNet on true labels, once for each seed, until it fits."""
    accuracies = []
    for seed in range(SEEDS):
        settings = config.train(name, corruption="true_labels")
        settings.model.name = "small_alexnet"
        settings.seed = seed
        dataset = data.from_arrays(*splits, name=name)
        summary = train.run(settings, f"{workdir}/{name}-seed{seed}", dataset)
        accuracies.append(summary["test_accuracy"])
    return accuracies


def main(data_dir: str, workdir: str) -> None:
    """Finds the quality, trains on both sets of images and prints the accuracies."""
    parallel.start_cpu_devices()
    settings = config.train("cifar10_jpeg", corruption="true_labels")
    settings.data.data_dir = data_dir
    copy = data.load(settings.data)
    train_images, train_labels = copy.train.images[:EXAMPLES], copy.train.labels[:EXAMPLES]
    sample = train_images[:1000]
    quality = min(range(5, 75), key=lambda q: abs(decibels(sample, as_jpeg(sample, q)) - DECIBELS))
    once = (train_images, train_labels), (copy.test.images, copy.test.labels)
    twice = (
        (as_jpeg(train_images, quality), train_labels),
        (as_jpeg(copy.test.images, quality), copy.test.labels),
    )
    print(f"quality {quality}: {decibels(train_images, twice[0][0]):.2f} dB to cifar10_jpeg")
    found = {
        name: test_accuracies(name, splits, workdir)
        for name, splits in (("cifar10_jpeg", once), ("cifar10_jpeg_twice", twice))
    }
    for name, accuracies in found.items():
        shown = ", ".join(f"{accuracy:.2%}" for accuracy in accuracies)
        print(f"{name}: {shown}; mean {statistics.mean(accuracies):.2%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
