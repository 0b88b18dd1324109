"""Every result in Zhang et al. as data: the tables, the figures' points, the models' sizes.

Accuracies and errors are fractions. What the paper shows only as a curve is marked `READ`: it was read from the
vector figures and is accurate to about the width of a line.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

PRINTED, READ = "printed", "read from a figure"

CIFAR10_TRAIN, CIFAR10_TEST = 50_000, 10_000
IMAGENET_TRAIN, IMAGENET_VALIDATION = 1_281_167, 50_000
STEPS_PER_EPOCH = 391  # the distance of Figure 1a's points

# What the parts of a row's key stand for.
WORDS = {
    "inception": "Inception",
    "inception_nobn": "Inception w/o BatchNorm",
    "alexnet": "AlexNet",
    "mlp3": "MLP 3×512",
    "mlp1": "MLP 1×512",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "true": "true labels",
    "random": "random labels",
    "crop": "random crop",
    "augment": "augmentation",
    "decay": "weight decay",
    "gabor": "Gabor wavelets",
    "l2": "ℓ2 regularization",
}


class Row(NamedTuple):
    """One row of a table, or one curve or point of a figure.

    Attributes:
      where: "Table 1", "Figure 1b" …
      key: of the row; the name of the runs that measure it again.
      label: the key in words.
      flag: `PRINTED` or `READ`.
      values: quantity → number; None where the paper says "failed to converge".
    """

    where: str
    key: str
    label: str
    flag: str
    values: dict[str, float | None]


class Size(NamedTuple):
    """A model's parameters and the examples it is trained on.

    Attributes:
      where: "Table 1", or the authors' talk.
      model: its name.
      data: "CIFAR-10" or "ImageNet".
      parameters: how many, exactly.
      examples: of the training set.
      ratio: parameters over examples, where a rounded number of it is printed.
      flag: `PRINTED` or `READ`.
    """

    where: str
    model: str
    data: str
    parameters: int
    examples: int
    ratio: int | None
    flag: str


class Word(NamedTuple):
    """A part of a row's key: `decay`, or a name with a number behind it, `p0.3`.

    Attributes:
      text: the whole of it.
      name: what comes before the number.
      number: as it is written; None where there is none.
    """

    text: str
    name: str
    number: str | None


def words_of(key: str) -> list[Word]:
    """Returns the words of a row's key, or of a run's name; the first one is the network, or the labels.

    Example:
      >>> words_of("mlp1-p0.3")
      [Word(text='mlp1', name='mlp1', number=None), Word(text='p0.3', name='p', number='0.3')]
    """
    words = []
    for text in key.split("-"):
        match = re.fullmatch(r"(p|[a-z_]+_)(\d+(?:\.\d+)?)", text)
        words.append(Word(text, match[1], match[2]) if match else Word(text, text, None))
    return words


def label(key: str) -> str:
    """Returns a row's key in words: `inception-crop-decay` is "Inception, random crop, weight decay"."""
    return ", ".join(map(_in_words, words_of(key)))


def _in_words(word: Word) -> str:
    if word.name == "p" and word.number:
        return f"p = {word.number}"
    return WORDS.get(word.text, word.text.replace("_", " "))


def _rows(
    where: str,
    flag: str,
    quantities: tuple[str, ...],
    values: Mapping[str, tuple[float | None, ...]],
) -> tuple[Row, ...]:
    """Returns rows whose values are given in the order of the quantities; the last ones may be missing."""
    return tuple(
        Row(where, key, label(key), flag, dict(zip(quantities, numbers, strict=False)))
        for key, numbers in values.items()
    )


TABLE1 = _rows(
    "Table 1",
    PRINTED,
    ("train_accuracy", "test_accuracy"),
    {
        "inception-crop-decay": (1.0, 0.8905),
        "inception-crop": (1.0, 0.8931),
        "inception-decay": (1.0, 0.8603),
        "inception": (1.0, 0.8575),
        "inception-random": (1.0, 0.0978),
        "inception_nobn-decay": (1.0, 0.8300),
        "inception_nobn": (1.0, 0.8200),
        "inception_nobn-random": (1.0, 0.1012),
        "alexnet-crop-decay": (0.9990, 0.8122),
        "alexnet-crop": (0.9982, 0.7966),
        "alexnet-decay": (1.0, 0.7736),
        "alexnet": (1.0, 0.7607),
        "alexnet-random": (0.9982, 0.0986),
        "mlp3-decay": (1.0, 0.5335),
        "mlp3": (1.0, 0.5239),
        "mlp3-random": (1.0, 0.1048),
        "mlp1-decay": (0.9980, 0.5039),
        "mlp1": (1.0, 0.5051),
        "mlp1-random": (0.9934, 0.1061),
    },
)

