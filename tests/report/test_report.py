"""The report of a sweep, on runs written by hand."""

import json
import re
from html.parser import HTMLParser

import pytest

from rethink_jax import config as config_lib
from rethink_jax.report import contents, runs
from rethink_jax.report.catalog import SPECIFICATIONS
from rethink_jax.sweeps import estimates
from tests.report.helpers import CONFIG, accuracies, markdown_row, record, rows_of_csv, write_sweep


def test_table1_row_by_row(table1):
    contents.write(table1)
    assert markdown_row(table1, "row") == (
        "| row | training accuracy (%): ours | paper | difference "
        "| test accuracy, true labels (%): ours | paper | difference "
        "| test accuracy, corrupted labels (%) | seeds |"
    )
    for label, rest in {
        # t(0.975, 2) = 4.3027; 98.5 ± 4.3027 · 0.5 / √3
        "MLP 1×512, random labels": "98.50 ± 0.50 [97.26, 99.74] | 99.34 | −0.84 "
        "| 10.00 ± 0.00 [10.00, 10.00] | 10.61 | −0.61 | 11.00 ± 0.00 [11.00, 11.00] | 3 |",
        "MLP 3×512": "100.00 | 100.00 | +0.00 | 53.00 | 52.39 | +0.61 | — | 1 |",
        "MLP 1×512": "99.94 | 100.00 | −0.06 | 51.07 | 50.51 | +0.56 | — | 1 of 2 |",
        "AlexNet": "failed | 100.00 | — | — | 76.07 | — | — | 0 |",
        "Inception": "stopped | 100.00 | — | — | 85.75 | — | — | 0 |",
        "MLP 3×512, random labels": "not run | 100.00 | — | — | 10.48 | — | — | 0 |",
        "AlexNet, weight decay": "not run | 100.00 | — | — | 77.36 | — | — | 0 |",
    }.items():
        assert markdown_row(table1, label) == f"| {label} | {rest}"


def test_how_rows_were_measured(table1):
    contents.write(table1)
    assert markdown_row(table1, "MLP 1×512, random labels", 1) == (
        "| MLP 1×512, random labels | finished | cifar10_jpeg, 50,000 examples | 2 × NVIDIA H200 "
        "| float32, products in TF32 where the GPU has it | 4 | nothing | 300 |"
    )
    assert markdown_row(table1, "MLP 1×512", 1) == (
        "| MLP 1×512 | 1 finished, 1 failed | cifar10_jpeg, 50,000 examples | 2 × NVIDIA H200 "
        "| float32, products in TF32 where the GPU has it | 4 | nothing | 100 |"
    )
    assert markdown_row(table1, "AlexNet", 1) == "| AlexNet | failed | — | — | — | — | — | — |"
    text = (table1 / "report" / "report.md").read_text()
    assert "9 runs: 5 finished, 2 failed, 1 stopped, 1 not run." in text
    assert "Of 19 rows 3 have a finished run" in text
    assert "5 of the runs: revision 01234567, JAX 0.10.2, Python 3.11.7, gpu, Linux." in text
    assert "lossy JPEG" in text
    assert "on other or on fewer ones" not in text


def test_a_changed_recipe_is_told(table1):
    place = table1 / "mlp3-seed0" / "config.json"
    config = json.loads(place.read_text())
    config["batch_size"] = 64
    config["model"]["depth"] = 3
    config["optimizer"] |= {"decay_per_epoch": 0.97, "drop_epochs": [3, 4]}
    place.write_text(json.dumps(config))
    contents.write(table1)
    row = markdown_row(table1, "MLP 3×512", 1)
    assert "| 4 | batch_size 64, decay_per_epoch 0.97, drop_epochs (3, 4) | 100 |" in row


def test_rows_that_the_paper_has_not_come_last(tmp_path):
    runs = [("mlp1-batch64", 0, "finished", accuracies(0.5, 0.25), {})]
    contents.write(write_sweep(tmp_path / "sweep", "table1", runs))
    assert markdown_row(tmp_path / "sweep", "MLP 1×512, batch64") == (
        "| MLP 1×512, batch64 | 50.00 | — | — | 25.00 | — | — | 1 |"
    )


