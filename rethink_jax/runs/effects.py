"""Settings that change nothing in a run: it refuses them, and a sweep tells which of its runs ignore them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, corruptions, models
from rethink_jax.data import DatasetInfo, label_files
from rethink_jax.errors import require
from rethink_jax.runs import own_files

_OWNERS = {
    "filters": "random_convolutions",
    "orientations": "gabor",
    "wavelengths": "gabor",
    "pools": "gabor",
}


class Ignored(NamedTuple):
    """A field whose value changes nothing in a run, and what it must be."""

    field: str
    value: Any
    allowed: str


def refuse(path: epath.Path, config: ConfigDict, info: DatasetInfo | None = None) -> None:
    """Raises `UserError` for a new run's first setting that changes nothing; what has begun is left alone.

    Args:
      path: the run's directory.
      config: resolved, where it is a training run's.
      info: of its data set.
    """
    for one in ignored(config, info):
        refuse_one(path, one)


def refuse_one(path: epath.Path, one: Ignored) -> None:
    """Raises `UserError` for a setting that changes nothing in the run of a directory, unless it has begun."""
    require((path / own_files.CONFIG).exists(), *one)


def ignored(config: ConfigDict, info: DatasetInfo | None = None) -> list[Ignored]:
    """Returns a config's settings that change nothing; resolved where it is a training run's."""
    default = config_lib.default_config_for(config)
    unused = []
    for field, is_used, allowed in _uses(config, info):
        value = config_lib.get(config, field)
        if not is_used and value != config_lib.get(default, field):
            unused.append(Ignored(field, value, allowed))
    return unused


def _uses(config: ConfigDict, info: DatasetInfo | None) -> Iterator[tuple[str, bool, str]]:
    """Yields fields, whether a run uses them, and what they must be where it does not."""
    if "corruption" in config:
        name = config.corruption.name
        partial = name in corruptions.PARTIAL
        yield "corruption.probability", partial, f"1.0 or left out for {name}"
        reads_file = name in corruptions.FROM_FILE
        yield "corruption.file", reads_file, f"left out for {name}, which reads no file"
        of_labels = reads_file and label_files.holds_labels(config.corruption.file or "")
        yield "corruption.annotator", of_labels, f"left out for {name} without a file of labels"
    if "model" in config:
        yield from _uses_of_training(config, info)
    if "features" in config:
        name = config.features.name
        for field, owner in _OWNERS.items():
            yield f"features.{field}", name == owner, f"left out for {name}, it is for {owner}"
    if "synthetic" in config:
        synthetic = config.data.name == config_lib.SYNTHETIC
        for field in ("points", "dimension", "classes"):
            allowed = f"left out for {config.data.name}, it is for {config_lib.SYNTHETIC} points"
            yield f"synthetic.{field}", synthetic, allowed
        for field in ("data_dir", "examples", "fake"):
            yield f"data.{field}", not synthetic, f"left out for {config_lib.SYNTHETIC} points"
    if "theorem" in config:
        is_used = config.theorem.construction != "baum"
        for field in ("depth", "evaluate_all_up_to", "sample_size"):
            yield f"theorem.{field}", is_used, "left out for baum, it is for theorem1"


def _uses_of_training(
    config: ConfigDict, info: DatasetInfo | None
) -> Iterator[tuple[str, bool, str]]:
    model, corruption = config.model.name, config.corruption.name
    for field in ("depth", "width", "batch_norm"):
        is_used = field in models.MODELS[model].fields
        yield f"model.{field}", is_used, f"left out for {model}, which does not have it"
    is_gaussian = corruption == "gaussian"
    yield "corruption.per_channel", is_gaussian, f"True for {corruption}, it is for gaussian"
    of_pixels = corruption in (*corruptions.OF_PIXELS, *corruptions.BY_IMAGE)
    yield "corruption.before_crop", of_pixels, f"False for {corruption}, which leaves images alone"
    yield "data.workers", config.data.stream, "left out where data.stream is False"
    if info is not None and not config.data.stream:
        height, width = info.image_shape[:2]
        allowed = f"False for {info.name}'s images of {height}×{width}, of which the model sees all"
        yield "augment.random_crop", (height, width) != 2 * (config.data.size,), allowed
