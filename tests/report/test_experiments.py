import csv
import json
import shutil

import numpy as np
import pytest

from rethink_jax import config as config_lib, data
from rethink_jax.kernels import interpolation, noise
from rethink_jax.report import __main__ as command, contents, experiments
from rethink_jax.theory import (
    capacity,
    capacity_report,
    certificate,
    double_descent,
    expressivity,
    fine_grained,
    judged,
    judged_report,
    minimum_norm,
    rademacher,
    stability,
    two_layer,
)
from tests.data_helpers import kernel_config
from tests.report.helpers import write


def rename(path, data_name, features="pixels", **summary):
    """Has a run be one on another data set, with other features and other numbers."""
    config = json.loads((path / "config.json").read_text())
    config["data"]["name"] = data_name
    config["data"]["data_dir"] = "/somewhere"
    config["features"]["name"] = features
    (path / "config.json").write_text(json.dumps(config))
    content = json.loads((path / "summary.json").read_text())
    content["with_ridge"] |= {"test_error": 0.25}
    (path / "summary.json").write_text(json.dumps(content | summary))


@pytest.fixture(scope="module")
def table3(toy, tmp_path_factory):
    """Three solves, which say that they are of Table 3's rows, and one of another data set."""
    path = tmp_path_factory.mktemp("table3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "describe", lambda config: toy.info)
        patch.setattr(data, "load", lambda config: toy)
        interpolation.run(kernel_config("toy", (0.1,), (0.0, 0.5)), path / "a")
    for name in ("b", "c", "d"):
        shutil.copytree(path / "a", path / name)
    rename(path / "a", "mnist", test_error=0.0122, norm_one_hot=145.1)
    rename(path / "b", "cifar10_jpeg", "random_convolutions", test_error=0.2)
    rename(path / "c", "cifar10", "random_convolutions", test_error=0.18)
    rename(path / "d", "digits", test_error=0.03)
    (path / "unfinished").mkdir()
    (path / "unfinished" / "config.json").write_text('{"experiment": "kernel"}')
    return path


def rows_of(path):
    with (path / "report" / "report.csv").open() as file:
        return list(csv.reader(file))


def test_table3_beside_the_papers(table3):
    contents.write(table3)
    rows = [row[1:5] for row in rows_of(table3) if row[0] == "Table 3"]
    assert rows == [
        ["row", "test error (%): ours", "paper", "difference"],
        ["MNIST", "1.22", "1.2", "+0.02"],
        ["MNIST, Gabor wavelets", "not run", "0.6", "—"],
        ["CIFAR-10", "not run", "46.0", "—"],
        ["CIFAR-10, random filters", "20.00", "17.0", "+3.00"],
        ["CIFAR-10, random filters", "18.00", "17.0", "+1.00"],
        ["CIFAR-10, random filters, ℓ2 regularization", "25.00", "15.0", "+10.00"],
        ["CIFAR-10, random filters, ℓ2 regularization", "25.00", "15.0", "+10.00"],
        ["MNIST, ℓ2 regularization", "25.00", "—", "—"],
        ["digits", "3.00", "—", "—"],
        ["digits, ℓ2 regularization", "25.00", "—", "—"],
    ]
    row = next(row for row in rows_of(table3) if row[1] == "MNIST")
    assert (row[5], row[7]) == ("145.1", "220")
    page = (table3 / "report" / "report.md").read_text()
    assert "The residual is that of 200 equations" in page
    assert (table3 / "report" / "table3.png").read_bytes().startswith(b"\x89PNG")
    assert "4 of the runs: revision" in page


def test_json_leaves_out_where_things_lie(table3):
    contents.write(table3)
    content = json.loads((table3 / "report" / "report.json").read_text())
    assert [run["name"] for run in content["runs"]] == ["a", "b", "c", "d"]
    assert "data_dir" not in content["runs"][0]["config"]["data"]
    assert content["runs"][0]["summary"]["test_error"] == 0.0122


def test_made_up_data_are_told_first(table3, tmp_path):
    path = tmp_path / "table3"
    shutil.copytree(table3, path)
    config = json.loads((path / "a" / "config.json").read_text())
    config["data"]["fake"] = True
    (path / "a" / "config.json").write_text(json.dumps(config))
    contents.write(path)
    lines = (path / "report" / "report.md").read_text().splitlines()
    assert lines[0] == (
        "# Zhang et al. 2017, kernels and theory, made-up data: ours beside the paper's"
    )
    assert lines[2].startswith("Made-up data: 1 of 4 finished runs")
    row = next(row for row in rows_of(path) if row[1] == "MNIST")
    assert "made-up mnist, 300 examples" in row


def test_one_run_has_a_report_of_its_own(table3, capsys):
    command.main([f"--workdir={table3 / 'a'}"])
    assert "report.html" in capsys.readouterr().out
    assert "<title>" in (table3 / "a" / "report" / "report.html").read_text()


def test_kernels_and_training_runs_are_in_one_report(table3, tmp_path):
    write(tmp_path / "trained", "mlp3")
    out = contents.write(table3, tmp_path / "trained", table3 / "a", out=tmp_path / "out")
    page = (out / "report.md").read_text()
    assert "1 training run: 1 finished. 4 finished runs of kernels and theory." in page
    assert page.index("## Table 1") < page.index("## Table 3") < page.index("## The training runs")
    assert (out / "table3.png").exists()
    assert "Table 3,MNIST,1.22,1.2" in (out / "experiments.csv").read_text()
    assert "Table 1,mlp3,test_accuracy" in (out / "report.csv").read_text()
    content = json.loads((out / "report.json").read_text())
    assert [run["rows"] for run in content["runs"]][:2] == [[["table1", "mlp3"]], []]
    assert [run["name"] for run in content["runs"]] == ["trained", "a", "b", "c", "d"]


@pytest.mark.ci
def test_theory(toy, tmp_path, monkeypatch):
    few = data.from_arrays((toy.train.images[:20], toy.train.labels[:20]), toy.test, "toy")
    monkeypatch.setattr(data, "describe", lambda config: few.info)
    monkeypatch.setattr(data, "load", lambda config: few)
    minimum_norm.run(config_lib.experiment("minimum_norm", "toy"), tmp_path / "sgd")
    expressivity.run(config_lib.experiment("expressivity", "toy"), tmp_path / "theorem")
    settings = config_lib.experiment("stability", "toy")
    once = {"steps": 1, "stop_when_fitted": False, "model.width": 16}
    settings.update_from_flattened_dict({"stability.replacements": 1, **once})
    stability.run(settings, tmp_path / "stability")
    settings = config_lib.experiment("rademacher", "toy")
    settings.update_from_flattened_dict({"rademacher.draws": 2, **once})
    rademacher.run(settings, tmp_path / "rademacher")
    contents.write(tmp_path)
    page = (tmp_path / "report" / "report.md").read_text()
    for module, name in (
        *((minimum_norm, "sgd"), (expressivity, "theorem")),
        *((stability, "stability"), (rademacher, "rademacher")),
    ):
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        title, _, rows = module.table(summary)
        assert f"## {title}" in page
        for row in rows:
            assert all(cell in page for cell in row)
    assert "Table 3" not in page
    assert (tmp_path / "report" / "sgd-paths.svg").exists()
    assert "sgd: toy, 20 examples; " in page


def test_fine_grained(from_toy, tmp_path):
    config = config_lib.experiment("fine_grained", "toy")
    config.fine_grained.update(sizes=(20, 40), widths=(4,), trained_examples=20, steps=5)
    summary = fine_grained.run(config, tmp_path / "h")
    config.fine_grained.update(sizes=(30,), widths=(), spectrum_up_to=1)
    fine_grained.run(config, tmp_path / "short")
    contents.write(tmp_path)
    page = (tmp_path / "report" / "report.md").read_text()
    for title, _, rows in (
        fine_grained.table(summary),
        fine_grained.spectrum_table(summary),
        two_layer.table(summary["training"]),
    ):
        assert f"## {title}" in page
        assert all(cell in page for row in rows for cell in row)
    for name in ("h-measure", "h-speed", "short-measure"):
        assert (tmp_path / "report" / f"{name}.svg").exists()
    assert not (tmp_path / "report" / "short-speed.svg").exists()
    assert page.count("on the top eigenvectors of H∞") == 1


def test_certificate(from_toy, tmp_path):
    config = config_lib.experiment("certificate", "toy")
    config.certificate.update(random_examples=90, draws=2)
    config.update_from_flattened_dict({"epochs": 2, "model.width": 16})
    summary = certificate.run(config, tmp_path / "c")
    contents.write(tmp_path)
    page = (tmp_path / "report" / "report.md").read_text()
    title, _, rows = certificate.table(summary)
    assert f"## {title}" in page
    assert all(cell in page for row in rows for cell in row)
    assert "| certificate, under the assumption |" in page
    assert "Assumption: wrong labels trained on are fitted at least as well as new ones." in page
    assert (tmp_path / "report" / "c-certificate.svg").exists()


def test_capacity(from_toy, tmp_path):
    config = config_lib.experiment("capacity", "toy")
    config.capacity.update(widths=(1, 8), draws=2, steps=60, precision=1.0)
    summary = capacity.run(config, tmp_path / "c")
    contents.write(tmp_path)
    page = (tmp_path / "report" / "report.md").read_text()
    title, columns, rows = capacity_report.table(summary)
    assert f"## {title}" in page
    assert all(cell in page for row in (columns, *rows) for cell in row)
    sentences = capacity_report.verdict(summary)
    assert len(sentences) == 3
    assert all(sentence in page for sentence in sentences)
    assert (tmp_path / "report" / "c-capacity.svg").exists()


def test_double_descent(from_toy, tmp_path):
    config = config_lib.experiment("double_descent", "toy")
    config.double_descent.update(ratios=(0.5, 1.0, 2.0), bandwidth=2.0)
    summary = double_descent.run(config, tmp_path / "curve")
    contents.write(tmp_path)
    page = (tmp_path / "report" / "report.md").read_text()
    title, columns, rows = double_descent.table(summary)
    assert f"## {title}" in page
    assert [row[0] for row in rows] == ["150", "300", "600"]
    assert all(cell in page for row in (columns, *rows) for cell in row)
    sentences = double_descent.conclude(summary)
    assert len(sentences) == 2
    assert all(sentence in page for sentence in sentences)
    assert (tmp_path / "report" / "curve-double-descent.svg").exists()


def test_measures_judged(from_toy, tmp_path):
    config = config_lib.experiment("measures", "toy")
    axes = {"widths": (32, 64), "depths": (1,), "learning_rates": (0.05,), "weight_decays": (0.0,)}
    config.measures.update(seeds=1, **axes)
    config.update_from_flattened_dict(
        {"stop_at_loss": 0.06, "epochs": 200, "evaluate.every_epochs": 10}
    )
    summary = judged.run(config, tmp_path / "j")
    contents.write(tmp_path)
    page = (tmp_path / "report" / "report.md").read_text()
    for title, columns, rows in (
        judged_report.table(summary),
        judged_report.ranks_table(summary),
    ):
        assert f"## {title}" in page
        assert [row[0] for row in rows] == [*judged_report.MEASURES.values()]
        assert all(cell in page for row in (columns, *rows) for cell in row)
    assert all(sentence in page for sentence in judged_report.conclude(summary))
    assert (tmp_path / "report" / "j-measures.svg").exists()


def test_kernels_on_corrupted_labels_stand_apart_from_table_3(table3, from_toy, tmp_path):
    config = kernel_config("toy", (0.1,))
    config.noise.probabilities = (0.5,)
    summary = interpolation.run(config, tmp_path / "noisy")
    contents.write(tmp_path)
    page = (tmp_path / "report" / "report.md").read_text()
    assert "## Table 3" not in page
    assert "## Kernels on corrupted labels" in page
    _, columns, rows = noise.table(summary)
    assert [row[0] for row in rows] == ["0", "0.5"]
    assert all(cell in page for row in (columns, *rows) for cell in row)
    assert noise.conclude(summary) in page
    assert (tmp_path / "report" / "kernel-noise.png").read_bytes().startswith(b"\x89PNG")
    contents.write(table3, tmp_path, out=tmp_path / "both")
    page = (tmp_path / "both" / "report.md").read_text()
    assert page.index("## Table 3") < page.index("## Kernels on corrupted labels")
    assert "noisy" not in page[: page.index("## Kernels on corrupted labels")]


def test_an_older_summary_is_told_in_one_line(table3, capsys, tmp_path):
    for file in ("config.json", "run.json"):
        (tmp_path / file).write_bytes((table3 / "a" / file).read_bytes())
    (tmp_path / "summary.json").write_text('{"test_error": 0.1}')
    with pytest.raises(SystemExit) as end:
        command.main([f"--workdir={tmp_path}"])
    assert end.value.code == 2
    assert "is damaged, or was made by an older version (KeyError" in capsys.readouterr().err


def test_keys_of_table3():
    config = config_lib.experiment("kernel", "mnist").to_dict()
    run = experiments.ReportedRun("a", 0, "finished", config, {}, [], {})
    assert experiments.key_of(run, {"ridge": 0.0}) == "mnist"
    config["features"]["name"], config["kernel"]["name"] = "gabor", "linear"
    assert experiments.key_of(run, {"ridge": np.float64(0.1)}) == "mnist-gabor-linear-l2"