# ImageNet, Inception V3. The best test accuracies are those in the table's parentheses.
TABLE2 = _rows(
    "Table 2",
    PRINTED,
    (
        *("train_accuracy", "train_top5", "test_accuracy", "test_top5"),
        *("best_test_accuracy", "best_test_top5"),
    ),
    {
        "true-augment-dropout-decay": (0.9218, 0.9921, 0.7784, 0.9392),
        "true-augment": (0.9233, 0.9917, 0.7295, 0.9043),
        "true-decay": (0.9060, 1.0, 0.6718, 0.8644, 0.7257, 0.9131),
        "true": (0.9953, 1.0, 0.5980, 0.8038, 0.6316, 0.8449),
        "random-dropout-decay": (0.9118, 0.9795, 0.0009, 0.0049),
        "random-decay": (0.8781, 0.9615, 0.0012, 0.0050),
        "random": (0.9520, 0.9914, 0.0011, 0.0056),
    },
)
ALEXNET_2012 = Row(
    "Table 2", "alexnet_2012", "AlexNet, 2012, for reference", PRINTED, {"test_top5": 0.836}
)

# Minimum-norm kernel interpolation. The norms are printed as "about".
TABLE3 = _rows(
    "Table 3",
    PRINTED,
    ("test_error", "norm"),
    {
        "mnist": (0.012, 220.0),
        "mnist-gabor": (0.006, 390.0),
        "cifar10": (0.46,),
        "cifar10-random_filters": (0.17,),
        "cifar10-random_filters-l2": (0.15,),
    },
)

# Random labels throughout. With augmentation the accuracy is the mean over an epoch on the augmented images.
TABLE4 = (
    *_rows(
        "Table 4",
        PRINTED,
        ("train_accuracy",),
        {
            "inception-decay": (1.0,),
            "alexnet-decay": (None,),
            "mlp3-decay": (1.0,),
            "mlp1-decay": (0.9921,),
        },
    ),
    *_rows(
        "Table 4",
        PRINTED,
        ("train_accuracy_online",),
        {"inception-crop": (0.9993,), "inception-augment": (0.9928,)},
    ),
)

# The first epoch whose training loss is at most so much.
LOSSES = (1.0, 0.1, 0.01)
FIGURE1A = _rows(
    "Figure 1a",
    READ,
    tuple(f"epochs_to_loss_{loss}" for loss in LOSSES),
    {
        "true_labels": (1, 8, 12),
        "shuffled_pixels": (4, 13, 16),
        "gaussian": (13, 20, 22),
        "random_pixels": (14, 21, 24),
        "random_labels": (26, 35, 37),
    },
)

LEVELS = tuple(tenths / 10 for tenths in range(11))


def _levels(where: str, quantity: str, model: str, values: tuple[float, ...]) -> tuple[Row, ...]:
    rows = {f"{model}-p{level:.1f}": (value,) for level, value in zip(LEVELS, values, strict=True)}
    return _rows(where, READ, (quantity,), rows)


# Inception's epochs are drawn relative to those at p = 0, which are ten.
INCEPTION_EPOCHS_AT_0 = 10
FIGURE1B = (
    *_levels(
        *("Figure 1b", "epochs_to_fit_relative", "inception"),
        (1, 1.6, 1.9, 2.2, 2.4, 2.5, 2.7, 2.9, 3.1, 3.6, 3.6),
    ),
    *_levels(
        *("Figure 1b", "epochs_to_fit", "alexnet"),
        (31, 33, 34, 36, 38, 39, 41, 42, 44, 47, 48),
    ),
    *_levels(
        *("Figure 1b", "epochs_to_fit", "mlp1"),
        (28, 36, 40, 44, 47, 50, 54, 54, 55, 56, 55),
    ),
)

