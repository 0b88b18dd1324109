"""The defaults that depend on the model and the data set; how many steps a run takes."""

import math

from ml_collections import ConfigDict

from rethink_jax.config.base import SMALL_SET, get
from rethink_jax.errors import require


def fill_in(config: ConfigDict, num_train: int, image_side: int) -> ConfigDict:
    """Returns a copy in which every default that depends on the model or the data set has its value.

    | field | up to 10,000 training examples (ours) | more |
    |---|---|---|
    | `model.name` | `mlp` | `small_inception`, figure 1a's |
    | `epochs` | 600 | 80 (ours) |
    | `stop_when_fitted` | true | false |
    | `optimizer.decay_per_epoch` | 1.0 | 0.95 (paper); 1.0 for `cosine` |

    `stop_when_fitted` is false where there is a `stop_at_loss`. `optimizer.learning_rate` is 0.01 for MLPs and
    small AlexNet and 0.1 for the others (paper); `data.size` is 28 for images of 32 (paper) and otherwise the
    whole image's shorter side; for streams 299 for the Inceptions and 224 for the others (their papers).

    Args:
      config: a config as the command line left it.
      num_train: the number of training examples.
      image_side: the shorter side of the images, in pixels.
    """
    config = ConfigDict(config.copy_and_resolve_references())
    small, cosine = num_train <= SMALL_SET, config.optimizer.schedule == "cosine"
    model = config.model.name or ("mlp" if small else "small_inception")
    side = default_size(image_side)
    if config.data.stream:
        side = 299 if model.startswith("inception_") else 224
    defaults = {
        "model.name": model,
        "epochs": 600 if small else 80,
        "stop_when_fitted": small
        and (config.evaluate.examples, config.stop_at_loss) == (None, None),
        "data.size": side,
        "optimizer.learning_rate": 0.01 if model in ("mlp", "small_alexnet") else 0.1,
        "optimizer.decay_per_epoch": 1.0 if small or cosine else 0.95,
        "optimizer.weight_decay_on": "hidden_dense" if model == "small_alexnet" else "all",
    }
    config.update_from_flattened_dict(
        {field: value for field, value in defaults.items() if get(config, field) is None}
    )
    part = config.evaluate.examples is not None and config.evaluate.examples < num_train
    allowed = "False where config.evaluate.examples leaves out training examples"
    require(not (part and config.stop_when_fitted), "stop_when_fitted", True, allowed)
    loss, allowed = config.stop_at_loss, allowed.replace("False", "left out")
    require(not part or loss is None, "stop_at_loss", loss, allowed)
    if config.steps is None:  # steps are counted in 32 bits
        most = (2**31 - 1) // steps_per_epoch(config, num_train)
        allowed = (
            f"at most {most}, as {num_train} examples in batches of {config.batch_size} make steps"
        )
        require(config.epochs <= most, "epochs", config.epochs, allowed)
    return config


def default_size(image_side: int) -> int:
    """Returns the side of the square that is cut out of images in memory: 28 for images of 32 (paper)."""
    return 28 if image_side == 32 else image_side


def steps_per_epoch(config: ConfigDict, num_train: int) -> int:
    """Returns the batches of an epoch, the last and smaller one included: 391 for CIFAR-10 at 128."""
    return math.ceil(num_train / config.batch_size)


def total_steps(config: ConfigDict, num_train: int) -> int:
    """Returns the steps of the whole run: `config.steps` where it is set, else `config.epochs` epochs."""
    return config.steps or config.epochs * steps_per_epoch(config, num_train)
