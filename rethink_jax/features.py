"""What a kernel sees in the place of images: their pixels, or pooled magnitudes of Gabor wavelets (table 3)."""

import itertools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from ml_collections import ConfigDict

from rethink_jax.config import require

Features = Callable[[np.ndarray], np.ndarray]

_BATCH = 500
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def pixels(images: np.ndarray) -> np.ndarray:
    """Returns pixels over 255, float32 [n, features], of images uint8 [n, height, width, channels]."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


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

    Returns:
      A function of images uint8 [n, height, width, channels] to float32 [n, features].
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

    @jax.jit
    def transform(images: jax.Array) -> jax.Array:
        n, height, width = images.shape[:3]
        planes = jnp.moveaxis(images.astype(jnp.float32) / 255, 3, 1).reshape(-1, height, width, 1)
        responses = jnp.concatenate([respond(planes, bank) for bank in banks], axis=-1)
        maps = jnp.moveaxis(responses, 3, 1).reshape(-1, height, width, 1)
        return convolve(maps, window, stride).reshape(n, -1)

    def features(images: np.ndarray) -> np.ndarray:
        # The last batch wraps round to the beginning, so that all have the one compiled shape.
        n, size = len(images), min(_BATCH, len(images))
        batches = [np.arange(start, start + size) % n for start in range(0, n, size)]
        return np.concatenate([np.asarray(transform(images[ids])) for ids in batches])[:n]

    return features


def candidates(config: ConfigDict) -> Iterator[tuple[dict, Features]]:
    """Yields the features that `config.features` lists, each with what tells it from the others."""
    chosen = config.features
    if chosen.name == "pixels":
        yield {}, pixels
        return
    for wavelengths, pool in itertools.product(chosen.wavelengths, chosen.pools):
        own = {"wavelengths": list(wavelengths), "pool": pool}
        yield own, gabor(chosen.orientations, tuple(wavelengths), pool)


def check(config: ConfigDict) -> None:
    """Raises `UserError` for features that there are not."""
    chosen = config.features
    name, orientations = chosen.name, chosen.orientations
    require(name in ("pixels", "gabor"), "features.name", name, "pixels or gabor")
    require(1 <= orientations <= 64, "features.orientations", orientations, "in [1, 64]")

    def all_of(values: object, is_allowed: Callable[[float], bool]) -> bool:
        numbers = list(values) if isinstance(values, list | tuple) else []
        return bool(numbers) and all(isinstance(x, int | float) and is_allowed(x) for x in numbers)

    sets, pools = chosen.wavelengths, chosen.pools
    good = bool(sets) and all(all_of(one, lambda x: 2 <= x <= 256) for one in sets)
    allowed = "tuples of numbers in [2, 256], for example ((4, 8),)"
    require(good, "features.wavelengths", sets, allowed)
    good = all_of(pools, lambda x: type(x) is int and 1 <= x <= 256)
    require(good, "features.pools", pools, "whole numbers in [1, 256]")
