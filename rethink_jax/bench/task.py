"""What both sides of a comparison train: a model, its recipe, and made-up images with random labels."""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rethink_jax import config as config_lib

# The models that `--model` names, as fields of a config.
MODELS: dict[str, dict[str, Any]] = {
    "mlp1": config_lib.NETWORKS["mlp1"],
    "mlp3": config_lib.NETWORKS["mlp3"],
    "small_alexnet": config_lib.NETWORKS["alexnet"],
    "small_inception": config_lib.NETWORKS["inception"],
    "wide_resnet": {"model.name": "wide_resnet"},
    "resnet18": {"model.name": "resnet18"},
}
CLASSES = 10


def image_side(model: str) -> int:
    """Returns the side in pixels of the images that a model is timed on."""
    return 64 if model == "resnet18" else 28


def recipe(model: str, examples: int, batch_size: int, dtype: str) -> ConfigDict:
    """Returns the resolved config of a model's training run."""
    config = config_lib.train("made_up", "true_labels")
    config.update_from_flattened_dict(MODELS[model])
    config.update(batch_size=batch_size, dtype=dtype)
    return config_lib.fill_in(config, examples, image_side(model))


def make(model: str, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images, uint8 [n, side, side, 3], and random labels, int64 [n], equal on both sides."""
    rng, side = np.random.default_rng(0), image_side(model)
    images = rng.integers(0, 256, (examples, side, side, 3), np.uint8)
    return images, rng.integers(0, CLASSES, examples)
