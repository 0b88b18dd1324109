"""The fields of a training run: what each means, its default and what it may hold.

A config is an `ml_collections.ConfigDict`. What the paper prints is the default (section 3, arXiv 1611.03530).
A field whose default is None is left out, or resolved from the model and the data set after the command line is
read; its `unset` says which.
"""

from typing import Any

from ml_collections import ConfigDict

from rethink_jax.config.fields import (
    BELOW_ONE,
    COUNT,
    FLOAT32,
    FRACTION,
    PAPER,
    POSITIVE,
    SEED,
    Allowed,
    Field,
    at_least_one_and_at_most,
    make,
    with_defaults,
    within,
)

# Below this many training examples the paper's schedule, ×0.95 an epoch, has spent its learning rate before
# random labels are fitted: 0.95 an epoch leaves 20 epochs' worth of steps in all. Our choice.
SMALL_SET = 10_000

EXPERIMENT = Field(
    "train",
    "What the command does.",
    in_name=False,
    may_change=True,
    in_report=False,
)
COMPILATION_CACHE = Field(
    None,
    "Folder for compiled programs.",
    kind=str,
    unset="beside the cache of decoded data",
    in_name=False,
    may_change=True,
    in_report=False,
)
GRACE_SECONDS = Field(
    30.0,
    "Seconds from a signal to the end of the process, in which the state is saved.",
    (Allowed("in (0, 86400], a day at most", lambda value: 0 < value <= 86_400),),
    may_change=True,
    in_report=False,
)

# The group that all experiments share.
DATA = {
    "data.name": Field(
        "cifar10",
        "`digits`, a TFDS name, or `image_folder`.",
        origin=PAPER,
        in_report=False,
    ),
    "data.data_dir": Field(
        None,
        "Folder that holds the images or the prepared TFDS data sets.",
        kind=str,
        unset="where TFDS keeps its data sets",
        may_change=True,
        in_report=False,
    ),
    "data.examples": Field(
        None,
        "Training examples that are used, and at most as many test examples.",
        COUNT,
        kind=int,
        unset="all",
        in_report=False,
    ),
    "data.label": Field(
        None,
        "Feature that holds the labels, of a TFDS data set that has several.",
        kind=str,
        unset="the data set's first",
        is_later=True,
    ),
    "data.channels": Field(
        None,
        "Channels that images are converted to, 1 or 3.",
        kind=int,
        unset="as the data set has",
        is_later=True,
    ),
    "data.fake": Field(
        False,
        "Whether random images with random labels stand for the data set's.",
        in_report=False,
    ),
}

CORRUPTION = {
    "corruption.name": Field(
        "true_labels",
        "The corruption, one of those in `rethink_jax/corruptions/`; of labels where no network is trained.",
        in_report=False,
    ),
    "corruption.probability": Field(
        1.0,
        "Probability that `partially_corrupted_labels`, or another corruption that has one, replaces a label.",
        FRACTION,
        in_report=False,
    ),
    "corruption.file": Field(
        None,
        "File of human labels (.npz, .pt); for `transition_labels` of them, or of a matrix (.npy, .csv).",
        kind=str,
        unset="none; other corruptions read no file",
        is_later=True,
        may_change=True,
        in_report=False,
    ),
    "corruption.annotator": Field(
        None,
        "Which labels of the file: `aggregate`, `random1`, `random2`, `random3`, `worst`, or an array's name.",
        kind=str,
        unset="none; a matrix has none",
        is_later=True,
        in_report=False,
    ),
    "corruption.seed": Field(0, "Seed of the corruption alone.", SEED, in_report=False),
}

RANDOM_LABELS = with_defaults(CORRUPTION, corruption__name="random_labels")

# The name of `config.data.name` for random points in place of a data set.
SYNTHETIC = "synthetic"

