"""The features that a kernel sees of images: pixels, pooled Gabor magnitudes or a random convolutional net."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from ml_collections import ConfigDict

from rethink_jax.distributed import parallel
from rethink_jax.errors import UserError

Show = Callable[[float], None]


class Features(NamedTuple):
    """A map from images to feature vectors, computed in parts: all of a random net's do not fit into memory.

    Attributes:
      parts: into how many parts the features are divided.
      compute: function `(images, part, num_train, show) -> features`. Images are uint8 [n, height, width,
        channels], the first `num_train` of them the training set's; the part is in [0, parts). It returns that
        part of all images' features, float32 [n, d], and calls `show` with the fraction done.
    """

    parts: int
    compute: Callable[[np.ndarray, int, int, Show], np.ndarray]


_BATCH = 500
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def pixels() -> Features:
    """Returns the pixels over 255.

    Example:
      >>> features, images = pixels(), np.full((3, 8, 8, 1), 255, np.uint8)
      >>> values = features.compute(images, 0, len(images), lambda fraction: None)
      >>> values.shape, float(values.max())
      ((3, 64), 1.0)
    """

    def compute(images: np.ndarray, part: int, num_train: int, show: Show) -> np.ndarray:
        return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)

    return Features(1, compute)


def gabor_wavelets(orientations: int, wavelength: float) -> np.ndarray:
    """Returns one wavelength's Gabor wavelets: a plane wave in each orientation under a round Gaussian.

    The Gaussian's standard deviation is half the wavelength, the mean of the real part is taken away. The paper
    prints no parameters of its wavelets.

    Args:
      orientations: how many, evenly over half a turn.
      wavelength: in pixels.

    Returns:
      complex128 [orientations, side, side].
    """
    reach = math.ceil(1.25 * wavelength)
    y, x = np.meshgrid(*2 * [np.arange(-reach, reach + 1)], indexing="ij")
    window = np.exp(-(x**2 + y**2) / (2 * (wavelength / 2) ** 2))
    window /= window.sum()
    angles = np.pi * np.arange(orientations) / orientations
    along = x * np.cos(angles)[:, None, None] + y * np.sin(angles)[:, None, None]
    waves = window * np.exp(2j * np.pi * along / wavelength)
    return waves - window * waves.real.sum(axis=(1, 2), keepdims=True)


def gabor(orientations: int, wavelengths: tuple[float, ...], pool: int) -> Features:
    """Returns Gabor features: magnitudes of the wavelets' responses, averaged in overlapping windows.

    Args:
      orientations: of the wavelets.
      wavelengths: of the wavelets, in pixels.
      pool: side of the pooling window, a Gaussian of a quarter of it; windows lie half a side apart.
    """
    stride = max(1, pool // 2)
    offsets = np.arange(pool) - (pool - 1) / 2
    weights = np.exp(-(offsets**2) / (2 * (pool / 4) ** 2))
    weights /= weights.sum()
    window = np.outer(weights, weights).astype(np.float32)[:, :, None, None]
    banks = [gabor_wavelets(orientations, wavelength) for wavelength in wavelengths]

    def convolve(images: jax.Array, kernels: np.ndarray, stride: int = 1) -> jax.Array:
        return lax.conv_general_dilated(
            images,
            jnp.asarray(kernels, jnp.float32),
            2 * (stride,),
            "SAME",
            dimension_numbers=_LAYOUT,
        )

    def respond(plane: jax.Array, bank: np.ndarray) -> jax.Array:
        kernels = bank.transpose(1, 2, 0)[:, :, None]
        real, imaginary = convolve(plane, kernels.real), convolve(plane, kernels.imag)
        return jnp.sqrt(jnp.square(real) + jnp.square(imaginary))

    def transform(images: jax.Array) -> jax.Array:
        n, height, width = images.shape[:3]
        planes = jnp.moveaxis(images.astype(jnp.float32) / 255, 3, 1).reshape(-1, height, width, 1)
        responses = jnp.concatenate([respond(planes, bank) for bank in banks], axis=-1)
        maps = jnp.moveaxis(responses, 3, 1).reshape(-1, height, width, 1)
        return convolve(maps, window, stride).reshape(n, -1)

    mapped = parallel.map_over_devices(transform, (0,), sharded_output=True)

    def compute(images: np.ndarray, part: int, num_train: int, show: Show) -> np.ndarray:
        return _in_batches(mapped, images, show)

    return Features(1, compute)


# Ours where the paper is silent: a common form of the net of Coates and Ng (2012), with random filters.
_PATCH = 6
_OFFSET = 0.25
_CONTRAST = 10.0  # on pixels of 0 to 255
_WHITENING = 0.1
_PATCHES = 100_000
_FILTERS_PER_PART = 250


def random_convolutions(filters: int, seed: int, images: np.ndarray) -> Features:
    """Returns the features of a convolutional net of one layer whose filters are random patches of the images.

    Patches of 6×6 pixels are brought to mean 0 and variance 1 and whitened (ZCA); each is multiplied with every
    filter, a patch of unit length; z becomes max(z − 0.25, 0) and max(−z − 0.25, 0), which are summed over
    2×2 windows that meet in the middle, and brought to mean 0 and variance 1 on the training set.

    Args:
      filters: how many; each gives 8 features.
      seed: of the patches.
      images: the training set's, uint8 [n, height, width, channels], height and width of 7 at least.
    """
    project, shift = _random_filters(filters, seed, images)
    # On CPUs so few that responses stay in a cache.
    together = 2 if jax.default_backend() == "cpu" else 50

    def respond(images: jax.Array, project: jax.Array, shift: jax.Array) -> jax.Array:
        patches = _patches(images)
        responses = patches.reshape(-1, patches.shape[-1]) @ project - shift[None]
        return _rectify_and_pool(responses.reshape(*patches.shape[:3], -1))

    def transform(images: jax.Array, project: jax.Array, shift: jax.Array) -> jax.Array:
        grouped = images.reshape(-1, math.gcd(together, len(images)), *images.shape[1:])
        pooled = lax.map(lambda group: respond(group, project, shift), grouped)
        return pooled.reshape(len(images), -1)

    mapped = parallel.map_over_devices(transform, (0,), sharded_output=True)

    def compute(images: np.ndarray, part: int, num_train: int, show: Show) -> np.ndarray:
        some = slice(part * _FILTERS_PER_PART, (part + 1) * _FILTERS_PER_PART)
        weights = parallel.replicate((project[:, some], shift[some]))
        values = _in_batches(lambda batch: mapped(batch, *weights), images, show)
        train = values[:num_train]
        mean = train.mean(axis=0, dtype=np.float64)
        squares = np.einsum("ij,ij->j", train, train, dtype=np.float64) / num_train
        std = np.sqrt(np.maximum(squares - mean**2, 0))
        values -= mean.astype(np.float32)
        # A feature that is the same on all training images stays 0.
        values /= np.where(std > 1e-4 * np.sqrt(squares), std, np.inf).astype(np.float32)
        return values

    return Features(-(-filters // _FILTERS_PER_PART), compute)


def _random_filters(filters: int, seed: int, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns float32 [patch, filters] and [filters]: a patch times the first, less the second, is whitened."""
    rng, (n, height, width) = np.random.default_rng(seed), images.shape[:3]
    count = max(_PATCHES, filters)
    which = rng.integers(n, size=count)
    top, left = (rng.integers(side - _PATCH + 1, size=count) for side in (height, width))
    cut = np.arange(_PATCH)
    drawn = images[
        which[:, None, None], (top[:, None] + cut)[:, :, None], (left[:, None] + cut)[:, None]
    ]
    patches = np.asarray(jax.jit(_patches)(drawn))[:, 0, 0].astype(np.float64)
    mean = patches.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(patches.T))
    whiten = (vectors / np.sqrt(np.maximum(values, 0) + _WHITENING)) @ vectors.T
    chosen = (patches[:filters] - mean) @ whiten
    chosen /= np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-6)
    project = whiten @ chosen.T
    return project.astype(np.float32), (mean @ project).astype(np.float32)


