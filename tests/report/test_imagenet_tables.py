"""The reports of Table 2 and Figure 2a, on runs written by hand."""

import html
import re

import pytest
from matplotlib.figure import Figure

from rethink_jax import config as config_lib, paper
from rethink_jax.report import contents, figures
from rethink_jax.report.runs import read_sweep
from tests.report.helpers import accuracies, markdown_row, record, rows_of_csv, write_sweep


def on_imagenet(row, examples=1_281_167, **fields):
    """The config of a run of Table 2, and on how many examples it was."""
    config = config_lib.imagenet("imagenet2012", "true_labels")
    config.update_from_flattened_dict(config_lib.imagenet_entry(row)["fields"] | fields)
    return {"config": config_lib.fill_in(config, examples, 375), "num_train": examples}


def top5(train, test, best, best_top5):
    return {"train_top5": train, "test_top5": test} | {
        "best_test_accuracy": best,
        "best_test_top5": best_top5,
    }


@pytest.fixture
def table2(tmp_path):
    """Four runs: with the paper's best, without, on random labels, and a failed one."""
    runs = {
        "true-decay": accuracies(0.9, 0.675) | top5(0.99, 0.875, 0.725, 0.9),
        "true-augment": accuracies(0.92, 0.72) | top5(0.99, 0.9, 0.73, 0.91),
        "random": accuracies(0.95, 0.001, 0.0012) | top5(0.99, 0.005, 0.0015, 0.006),
    }
    finished = [
        (row, 0, "finished", summary | on_imagenet(row), {}) for row, summary in runs.items()
    ]
    return write_sweep(tmp_path / "table2", "table2", [*finished, ("true", 0, "failed", None, {})])


def test_table2_has_the_best_in_parentheses(table2):
    contents.write(table2)
    beside = (f"{x} (%): ours | paper | difference" for x in ("training top-1", "training top-5"))
    tested = (f"test top-{k}, true labels (%): ours | paper | difference" for k in (1, 5))
    assert markdown_row(table2, "row") == (
        f"| row | {' | '.join([*beside, *tested])} | test top-1, corrupted labels (%) | seeds |"
    )
    for label, rest in {
        "true labels, weight decay": "90.00 | 90.60 | −0.60 | 99.00 | 100.00 | −1.00 "
        "| 67.50 (72.50) | 67.18 (72.57) | +0.32 (−0.07) "
        "| 87.50 (90.00) | 86.44 (91.31) | +1.06 (−1.31) | — | 1 |",
        "true labels, augmentation": "92.00 | 92.33 | −0.33 | 99.00 | 99.17 | −0.17 "
        "| 72.00 (73.00) | 72.95 | −0.95 | 90.00 (91.00) | 90.43 | −0.43 | — | 1 |",
        "random labels": "95.00 | 95.20 | −0.20 | 99.00 | 99.14 | −0.14 "
        "| 0.10 (0.15) | 0.11 | −0.01 | 0.50 (0.60) | 0.56 | −0.06 | 0.12 | 1 |",
        "true labels": "failed | 99.53 | — | — | 100.00 | — "
        "| — | 59.80 (63.16) | — | — | 80.38 (84.49) | — | — | 0 |",
    }.items():
        assert markdown_row(table2, label) == f"| {label} | {rest}"


def test_table2_tells_data_recipe_and_reference(table2):
    contents.write(table2)
    text = (table2 / "report" / "report.md").read_text()
    assert "test top-5 of 83.60 %" in text
    assert "96.15 % is with weight decay alone" in text
    assert "it is chosen on the test set" in text
    assert not re.search("made-up|on other or on fewer ones", text, re.IGNORECASE)
    assert markdown_row(table2, "true labels, weight decay", 1) == (
        "| true labels, weight decay | finished | imagenet2012, 1,281,167 examples "
        "| 2 × NVIDIA H200 | bfloat16 | 4 | nothing | 100 |"
    )


def test_csv_has_the_best_in_lines_of_their_own(table2):
    contents.write(table2)
    found = {(line["row"], line["quantity"]): line for line in rows_of_csv(table2)}
    assert len(found) == 7 * 7
    line = found["true-decay", "best_test_top5"]
    assert (line["mean"], line["paper"], line["difference"]) == ("0.9", "0.9131", "-0.0131")
    assert found["true-augment", "best_test_top5"]["paper"] == ""


def test_a_changed_recipe_on_imagenet_is_told(tmp_path):
    fields = {"data.size": 128, "batch_size": 256, "data.workers": 3}
    summary = accuracies(0.9, 0.5) | on_imagenet("true-decay", 10_000, **fields)
    path = write_sweep(tmp_path / "sweep", "table2", [("true-decay", 0, "finished", summary, {})])
    contents.write(path)
    assert "| batch_size 256, size 128 | 100 |" in markdown_row(
        path, "true labels, weight decay", 1
    )
    text = (path / "report" / "report.md").read_text()
    assert "all 1,281,167 training images of ImageNet" in text


def test_figure2a(tmp_path):
    row = "true-decay"
    history = [record(1, 1.0, 0.75), record(2, 0.5, 0.5)]
    summary = accuracies(1.0, 0.5) | {"best_test_accuracy": 0.75, "best_test_epoch": 1.0}
    summary |= on_imagenet(row) | {"history": history}
    path = write_sweep(tmp_path / "figure", "figure2a", [(row, 0, "finished", summary, {})])
    contents.write(path)
    assert markdown_row(path, "true labels, weight decay") == (
        "| true labels, weight decay | 50.00 | 67.30 | −17.30 | 75.00 | 72.70 | +2.30 | 1 | 100.00 | 1 |"
    )
    assert (
        "The paper's best came at steps 2,100,000 (true labels, weight decay) and 330,000 (true labels), of "
        "batches whose size it does not print"
    ) in (path / "report" / "report.md").read_text()
    figure = Figure()
    figures.figure2(figure, read_sweep(path), paper.FIGURE2A)
    drawn = [
        (line.get_marker(), *map(list, line.get_data()))
        for line in figure.axes[0].lines
        if len(line.get_xdata())
    ]
    assert drawn == [
        ("None", [391, 782], [75.0, 50.0]),
        ("*", [391], [75.0]),
        *(
            (marker, [782], [100 * row.values[quantity]])
            for row in paper.FIGURE2A
            for marker, quantity in (("o", "test_accuracy"), ("*", "best_test_accuracy"))
        ),
    ]


def test_made_up_data_are_told_first(tmp_path):
    smoke = {"data.fake": True, "data.size": 75, "batch_size": 16}
    summary = accuracies(0.5, 0.1) | on_imagenet("true", 64, **smoke)
    runs = [("true", 0, "finished", summary, {}), ("random", 0, "failed", None, {})]
    path = write_sweep(tmp_path / "sweep", "table2", runs, "smoke")
    contents.write(path)
    title = "Zhang et al. 2017, table2, smoke, made-up data: ours beside the paper's"
    lines = (path / "report" / "report.md").read_text().splitlines()
    assert lines[0] == f"# {title}"
    assert lines[2].startswith("Made-up data: all finished runs had random images")
    assert f"<title>{html.escape(title)}</title>" in (path / "report" / "report.html").read_text()
    assert "| finished | made-up imagenet2012, 64 examples |" in markdown_row(
        path, "true labels", 1
    )
    assert rows_of_csv(path)[3 * 7]["data"] == "made-up imagenet2012, 64 examples"
