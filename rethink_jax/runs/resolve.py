"""The one check of a config, and its defaults filled in, before any data is loaded."""

from ml_collections import ConfigDict

from rethink_jax import config as config_lib, corruptions, data, models
from rethink_jax.data import label_files
from rethink_jax.distributed import parallel
from rethink_jax.errors import require
from rethink_jax.models.inception_v3 import AUXILIARY_SIDE
from rethink_jax.pipeline import inputs, stream


def resolve(
    config: ConfigDict, dataset: data.Dataset | None = None
) -> tuple[ConfigDict, data.DatasetInfo]:
    """Checks a config of any experiment but a sweep, and fills in what depends on the model and the data set.

    Args:
      config: as the command line left it.
      dataset: what is handed over in place of `config.data.name`.

    Returns:
      The resolved config, a copy, and the sizes of its data set.

    Raises:
      UserError: one line that names the field, its value and what is allowed.
    """
    stream.check_main_guard()
    config_lib.check(config)
    check_names(config)
    if "model" not in config:
        info = _describe(config)
        _check_corruption(config, info)
        return ConfigDict(config.copy_and_resolve_references()), info
    _check_batch(config)
    info = _describe(config) if dataset is None else _describe_given(config, dataset)
    height, width, channels = info.image_shape
    resolved = config_lib.fill_in(config, info.num_train, min(height, width))
    resolved.data.name = config.data.name if dataset is None else info.name
    _check_records(resolved)
    _check_model(resolved)
    _check_corruption(resolved, info)
    _check_images(resolved, info.name, min(height, width), channels)
    return resolved, info


def check_names(config: ConfigDict) -> None:
    """Raises `UserError` for a corruption or a model that there is not; only networks see other pixels."""
    has_model = "model" in config
    if "corruption" in config:
        by_image = corruptions.BY_IMAGE
        of_labels = [name for name in corruptions.LABEL_CORRUPTIONS if name not in by_image]
        of_labels = ["true_labels", *of_labels]
        name, names = config.corruption.name, corruptions.CORRUPTIONS if has_model else of_labels
        require(name in names, "corruption.name", name, f"one of {', '.join(names)}")
    if has_model and config.model.name is not None:
        name = config.model.name
        require(name in models.MODELS, "model.name", name, f"one of {', '.join(models.MODELS)}")


def _check_batch(config: ConfigDict) -> None:
    count = len(parallel.devices())
    allowed = f"a multiple of the number of devices, {count}"
    require(config.batch_size % count == 0, "batch_size", config.batch_size, allowed)


def _check_records(config: ConfigDict) -> None:
    every, evaluated = config.records.every_epochs, config.evaluate.every_epochs
    allowed = f"a multiple of config.evaluate.every_epochs, {evaluated}: records are of evaluations"
    is_multiple = every is None or every % evaluated == 0
    require(is_multiple, "records.every_epochs", every, allowed)
    is_reached = every is None or config.steps is not None or every <= config.epochs
    allowed = f"at most config.epochs, {config.epochs}"
    require(is_reached, "records.every_epochs", every, allowed)


def _describe(config: ConfigDict) -> data.DatasetInfo:
    if config.data.name == config_lib.SYNTHETIC and "synthetic" in config:
        points = config.synthetic
        shape = (1, points.dimension, 1)
        return data.DatasetInfo(config_lib.SYNTHETIC, points.points, 0, shape, points.classes)
    return data.describe(config.data)


def _describe_given(config: ConfigDict, dataset: data.Dataset) -> data.DatasetInfo:
    info = data.describe_as_asked(dataset, config.data)
    channels, own = config.data.channels, info.image_shape[-1]
    allowed = f"left out, or {own} as {info.name} has"
    require(channels in (None, own), "data.channels", channels, allowed)
    return info


def _check_model(config: ConfigDict) -> None:
    """Raises `UserError` for what the model does not have."""
    name, model = config.model.name, models.MODELS[config.model.name]
    std = config.model.initial_std
    allowed = f"left out for {name}, which has its own"
    require(std is None or "initial_std" in model.fields, "model.initial_std", std, allowed)
    auxiliary, has_one = config.model.auxiliary, "auxiliary" in model.fields
    allowed = f"False for {name}, which has no second classifier"
    require(has_one or not auxiliary, "model.auxiliary", auxiliary, allowed)
    decayed = config.optimizer.weight_decay_on if config.optimizer.weight_decay else None
    has_layer = decayed != "hidden_dense" or model.hidden_dense
    allowed = f"all or kernels for {name}, which has no hidden dense layer"
    require(has_layer, "optimizer.weight_decay_on", decayed, allowed)


def _check_corruption(config: ConfigDict, info: data.DatasetInfo) -> None:
    """Raises `UserError` for what a corruption of labels needs and the config or the data set does not have."""
    if "corruption" not in config:
        return
    corruption, stream = config.corruption, config.data.get("stream", False)
    name, file, annotator = corruption.name, corruption.file, corruption.annotator
    known = corruptions.ASYMMETRIC_TARGETS
    has_targets = inputs.family(info.name) in known and info.num_classes == 10
    allowed = f"another corruption for {info.name}; asymmetric_labels knows {', '.join(known)}"
    require(name != "asymmetric_labels" or has_targets, "corruption.name", name, allowed)
    allowed = f"another corruption for {info.name} of one class, where there is no other to draw"
    has_others = info.num_classes > 1 or name not in corruptions.TO_OTHERS
    require(has_others, "corruption.name", name, allowed)
    _check_by_image(config, info)
    in_memory = name in ("human_labels", *corruptions.BY_IMAGE)
    require(not (in_memory and stream), "data.stream", stream, f"False for {name}")
    if name in corruptions.FROM_FILE:
        require(bool(file), "corruption.file", file, f"the file of {name}")
        if label_files.holds_labels(file) or name == "human_labels":
            annotators = ", ".join(label_files.ANNOTATORS)
            allowed = f"one of {annotators}, or the name of an array in {file}"
            require(bool(annotator), "corruption.annotator", annotator, allowed)
        if name == "human_labels":
            label_files.read(file, annotator)
        else:
            label_files.transition_matrix(file, annotator, info.num_classes)


def _check_by_image(config: ConfigDict, info: data.DatasetInfo) -> None:
    """Raises `UserError` where images are too large for a corruption that depends on them."""
    name = config.corruption.name
    if name in corruptions.BY_IMAGE:
        is_whole = config.corruption.before_crop or config.augment.random_crop
        height, width = info.image_shape[:2] if is_whole else 2 * (config.data.size,)
        values = height * width * info.image_shape[-1]
        most = corruptions.MOST_VALUES
        allowed = f"another corruption for images of {values:,} values; it takes {most:,} at most"
        require(values <= most, "corruption.name", name, allowed)


def _check_images(config: ConfigDict, data_name: str, side: int, channels: int) -> None:
    """Raises `UserError` for images that are too small, or have too few channels, for what is asked."""
    name, size, model = config.model.name, config.data.size, models.MODELS[config.model.name]
    if not config.data.stream:
        allowed = f"at most {side}, the side of {data_name}'s images"
        require(size <= side, "data.size", size, allowed)
    smallest = model.smallest_side
    require(size >= smallest, "data.size", size, f"{smallest} or more for {name}")
    if config.model.auxiliary:
        allowed = f"{AUXILIARY_SIDE} or more for {name} with model.auxiliary"
        require(size >= AUXILIARY_SIDE, "data.size", size, allowed)
    color = config.augment.color
    allowed = f"False for {config.data.name}'s images, which are not red, green and blue"
    require(not color or channels == 3, "augment.color", color, allowed)