FIGURE1C = (
    *_levels(
        *("Figure 1c", "test_error", "inception"),
        (0.1285, 0.2778, 0.4065, 0.5238, 0.6288, 0.7097, 0.7848, 0.8406, 0.8786, 0.9018, 0.9018),
    ),
    *_levels(
        *("Figure 1c", "test_error", "alexnet"),
        (0.3011, 0.4118, 0.5218, 0.6191, 0.6916, 0.7634, 0.8204, 0.8580, 0.8811, 0.8905, 0.9014),
    ),
    *_levels(
        *("Figure 1c", "test_error", "mlp1"),
        (0.4951, 0.5848, 0.6572, 0.7186, 0.7570, 0.7961, 0.8654, 0.8654, 0.8835, 0.8944, 0.8982),
    ),
)

# ImageNet; the rows are Table 2's.
FIGURE2A = _rows(
    "Figure 2a",
    READ,
    ("test_accuracy", "best_test_accuracy", "best_test_step"),
    {
        "true-augment-dropout-decay": (0.779, 0.779),
        "true-decay": (0.673, 0.727, 2_100_000),
        "true": (0.599, 0.632, 330_000),
    },
)

FIGURE2B = _rows(
    "Figure 2b",
    READ,
    ("test_accuracy", "best_test_accuracy"),
    {"inception": (0.8653, 0.8672), "inception_nobn": (0.8492, 0.8534)},
)


def _sizes(
    where: str, data: str, examples: int, counts: dict[str, tuple[int, int | None]]
) -> tuple[Size, ...]:
    return tuple(
        Size(where, model, data, parameters, examples, ratio, PRINTED)
        for model, (parameters, ratio) in counts.items()
    )


SIZES = (
    *_sizes(
        *("Table 1", "CIFAR-10", CIFAR10_TRAIN),
        {
            "small Inception": (1_649_402, None),
            "small Inception w/o BatchNorm": (1_649_402, None),
            "small AlexNet": (1_387_786, 28),
            "MLP 3×512": (1_735_178, None),
            "MLP 1×512": (1_209_866, 24),
        },
    ),
    *_sizes(
        *("the authors' talk", "ImageNet", IMAGENET_TRAIN),
        {
            "Inception V4": (42_681_353, None),
            "AlexNet": (61_100_840, None),
            "ResNet-18": (11_689_512, None),
            "ResNet-152": (60_192_808, None),
            "VGG-11": (132_863_336, None),
            "VGG-19": (143_667_240, None),
        },
    ),
)

TABLES = (
    *(TABLE1, TABLE2, (ALEXNET_2012,), TABLE3, TABLE4),
    *(FIGURE1A, FIGURE1B, FIGURE1C, FIGURE2A, FIGURE2B),
)


def value(rows: tuple[Row, ...], key: str, quantity: str) -> float:
    """Returns one number.

    Raises:
      KeyError: there is no such row, or the paper has no number there.
    """
    for row in rows:
        number = row.values.get(quantity) if row.key == key else None
        if number is not None:
            return number
    raise KeyError(f"{key} has no {quantity}")


def disagreements() -> list[str]:
    """Returns the places where the paper has two numbers for one thing, a sentence each."""

    def percent(fraction: float) -> str:
        return f"{100 * fraction:.2f} %"

    def accuracy(rows: tuple[Row, ...], key: str) -> str:
        return percent(value(rows, key, "test_accuracy"))

    alexnet = value(FIGURE1C, "alexnet-p0.0", "test_error")
    inception = value(FIGURE1C, "inception-p0.0", "test_error")
    return [
        f"AlexNet on true labels has a test accuracy of {percent(1 - alexnet)} in Figure 1c (p = 0) "
        f"and of {accuracy(TABLE1, 'alexnet')} in Table 1: errors of {percent(alexnet)} and "
        f"{percent(1 - value(TABLE1, 'alexnet', 'test_accuracy'))}.",
        f"Inception without BatchNorm has a test accuracy of "
        f"{accuracy(FIGURE2B, 'inception_nobn')} at the end of Figure 2b and of "
        f"{accuracy(TABLE1, 'inception_nobn')} in Table 1.",
        f"Inception on true labels, with BatchNorm and no regularizer, has a test accuracy of "
        f"{percent(1 - inception)} in Figure 1c (p = 0), {accuracy(FIGURE2B, 'inception')} at the end "
        f"of Figure 2b and {accuracy(TABLE1, 'inception')} in Table 1.",
    ]