def test_table4(tmp_path):
    divergence = {"expect_divergence": True, "diverged": True}
    online = {"history": [record(4, 0.1, train_accuracy_online=0.875)]}
    runs = [
        ("alexnet-decay", 0, "failed", accuracies(0.1, 0.1), divergence),
        ("inception-crop", 0, "finished", accuracies(0.75, 0.1) | online, {}),
        ("mlp3-decay", 0, "failed", None, {"expect_divergence": True}),
    ]
    contents.write(write_sweep(tmp_path / "table4", "table4", runs))
    for label, rest in {
        "AlexNet, weight decay": "diverged, as the paper's did | failed to converge | — | — | — | — | — | 0 |",
        "Inception, random crop": "75.00 | — | — | 87.50 | 99.93 | −12.43 | 10.00 | 1 |",
        "MLP 3×512, weight decay": "failed | 100.00 | — | — | — | — | — | 0 |",
        "MLP 1×512, weight decay": "not run | 99.21 | — | — | — | — | — | 0 |",
    }.items():
        assert markdown_row(tmp_path / "table4", label) == f"| {label} | {rest}"


def test_figure1a(tmp_path):
    losses = {"true_labels": (0.9, 0.1, 0.01), "random_labels": (2.0, 1.5, 0.9)}
    runs = []
    for row, values in losses.items():
        history = [record(i + 1, loss) for i, loss in enumerate(values)]
        summary = accuracies(1.0, 0.5) | {"history": history, "epochs": 3.0}
        runs.append((row, 0, "finished", summary, {}))
    path = write_sweep(tmp_path / "figure", "figure1a", runs, "small")
    contents.write(path)
    assert markdown_row(path, "true labels").startswith(
        "| true labels | 1 | 1 | +0 | 2 | 8 | −6 | 3 | 12 | −9 | 100.00 |"
    )
    assert markdown_row(path, "random labels").startswith(
        "| random labels | 3 | 26 | −23 | > 3 (censored) | 35 | — | > 3 (censored) | 37 | — |"
    )
    assert (
        "- epochs to loss 0.1, ours: true labels (2), random labels (never). The paper's: true labels "
        "(8), shuffled pixels (13), gaussian (20), random pixels (21), random labels (35)."
    ) in (path / "report" / "report.md").read_text()


def test_epochs_to_fit(figure1bc):
    contents.write(figure1bc)
    for label, rest in {
        "MLP 1×512, p = 0.5": "30 | 50 | −20 | — | — | — | > 80 (censored) | 98.00 | 1 |",
        "MLP 1×512, p = 1.0": "> 80 (censored) | 55 | — | — | — | — | > 80 (censored) | 98.00 | 1 |",
        "Inception, p = 0.5": "20 | — | — | 2.50 | 2.50 | +0.00 | > 80 (censored) | 98.00 | 1 |",
        "AlexNet, p = 0.2": "not run | 34 | — | — | — | — | — | — | 0 |",
    }.items():
        assert markdown_row(figure1bc, label) == f"| {label} | {rest}"
    assert markdown_row(figure1bc, "MLP 1×512, p = 0.5", 1) == (
        "| MLP 1×512, p = 0.5 | 80.00 | 79.61 | +0.39 | 75.00 | 79.61 | −4.61 | 1 |"
    )
    text = (figure1bc / "report" / "report.md").read_text()
    assert "below 0.05" in text
    assert "agree with labels corrupted like the training labels" in text
    assert (
        "- MLP 1×512: 1 of 3 runs never fitted. Spearman's correlation of epochs to fit with p, runs "
        "that never fitted last: 1.000."
    ) in text


def test_a_censored_seed_leaves_no_mean(tmp_path):
    runs = [
        ("mlp1-p0.5", seed, "finished", accuracies(1.0, 0.5) | {"epochs_to_fit": epoch}, {})
        for seed, epoch in enumerate((2, None))
    ]
    path = write_sweep(tmp_path / "figure", "figure1bc", runs)
    contents.write(path)
    assert markdown_row(path, "MLP 1×512, p = 0.5").startswith(
        "| MLP 1×512, p = 0.5 | 2; > 4 (censored) | 50 | — |"
    )
    (line,) = (x for x in rows_of_csv(path) if x["row"] == "mlp1-p0.5" and x["paper"] == "50")
    assert (line["mean"], line["censored"], line["values"]) == ("", "1", "2 >4")