def _patches(images: jax.Array) -> jax.Array:
    """Returns all patches with mean 0 and variance 1, float32 [n, height − 5, width − 5, patch]."""
    x = images.astype(jnp.float32)
    height, width = (side - _PATCH + 1 for side in x.shape[1:3])
    shifted = [
        x[:, i : i + height, j : j + width] for i, j in itertools.product(range(_PATCH), repeat=2)
    ]
    patches = jnp.concatenate(shifted, axis=-1)
    patches -= patches.mean(axis=-1, keepdims=True)
    return patches / jnp.sqrt(jnp.square(patches).mean(axis=-1, keepdims=True) + _CONTRAST)


def _rectify_and_pool(responses: jax.Array) -> jax.Array:
    """Returns both signs' sums over 2×2 windows of responses [n, height, width, filters], [n, features]."""
    both = [jnp.maximum(sign * responses - _OFFSET, 0) for sign in (1, -1)]
    pooled = jnp.stack(both, axis=3)
    for axis in (1, 2):
        side = responses.shape[axis]
        halves = slice(0, -(-side // 2)), slice(side // 2, side)
        first, second = (
            lax.slice_in_dim(pooled, half.start, half.stop, axis=axis).sum(axis=axis, keepdims=True)
            for half in halves
        )
        pooled = jnp.concatenate([first, second], axis=axis)
    return pooled.reshape(len(responses), -1)


def _in_batches(mapped: Callable, images: np.ndarray, show: Show) -> np.ndarray:
    """Calls a mapped function on batches of images, of equal size, so that it is compiled once."""
    devices = len(parallel.devices())
    size = -(-min(_BATCH, len(images)) // devices) * devices
    batches = []
    for start in range(0, len(images), size):
        # The last batch wraps round to the beginning.
        ids = np.arange(start, start + size) % len(images)
        values = np.asarray(mapped(parallel.local_shards(images[ids])))
        batches.append(values.reshape(size, -1))
        show(min(1.0, (start + size) / len(images)))
    return np.concatenate(batches)[: len(images)]


def candidates(config: ConfigDict, images: np.ndarray) -> Iterator[tuple[dict[str, Any], Features]]:
    """Yields the features that `config.features` lists, each with the fields that identify it.

    Args:
      config: the whole of it.
      images: the training set's, from which random convolutions take their filters.
    """
    chosen = config.features
    if chosen.name == "pixels":
        yield {}, pixels()
    elif chosen.name == "random_convolutions":
        yield {}, random_convolutions(chosen.filters, config.seed, images)
    else:
        for wavelengths, pool in itertools.product(chosen.wavelengths, chosen.pools):
            own = {"wavelengths": list(wavelengths), "pool": pool}
            yield own, gabor(chosen.orientations, tuple(wavelengths), pool)


def check_images(config: ConfigDict, image_shape: tuple[int, ...]) -> None:
    """Raises `UserError` for images [height, width, channels] that are too small for the features."""
    height, width = image_shape[:2]
    if config.features.name == "random_convolutions" and min(height, width) <= _PATCH:
        raise UserError(
            f"config.features.name is 'random_convolutions', which need images of {_PATCH + 1} pixels a side "
            f"at least; those of {config.data.name} are {height}×{width}"
        )
