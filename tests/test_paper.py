import re
import sys
from pathlib import Path

import pytest

from rethink_jax import paper

TABLE1_KEYS = [
    "inception-crop-decay",
    "inception-crop",
    "inception-decay",
    "inception",
    "inception-random",
    "inception_nobn-decay",
    "inception_nobn",
    "inception_nobn-random",
    "alexnet-crop-decay",
    "alexnet-crop",
    "alexnet-decay",
    "alexnet",
    "alexnet-random",
    "mlp3-decay",
    "mlp3",
    "mlp3-random",
    "mlp1-decay",
    "mlp1",
    "mlp1-random",
]
TABLE4_KEYS = [
    "inception-decay",
    "alexnet-decay",
    "mlp3-decay",
    "mlp1-decay",
    "inception-crop",
    "inception-augment",
]
TABLE2_KEYS = [
    "true-augment-dropout-decay",
    "true-augment",
    "true-decay",
    "true",
    "random-dropout-decay",
    "random-decay",
    "random",
]
LEVEL_KEYS = [f"{m}-p{i / 10}" for m in ("inception", "alexnet", "mlp1") for i in range(11)]


@pytest.mark.parametrize(
    ("rows", "keys"),
    [
        (paper.TABLE1, TABLE1_KEYS),
        (paper.TABLE2, TABLE2_KEYS),
        (paper.TABLE4, TABLE4_KEYS),
        (
            paper.FIGURE1A,
            ["true_labels", "shuffled_pixels", "gaussian", "random_pixels", "random_labels"],
        ),
        (paper.FIGURE1B, LEVEL_KEYS),
        (paper.FIGURE1C, LEVEL_KEYS),
        (paper.FIGURE2A, ["true-augment-dropout-decay", "true-decay", "true"]),
        (paper.FIGURE2B, ["inception", "inception_nobn"]),
    ],
)
def test_rows_are_in_the_papers_order(rows, keys):
    assert [row.key for row in rows] == keys


def test_numbers_of_rows():
    assert [len(rows) for rows in paper.TABLES] == [19, 7, 1, 5, 6, 5, 33, 33, 3, 2]
    assert len(paper.SIZES) == 11


@pytest.mark.parametrize("rows", paper.TABLES, ids=lambda rows: rows[0].where)
def test_numbers_are_of_their_kind(rows):
    assert len({row.where for row in rows}) == 1
    for row in rows:
        assert row.flag == (paper.PRINTED if row.where.startswith("Table") else paper.READ)
        for quantity, number in row.values.items():
            if number is None:
                assert (row.where, row.key) == ("Table 4", "alexnet-decay")
            elif "epochs" in quantity or quantity in ("norm", "best_test_step"):
                assert number >= 1
            else:
                assert 0 <= number <= 1


@pytest.mark.parametrize(
    ("rows", "key", "quantity", "number"),
    [
        (paper.TABLE1, "inception-crop", "test_accuracy", 0.8931),
        (paper.TABLE1, "alexnet-crop", "train_accuracy", 0.9982),
        (paper.TABLE1, "mlp1-random", "train_accuracy", 0.9934),
        (paper.TABLE1, "mlp1-random", "test_accuracy", 0.1061),
        (paper.TABLE2, "true", "best_test_accuracy", 0.6316),
        (paper.TABLE2, "random-decay", "train_top5", 0.9615),
        (paper.TABLE3, "cifar10-random_filters", "test_error", 0.17),
        (paper.TABLE4, "mlp1-decay", "train_accuracy", 0.9921),
        (paper.TABLE4, "inception-augment", "train_accuracy_online", 0.9928),
        (paper.FIGURE1A, "random_labels", "epochs_to_loss_0.1", 35),
        (paper.FIGURE1A, "gaussian", "epochs_to_loss_0.01", 22),
        (paper.FIGURE1B, "inception-p0.3", "epochs_to_fit_relative", 2.2),
        (paper.FIGURE1B, "mlp1-p1.0", "epochs_to_fit", 55),
        (paper.FIGURE1C, "alexnet-p0.5", "test_error", 0.7634),
        (paper.FIGURE2A, "true-decay", "best_test_step", 2.1e6),
        (paper.FIGURE2B, "inception_nobn", "best_test_accuracy", 0.8534),
    ],
)
def test_a_few_numbers(rows, key, quantity, number):
    assert paper.value(rows, key, quantity) == number


def test_what_did_not_converge_has_no_number():
    with pytest.raises(KeyError, match="alexnet-decay has no train_accuracy"):
        paper.value(paper.TABLE4, "alexnet-decay", "train_accuracy")


def test_printed_ratios_are_the_rounded_ones():
    printed = {size.model: size.ratio for size in paper.SIZES if size.ratio}
    assert printed == {"small AlexNet": 28, "MLP 1×512": 24}
    for size in paper.SIZES:
        if size.ratio:
            assert round(size.parameters / size.examples) == size.ratio


def test_labels():
    assert paper.label("inception-crop-decay") == "Inception, random crop, weight decay"
    assert paper.label("mlp1-p0.3") == "MLP 1×512, p = 0.3"
    assert paper.label("shuffled_pixels") == "shuffled pixels"
    assert paper.label("mlp1-64") == "MLP 1×512, 64"
    assert paper.label("true-augment-dropout-decay") == (
        "true labels, augmentation, dropout, weight decay"
    )


def test_disagreements():
    numbers = [re.findall(r"\d+\.\d+(?= %)", sentence) for sentence in paper.disagreements()]
    assert numbers == [
        ["69.89", "76.07", "30.11", "23.93"],
        ["84.92", "82.00"],
        ["87.15", "86.53", "85.75"],
    ]


def test_imports_nobody():
    lines = Path(sys.modules["rethink_jax.paper"].__file__).read_text().splitlines()
    imports = [line for line in lines if line.startswith(("import", "from"))]
    assert [line.split()[1] for line in imports] == ["re", "collections.abc", "typing"]