def test_figure2b_says_how_the_best_was_chosen(tmp_path):
    history = [record(1, 1.0, 0.75), record(2, 0.5, 0.875), record(3, 0.1, 0.8125)]
    summary = accuracies(1.0, 0.8125) | {"best_test_accuracy": 0.875, "history": history}
    path = write_sweep(tmp_path / "figure", "figure2b", [("inception", 0, "finished", summary, {})])
    contents.write(path)
    assert markdown_row(path, "Inception") == (
        "| Inception | 81.25 | 86.53 | −5.28 | 87.50 | 86.72 | +0.78 | 100.00 | 1 |"
    )
    assert "it is chosen on the test set" in (path / "report" / "report.md").read_text()


def test_some_made_up_data_are_told_likewise(table1):
    place = table1 / "mlp3-seed0" / "config.json"
    config = json.loads(place.read_text())
    config["data"]["fake"] = True
    place.write_text(json.dumps(config))
    contents.write(table1)
    lines = (table1 / "report" / "report.md").read_text().splitlines()
    assert lines[0] == "# Zhang et al. 2017, table1, full, made-up data: ours beside the paper's"
    assert lines[2].startswith("Made-up data: 1 of 5 finished runs")
    assert "made-up cifar10_jpeg, 50,000 examples" in markdown_row(table1, "MLP 3×512", 1)


def test_estimates():
    one = estimates.estimate([0.5])
    assert one == (0.5, None, None, None, 1)
    three = estimates.estimate([1.0, 2.0, 3.0])
    # Student's t with 2 degrees of freedom leaves 2.5 % above 4.302653
    assert three == pytest.approx((2.0, 1.0, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5, 3))


@pytest.mark.parametrize(
    ("epochs", "correlation"),
    [
        ([1, 2, 3, float("inf")], 1.0),
        ([3, 2, 1, 0], -1.0),
        # ranks 1, 2, 3.5, 3.5: 1 − 6 · 0.5 / 60 without ties, with them √0.9
        ([1, 2, float("inf"), float("inf")], 0.9**0.5),
        ([2, 2, 2, 2], None),
    ],
)
def test_rank_correlation(epochs, correlation):
    assert estimates.rank_correlation([0.0, 0.1, 0.2, 0.3], epochs) == (
        correlation and pytest.approx(correlation)
    )


def test_csv_has_every_number(table1):
    contents.write(table1)
    rows = rows_of_csv(table1)
    assert len(rows) == 19 * 3
    (line,) = (r for r in rows if (r["row"], r["quantity"]) == ("mlp1-random", "train_accuracy"))
    assert float(line["mean"]) == pytest.approx(0.985)
    assert float(line["low_95"]) == pytest.approx(0.985 - 4.302653 * 0.005 / 3**0.5)
    assert line["difference"] == "-0.0084"
    assert (line["seeds"], line["paper"], line["paper_flag"]) == ("3", "0.9934", "printed")
    assert line["data"] == "cifar10_jpeg, 50,000 examples"
    waiting = next(r for r in rows if r["row"] == "mlp3-random")
    assert (waiting["mean"], waiting["seeds"], waiting["runs"]) == ("", "0", "not run")


def test_json_has_what_the_runs_left(table1):
    place = table1 / "mlp3-seed0" / "config.json"
    config = json.loads(place.read_text())
    config["data"]["data_dir"] = config["compilation_cache"] = "/secret"
    place.write_text(json.dumps(config))
    text = (contents.write(table1) / "report.json").read_text()
    assert "secret" not in text
    content = json.loads(text)
    assert (content["name"], content["size"], len(content["runs"])) == ("table1", "full", 9)
    (run,) = (run for run in content["runs"] if run["name"] == "mlp3")
    kept = CONFIG.data.to_dict()
    del kept["data_dir"]
    assert run["config"]["data"] == kept
    assert run["config"]["optimizer"]["decay_per_epoch"] == 0.95
    assert run["environment"] == json.loads((place.parent / "run.json").read_text())
    assert run["summary"] == json.loads((place.parent / "summary.json").read_text())
    (run,) = (run for run in content["runs"] if run["state"] == "stopped")
    assert (run["config"], run["summary"]) == ({}, {})