TRAIN: dict[str, Field] = {
    "experiment": EXPERIMENT,
    "seed": Field(
        0,
        "Seed of initial weights, order, augmentation and dropout.",
        SEED,
        in_report=False,
    ),
    "batch_size": Field(
        128,
        "Examples of a step, over all devices, whose number must divide it.",
        within(1, 2**20),
        PAPER,
    ),
    "epochs": Field(
        None,
        "How long to train.",
        COUNT,
        kind=int,
        unset="80; 600 for at most 10,000 training examples",
        may_change=True,
        in_report=False,
    ),
    "steps": Field(
        None,
        "How long to train, in steps; overrides `epochs`.",
        COUNT,
        kind=int,
        unset="as `epochs` says",
        may_change=True,
        in_report=False,
    ),
    "stop_when_fitted": Field(
        None,
        "Whether training ends as soon as an evaluation shows 100 % training accuracy.",
        kind=bool,
        unset="true for at most 10,000 training examples that are all evaluated, without `stop_at_loss`",
        may_change=True,
    ),
    "stop_at_loss": Field(
        None,
        "Training loss at which, or below which, an evaluation ends the training; with `stop_when_fitted` "
        "whichever comes first does.",
        POSITIVE,
        kind=float,
        unset="no such loss",
        is_later=True,
        may_change=True,
    ),
    "dtype": Field(
        "float32",
        "Type of the computation; parameters are float32.",
        (Allowed("float32 or bfloat16", lambda value: value in ("float32", "bfloat16")),),
        in_report=False,
    ),
    "label_smoothing": Field(
        0.0, "Weight of the uniform distribution in the training targets.", BELOW_ONE
    ),
    **DATA,
    "data.size": Field(
        None,
        "Side of the square that the model sees, in pixels: a crop in memory, after resizing in a stream.",
        COUNT,
        PAPER,
        kind=int,
        unset="28 for images of 32, else the shorter side; in a stream 299 for Inceptions, else 224",
    ),
    "data.stream": Field(
        False, "Whether batches are read from disk as they are needed, for sets larger than memory."
    ),
    "data.workers": Field(
        None,
        "Processes that read and decode a stream; 0 does it in the main process.",
        within(0, 1024),
        kind=int,
        unset="one for each core, 64 at most",
        may_change=True,
        in_report=False,
    ),
    **CORRUPTION,
    "corruption.per_channel": Field(
        True,
        "Whether `gaussian` has mean and variance of each channel, or of all channels together.",
        in_report=False,
    ),
    "corruption.before_crop": Field(
        False,
        "Whether pixels are corrupted before the central crop; with random crops they always are.",
        in_report=False,
    ),
    "augment.random_crop": Field(
        False, "Whether each epoch crops at random instead of at the centre.", origin=PAPER
    ),
    "augment.flip": Field(False, "Whether images are mirrored at random.", origin=PAPER),
    "augment.rotation_degrees": Field(
        0.0, "Largest angle of a random rotation.", within(0, 180), PAPER
    ),
    "augment.color": Field(
        False, "Whether brightness, saturation, hue and contrast are distorted.", origin=PAPER
    ),
    "model.name": Field(
        None,
        "The network; `python -m rethink_jax.models` lists all.",
        kind=str,
        unset="small_inception; mlp for at most 10,000 training examples",
    ),
    "model.depth": Field(
        1, "Hidden layers of `mlp`.", at_least_one_and_at_most(1000), PAPER
    ),  # with more a compilation takes hours
    "model.width": Field(
        512, "Units of each hidden layer of `mlp`.", at_least_one_and_at_most(2**20), PAPER
    ),
    "model.initial_std": Field(
        None,
        "Standard deviation of the initial kernels of `mlp`.",
        (Allowed("in (0, 1]", lambda value: 0 < value <= 1),),
        kind=float,
        unset="LeCun's, √(1 / inputs)",
    ),
    "model.batch_norm": Field(
        True, "Whether `small_inception` has batch normalization.", origin=PAPER
    ),
    "model.dropout": Field(
        0.0, "Rate of dropout before the last layer or the hidden dense layers.", BELOW_ONE, PAPER
    ),
    "model.auxiliary": Field(False, "Whether `inception_v3` has its second classifier."),
    "optimizer.learning_rate": Field(
        None,
        "Learning rate at the first step.",
        POSITIVE + FLOAT32,
        PAPER,
        kind=float,
        unset="0.01 for mlp and small_alexnet, 0.1 for other models",
    ),
    "optimizer.momentum": Field(0.9, "Momentum of SGD.", BELOW_ONE, PAPER),
    "optimizer.schedule": Field(
        "exponential",
        "Whether the rate is multiplied by a factor after each epoch, or falls to 0 along a cosine.",
        (Allowed("exponential or cosine", lambda value: value in ("exponential", "cosine")),),
        PAPER,
    ),
    "optimizer.warmup_epochs": Field(
        0.0,
        "Epochs over which the rate rises linearly from 0; either schedule begins with them, not after them.",
        (Allowed("in [0, 2**31)", lambda value: 0 <= value < 2**31),),
    ),
    "optimizer.decay_per_epoch": Field(
        None,
        "Factor of the rate after each epoch.",
        (Allowed("in (0, 1]", lambda value: 0 < value <= 1), *FLOAT32),
        PAPER,
        kind=float,
        unset="0.95; 1.0 for at most 10,000 training examples (ours) and for a cosine",
    ),
    "optimizer.drop_epochs": Field(
        (),
        "Epochs after each of which the rate is multiplied by 0.1.",
        (
            Allowed(
                "whole numbers in [1, 2**31)",
                lambda value: all(type(epoch) is int and 1 <= epoch < 2**31 for epoch in value),
            ),
        ),
    ),
    "optimizer.weight_decay": Field(
        0.0,
        "Coefficient λ of weight decay; λw is added to the gradient.",
        BELOW_ONE + FLOAT32,
        PAPER,
    ),
    "optimizer.weight_decay_on": Field(
        None,
        "Which weights decay: all, kernels of convolutions and dense layers, or of hidden dense layers.",
        (
            Allowed(
                "all, kernels or hidden_dense",
                lambda value: value in ("all", "kernels", "hidden_dense"),
            ),
        ),
        kind=str,
        unset="hidden_dense for small_alexnet, all for other models",
    ),
    "evaluate.every_epochs": Field(
        1, "Epochs from one evaluation of both splits to the next.", COUNT, may_change=True
    ),
    "evaluate.examples": Field(
        None,
        "Examples of each split that are evaluated, the first by id.",
        COUNT,
        kind=int,
        unset="all",
        is_later=True,
        may_change=True,
    ),
    "records.every_epochs": Field(
        None,
        "Epochs from one record of every example's answer, margin and loss to the next; at evaluations.",
        COUNT,
        kind=int,
        unset="no records",
        is_later=True,
    ),
    "checkpoint.every_epochs": Field(
        10, "Epochs from one checkpoint to the next.", COUNT, may_change=True, in_report=False
    ),
    "checkpoint.every_steps": Field(
        None,
        "Steps from one checkpoint to the next; overrides `checkpoint.every_epochs`.",
        COUNT,
        kind=int,
        unset="as `checkpoint.every_epochs` says",
        may_change=True,
        in_report=False,
    ),
    "checkpoint.keep": Field(
        3, "Checkpoints that are kept, the newest.", COUNT, may_change=True, in_report=False
    ),
    "cpu_devices": Field(
        None,
        "Simulated devices that the cores of a CPU are divided among.",
        within(1, 1024),
        kind=int,
        unset="a resumed run's own; else one for each core where the network has convolutions, and 1 for MLPs",
        in_name=False,
        may_change=True,
        in_report=False,
    ),
    "grace_seconds": GRACE_SECONDS,
    "compilation_cache": COMPILATION_CACHE,
}


def base() -> ConfigDict:
    """Returns the config of one training run, with the paper's values and None where a default is resolved."""
    return make(TRAIN)


def train(data: str, corruption: str, **corruption_fields: Any) -> ConfigDict:
    """Returns a training config for a config file.

    Args:
      data: the data set's name, which is what follows the colon in `--config=FILE:DATA`.
      corruption: one of the six names of `rethink_jax.corruptions`.
      **corruption_fields: further fields of `config.corruption`.

    Example:
      >>> config = train("cifar10", "partially_corrupted_labels", probability=0.3)
      >>> config.model.name, config.epochs = "small_inception", 40
      >>> config.corruption.probability, config.optimizer.momentum
      (0.3, 0.9)
    """
    config = base()
    config.data.name = data
    config.corruption.update(name=corruption, **corruption_fields)
    return config


def get(config: ConfigDict, field: str) -> Any:
    """Returns the value of a flattened field, `model.name` for example."""
    for part in field.split("."):
        config = config[part]
    return config