class Elements(HTMLParser):
    """Collects a page's elements, and fails where they are not nested."""

    void = ("meta", "path", "use", "rect", "br")

    def __init__(self):
        super().__init__()
        self.seen, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes), tuple(self.open)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes), tuple(self.open)))

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag


def test_html_is_one_page_that_loads_nothing(figure1bc):
    contents.write(figure1bc)
    page = (figure1bc / "report" / "report.html").read_text()
    assert "http" not in page
    assert not re.search(r"url\((?!#)|@import", page)
    elements = Elements()
    elements.feed(page)
    assert elements.open == []
    tags = [tag for tag, _, _ in elements.seen]
    assert tags.count("svg") == 3
    assert not {"img", "script", "link", "iframe", "object"} & set(tags)
    for _, attributes, _ in elements.seen:
        assert all(
            value.startswith("#") for name, value in attributes.items() if name.endswith("href")
        )
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in [
        (tag, attributes) for tag, attributes, _ in elements.seen
    ]
    for tag, _, parents in elements.seen:
        if tag == "table":
            assert parents[-1] == "div"
    widths = [float(x) for x in re.findall(r"width:\s*([\d.]+)px", page)]
    assert all(width <= 360 for width in widths)


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_a_sweep_of_which_nothing_was_run_has_a_report(name, tmp_path):
    contents.write(write_sweep(tmp_path / "sweep", name, []))
    folder = tmp_path / "sweep" / "report"
    sections = SPECIFICATIONS[name].sections
    assert ("not run" in (folder / "report.md").read_text()) == any(s.rows for s in sections)
    figures = {s.title.partition(":")[0] for s in sections if s.title.startswith("Figure")}
    drawn = {section.drawing.name for section in sections if section.drawing} | {"parameters"}
    assert {file.stem for file in folder.glob("*.svg")} == drawn
    assert {file.stem for file in folder.glob("*.png")} == drawn
    assert {figure.lower().replace(" ", "") for figure in figures} <= drawn
    assert (folder / "parameters.svg").read_text().startswith("<?xml")


def test_same_runs_same_bytes(figure1bc):
    def files():
        contents.write(figure1bc)
        return {f.name: f.read_bytes() for f in (figure1bc / "report").iterdir()}

    first = files()
    assert sorted(first) == [
        *("figure1b.png", "figure1b.svg", "figure1c.png", "figure1c.svg"),
        *("parameters.png", "parameters.svg", "report.csv", "report.html"),
        *("report.json", "report.md"),
    ]
    assert files() == first


def test_parameters_over_examples(table1):
    contents.write(table1)
    for line in (
        "| small AlexNet | CIFAR-10 | 50,000 | 1,387,786 | 1,387,786 | 27.8 | 28 |",
        "| MLP 1×512 | CIFAR-10 | 50,000 | 1,209,866 | 1,209,866 | 24.2 | 24 |",
        "| Wide ResNet 28-1 | CIFAR-10 | 50,000 | 369,498 | — | 7.4 | — |",
        "| VGG-19 | ImageNet | 1,281,167 | — | 143,667,240 | 112.1 | — |",
    ):
        assert line in (table1 / "report" / "report.md").read_text().splitlines()


def test_the_papers_disagreements_are_told(table1):
    contents.write(table1)
    text = (table1 / "report" / "report.md").read_text()
    assert "errors of 30.11 % and 23.93 %" in text.partition("disagrees with itself")[2]


@pytest.mark.parametrize(
    ("row", "fields", "changes"),
    [
        ("mlp1-decay", {"optimizer.weight_decay": 5e-4}, ""),
        ("mlp1-rate_0.02", {"optimizer.learning_rate": 0.02}, "learning_rate 0.02"),
        # The user's own names, and one that an earlier version took for a recipe.
        ("mlp1-wide", {"model.width": 1024}, "name mlp, width 1024, learning_rate 0.01"),
        ("inception-croop", {"model.name": "small_inception"}, ""),
        ("inception-crop", {"model.name": "small_inception"}, "random_crop False"),
    ],
)
def test_what_a_run_changes_beside_its_name(row, fields, changes):
    config = config_lib.base()
    config.update_from_flattened_dict({"model.name": "mlp", **fields})
    resolved = config_lib.fill_in(config, 50_000, 32).to_dict()
    run = runs.ReportedRun(row, 0, "finished", resolved, {"num_train": 50_000}, [], {})
    assert sorted(runs.changes_of(run).split(", ")) == sorted(changes.split(", "))


def test_a_sweep_that_is_not_of_the_paper(tmp_path):
    """Its runs have a table, with means over the seeds."""
    more = {"test_accuracy_corrupted": 0.3, "epochs_to_fit": 20.0}
    runs = [
        (
            "worst-human",
            seed,
            "finished",
            {"train_accuracy": 1.0, "test_accuracy": 0.4 + seed / 100, **more},
            {},
        )
        for seed in (0, 1)
    ]
    path = write_sweep(
        tmp_path / "sweep", "human_labels", [*runs, ("worst-twin", 0, "not run", None, {})]
    )
    contents.write(path)
    page = (path / "report" / "report.md").read_text()
    assert "## human_labels: not in the paper" in page
    (line,) = [line for line in page.splitlines() if line.startswith("| worst, human | 100.00")]
    assert " 40.50 ± 0.71 " in line
    assert "| worst, twin | not run | " in page


@pytest.mark.parametrize(
    ("spread", "errors", "expected"),
    [
        (0.001, {2: 0.3, 8: 0.1, 48: 0.2, 512: 0.12}, 0),
        (0.05, {2: 0.3, 8: 0.1, 48: 0.2, 512: 0.12}, 1),
        # A small width is worse than all others, and no peak.
        (0.001, {2: 0.9, 4: 0.5, 8: 0.1, 48: 0.2, 512: 0.12}, 0),
        (0.001, {2: 0.3, 8: 0.2, 48: 0.15, 512: 0.12}, 2),
    ],
)
def test_widths(spread, errors, expected, tmp_path):
    runs = []
    for width, error in errors.items():
        for seed in (0, 1, 2):
            accuracy = {"test_accuracy": 1 - error + (seed - 1) * spread, "train_accuracy": 0.9}
            more = {"parameters": 785 * width + 10 * (width + 1), "num_train": 4000}
            runs.append((f"width{width}", seed, "finished", accuracy | more, {}))
    path = write_sweep(tmp_path / "sweep", "width", runs[::-1])
    contents.write(path)
    page = (path / "report" / "report.md").read_text()
    ratio = (785 * 48 + 490) / 40_000
    rise = f"rises most at p/(n·K) = {ratio:.2f}, from 10.00 % to 20.00 %, and falls to 12.00 %. "
    verdicts = (f"{rise}A peak.", f"{rise}No peak: intervals overlap.", "rises nowhere and falls")
    assert [verdict for verdict in verdicts if verdict in page] == [verdicts[expected]]
    assert "](width.png)" in page
    assert "Hollow" not in page
    assert "farthest" not in page  # these runs tell no norms
    assert "norm of" not in (path / "report" / "width.svg").read_text()


def test_norms_of_widths(tmp_path):
    """Both norms have a column and a panel; the sentence names the farthest, not the widest."""
    runs = []
    for width, distance in {8: 2.0, 48: 9.0, 512: 5.0}.items():
        for seed in (0, 1, 2):
            summary = {
                "test_accuracy": 0.5,
                "train_accuracy": 0.9,
                "weight_norm": 20.0 + seed,
                "weight_distance": distance + seed / 10,
                "parameters": 785 * width + 10 * (width + 1),
                "num_train": 4000,
            }
            runs.append((f"width{width}", seed, "finished", summary, {}))
    path = write_sweep(tmp_path / "sweep", "width", runs)
    contents.write(path)
    report = path / "report"
    page = (report / "report.md").read_text()
    ratio = (785 * 48 + 490) / 40_000
    assert f"Weights moved farthest at p/(n·K) = {ratio:.2f}, where ‖w − w⁰‖ is 9.10." in page
    (header,) = [line for line in page.splitlines() if line.startswith("| ") and "‖w‖" in line]
    assert "‖w − w⁰‖" in header
    lines = [line for line in page.splitlines() if line.startswith("| width8 ")]
    assert " 21.00 ± 1.00 [18.52, 23.48] " in lines[0]
    assert "norm of the weights" in (report / "width.svg").read_text()
