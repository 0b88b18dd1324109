"""The report of runs from several directories, on hand-made ones."""

import csv
import json
import shutil

import pytest
from matplotlib.figure import Figure

from rethink_jax.errors import UserError
from rethink_jax.report import catalog, collect, contents, figures, sentences
from tests.report.helpers import (
    config_of,
    markdown_row,
    record,
    run_report,
    write,
    write_sweep,
)


def rows_of(folder, nth=0):
    """The lines of the `nth` table of the page, each as a dict."""
    tables = [[]]
    for line in (folder / "report.md").read_text().splitlines():
        if line.startswith("|"):
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif tables[-1]:
            tables.append([])
    columns, _, *lines = tables[nth]
    return [dict(zip(columns, line, strict=True)) for line in lines]


def test_directories_are_looked_through(tmp_path):
    """A run, a directory of runs and one with a sweep in it; the names say nothing."""
    write(tmp_path / "single", "mlp3")
    write(tmp_path / "many" / "a", "mlp1")
    write(tmp_path / "many" / "b", "mlp1-random")
    summary = {"config": config_of("alexnet"), "train_accuracy": 1.0, "test_accuracy": 0.7}
    summary |= {"steps": 4 * 391}
    (tmp_path / "deep").mkdir()
    write_sweep(tmp_path / "deep" / "sweep", "table1", [("alexnet", 0, "finished", summary, {})])
    out = contents.write(*(tmp_path / x for x in ("single", "many", "deep")), out=tmp_path / "out")
    assert [line["row"] for line in rows_of(out)] == [
        *("AlexNet", "MLP 3×512", "MLP 1×512", "MLP 1×512, random labels"),
    ]
    text = (out / "report.md").read_text()
    assert "4 training runs: 4 finished." in text
    assert "Not run: Inception, random crop, weight decay; Inception, random crop;" in text
    content = json.loads((out / "report.json").read_text())
    assert [(run["name"], run["rows"][0]) for run in content["runs"]] == [
        ("single", ["table1", "mlp3"]),
        ("many/a", ["table1", "mlp1"]),
        ("many/b", ["table1", "mlp1-random"]),
        ("deep/sweep/alexnet-seed0", ["table1", "alexnet"]),
    ]
    assert str(tmp_path) not in text + json.dumps(content)
    assert "Table 4" not in text
    assert "figure1b.png" in content["files"]


def test_only_seeds_of_one_kind_are_averaged(tmp_path):
    """Of another data set, size, number of epochs or kind of device is another line; the same seed is, too."""
    write(tmp_path / "a", "mlp3", test=0.50)
    write(tmp_path / "b", "mlp3", test=0.52, seed=1)
    write(tmp_path / "again", "mlp3", test=0.90)
    write(tmp_path / "other", "mlp3", test=0.60, **{"data.name": "cifar10"})
    write(tmp_path / "few", "mlp3", test=0.30, n=10_000, **{"data.examples": 10_000})
    write(tmp_path / "longer", "mlp3", 5, test=0.55, epochs=5)
    write(tmp_path / "cpu", "mlp3", test=0.40, environment={"backend": "cpu", "devices": ["cpu"]})
    one = {"devices": ["NVIDIA H200"]}
    write(tmp_path / "one_device", "mlp3", test=0.54, environment=one, seed=2)
    out = contents.write(tmp_path)
    assert out == tmp_path / "report"
    lines = rows_of(out)
    tested = "test accuracy, true labels (%): ours"
    assert {line["row"] for line in lines} == {"MLP 3×512"}
    found = {(x["data"], x["epochs"], x["devices"], x[tested], x["seeds"]) for x in lines}
    gpus, whole = "2 × NVIDIA H200", "cifar10_jpeg, 50,000 examples"
    assert found == {
        (whole, "4", "AMD EPYC, 2 cores", "40.00", "1"),
        (whole, "4", f"{gpus}; 1 × NVIDIA H200", "52.00 ± 2.00 [47.03, 56.97]", "3"),
        (whole, "4", gpus, "90.00", "1"),
        (whole, "5", gpus, "55.00", "1"),
        ("cifar10, 50,000 examples", "4", gpus, "60.00", "1"),
        ("cifar10_jpeg, 10,000 examples", "4", gpus, "30.00", "1"),
    }
    with (out / "report.csv").open() as file:
        measured = [line for line in csv.DictReader(file) if line["quantity"] == "test_accuracy"]
    assert sorted(line["mean"] for line in measured if line["row"] == "mlp3") == [
        *("0.3", "0.4", "0.52", "0.55", "0.6", "0.9"),
    ]


def test_a_stopped_run_has_a_line_of_its_own(tmp_path):
    write(tmp_path / "whole", "mlp3", test=0.5)
    write(tmp_path / "part", "mlp3", 2, status="stopped", test=0.25, seed=1)
    killed = write(tmp_path / "killed", "mlp3", 3, test=0.125, seed=2)
    (killed / "summary.json").unlink()
    stale = write(tmp_path / "longer_now", "mlp3", 3, test=0.0625, seed=3)  # ended once at 3 of 3
    begun = write(tmp_path / "begun", "mlp3", 2, status="stopped", seed=4)
    (begun / "summary.json").unlink()
    (begun / "metrics.jsonl").unlink()
    lines = rows_of(contents.write(tmp_path))
    tested = "test accuracy, true labels (%): ours"
    assert stale.exists()
    assert sorted((x["epochs"], x[tested], x["seeds"]) for x in lines) == [
        ("4", "50.00", "1"),
        ("stopped at epoch 0 of 4", "—", "0"),
        ("stopped at epoch 2 of 4", "25.00", "0"),
        ("stopped at epoch 3 of 4", "12.50", "0"),
        ("stopped at epoch 3 of 4", "6.25", "0"),
    ]
    differences = [list(line.values())[-3] for line in lines]
    assert differences.count("—") == 4


def test_other_recipes_are_told_and_not_counted(tmp_path):
    decayed = {"optimizer.weight_decay": 0.0004}
    write(tmp_path / "a", "alexnet-decay-random")
    write(tmp_path / "tenth", "alexnet-decay-random", test=0.125, **decayed)
    out = contents.write(tmp_path)
    (counted,), (other,) = rows_of(out), rows_of(out, 1)
    assert counted["seeds"] == "1"
    assert "another recipe than the paper's rows" in (out / "report.md").read_text()
    assert other["run"] == f"{tmp_path.name}/tenth"
    assert other["the nearest row"] == "Table 4: AlexNet, weight decay"
    assert other["what differs"] == "weight_decay 0.0004 instead of 0.004"
    assert other["test accuracy, true labels (%)"] == "12.50"


def starts(*steps, **last):
    gpu = {"backend": "gpu", "devices": ["NVIDIA H200"], "cpu": "AMD EPYC", "cores": 2}
    sessions = [gpu | {"step": step, "date": f"2026-01-0{i + 1}"} for i, step in enumerate(steps)]
    return gpu | {"sessions": [*sessions[:-1], sessions[-1] | last]} | last


def test_interruptions_are_told(tmp_path):
    write(tmp_path / "never", "mlp3", environment=starts(0))
    write(tmp_path / "twice", "mlp3-random", environment=starts(0, 391, 782))
    write(tmp_path / "older", "mlp1-random", environment=starts(None, 391))
    moved = {"backend": "cpu", "devices": ["cpu"]}
    write(tmp_path / "moved", "mlp1", environment=starts(0, 391, **moved))
    write(tmp_path / "unknown", "mlp3-decay")
    out = contents.write(tmp_path)
    runs = {line["run"].partition("/")[2]: line for line in rows_of(out, 3)}
    assert {name: line["resumed"] for name, line in runs.items()} == {
        "never": "never",
        "twice": "2 times",
        "older": "at least 1 time",
        "moved": "1 time",
        "unknown": "not recorded",
    }
    assert runs["moved"]["devices"] == "AMD EPYC, 2 cores; 1 × NVIDIA H200"
    epochs = {line["row"]: line["epochs"] for line in rows_of(out)}
    assert epochs["MLP 3×512, random labels"] == "4; resumed 2 times"
    assert (epochs["MLP 3×512"], epochs["MLP 3×512, weight decay"]) == ("4", "4")


def test_a_run_given_twice_counts_once(tmp_path):
    write(tmp_path / "runs" / "a", "mlp3")
    (tmp_path / "link").symlink_to(tmp_path / "runs" / "a")
    shutil.copytree(tmp_path / "runs" / "a", tmp_path / "copy")
    given = [tmp_path / x for x in ("runs", "runs/a", "link", "copy", "runs/../runs")]
    assert len(collect.read(given).trained) == 1


def test_equal_names_get_numbers(tmp_path):
    write(tmp_path / "one" / "runs" / "a", "mlp3")
    write(tmp_path / "two" / "runs" / "a", "mlp1")
    found = collect.read([tmp_path / "one" / "runs", tmp_path / "two" / "runs"])
    assert [run.place for run in found.trained] == ["runs/a", "runs/a-2"]


def test_a_directorys_name_breaks_no_table(tmp_path):
    write(tmp_path / "a|b<i>", "mlp3")
    out = contents.write(tmp_path)
    assert f"| {tmp_path.name}/a\\|b<i> | Table 1: MLP 3×512 |" in (out / "report.md").read_text()
    assert f"{tmp_path.name}/a|b&lt;i&gt;</td>" in (out / "report.html").read_text()


def test_a_run_that_diverged_as_expected(tmp_path):
    more = {"expect_divergence": True, "diverged": True}
    summary = {"config": config_of("alexnet-decay-random"), "history": [record(1, 2.0)]}
    summary["history"][0]["train_accuracy"] = 0.1
    path = write_sweep(
        tmp_path / "sweep", "table4", [("alexnet-decay", 0, "failed", summary, more)]
    )
    (line,) = rows_of(contents.write(tmp_path))
    assert line["epochs"] == "diverged, as the paper's did at epoch 1 of 4"
    assert path.exists()


def test_figures_are_apart_by_data(tmp_path):
    for n in (50_000, 10_000):
        for p in ("0.2", "0.4", "0.6"):
            fields = {"corruption.name": "partially_corrupted_labels", "data.examples": n}
            write(tmp_path / f"{n}-{p}", f"alexnet-p{p}", n=n, **fields)
    write(
        tmp_path / "stopped",
        "alexnet-p0.8",
        2,
        status="stopped",
        **fields | {"data.examples": None},
    )
    out = contents.write(tmp_path)
    for name in ("figure1b", "figure1c"):
        for n in (50_000, 10_000):
            assert (out / f"{name}-cifar10_jpeg-{n}.png").exists()
    text = (out / "report.md").read_text()
    assert "Ours: cifar10_jpeg, 10,000 examples." in text
    assert "Crosses: runs that did not finish, as far as they came." in text
    assert "AlexNet: 0 of 3 runs never fitted." in text


def test_a_stopped_curve_is_drawn_as_far_as_it_came(tmp_path):
    write(tmp_path / "whole", "inception")
    write(tmp_path / "part", "inception", 2, status="stopped", seed=1)
    found = collect.read([tmp_path]).trained
    sweep = contents.Sweep(
        "figure1a", "full", tuple(run._replace(row="true_labels") for run in found), collected=True
    )
    figure = Figure()
    figures.figure1a(figure, sweep)
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[782]]
    assert not sentences.fits(sweep, catalog.FIGURES1BC.sections[0])


def test_no_path_of_the_machine_is_in_the_report(tmp_path):
    variables = {
        "JAX_COMPILATION_CACHE_DIR": "/secret/cache",
        "XLA_FLAGS": "--xla_dump_to=/secret/dump --xla_gpu_deterministic_ops=true",
    }
    environment = starts(0, 391, variables=variables) | {"variables": variables}
    write(tmp_path / "a", "mlp3", environment=environment)
    out = contents.write(tmp_path)
    assert "secret" not in "".join(path.read_text() for path in out.glob("report.*"))
    (run,) = json.loads((out / "report.json").read_text())["runs"]
    kept = {
        "JAX_COMPILATION_CACHE_DIR": "PATH",
        "XLA_FLAGS": "--xla_dump_to=PATH --xla_gpu_deterministic_ops=true",
    }
    assert run["environment"]["variables"] == kept
    assert run["environment"]["sessions"][1]["variables"] == kept
    assert len(collect.read([tmp_path, out / "report.json"]).trained) == 1


# Reports read again.


def test_runs_of_an_earlier_report_are_merged(tmp_path):
    """Its numbers are there, its curves are not; a run whose directory is given as well counts once."""
    place = write(tmp_path / "old" / "a", "inception", test=0.5)
    config = json.loads((place / "config.json").read_text())
    config["data"]["data_dir"] = "/secret"
    del config["label_smoothing"]  # as an older version's
    (place / "config.json").write_text(json.dumps(config))
    write(tmp_path / "old" / "part", "mlp3", 2, status="stopped")
    report = contents.write(tmp_path / "old") / "report.json"
    write(tmp_path / "new", "inception", test=0.52, seed=1)
    merged = collect.read([report, tmp_path / "new", tmp_path / "old"])
    assert [(run.place, len(run.history)) for run in merged.trained] == [
        *(("old/a", 4), ("old/part", 2), ("new", 4)),
    ]
    out = contents.write(report, tmp_path / "new", out=tmp_path / "out")
    lines = {line["row"]: line for line in rows_of(out)}
    tested = "test accuracy, true labels (%): ours"
    assert lines["Inception"][tested].startswith("51.00 ± 1.41")
    assert lines["MLP 3×512"]["epochs"] == "stopped at epoch 2 of 4"
    assert rows_of(out, 1)[0]["epochs to loss 1.0: ours"] == "—"  # one seed's curve is not there
    out = contents.write(tmp_path / "new", tmp_path / "old", out=tmp_path / "out")
    assert rows_of(out, 1)[0]["epochs to loss 1.0: ours"].startswith("3 ±")


def test_a_sweeps_report_is_read_by_its_configs(tmp_path):
    summary = {"config": config_of("alexnet"), "train_accuracy": 1.0, "test_accuracy": 0.7}
    runs = [("misnamed", 0, "finished", summary, {}), ("mlp3", 0, "failed", None, {})]
    report = contents.write(write_sweep(tmp_path / "sweep", "table1", runs)) / "report.json"
    (run,) = collect.read([report]).trained
    assert run.place == "report/misnamed-seed0"
    (line, *_) = rows_of(contents.write(report, out=tmp_path / "out"))
    assert line["row"] == "AlexNet"


def test_without_curves_there_is_no_figure_of_them(tmp_path):
    write(tmp_path / "runs" / "a", "inception")
    report = contents.write(tmp_path / "runs") / "report.json"
    assert (report.parent / "figure1a.png").exists()
    out = contents.write(report, out=tmp_path / "out")
    assert {path.name for path in out.glob("*.png")} == {
        *("figure1b.png", "figure1c.png", "parameters.png"),
    }


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"runs": [{}]}', '{"runs": [3]}', '{"runs": []}']
)
def test_a_file_that_is_no_report(content, tmp_path, capsys):
    file = tmp_path / "report.json"
    file.write_text(content)
    code, line = run_report(capsys, f"--workdir={file}", f"--out={tmp_path / 'out'}")
    assert (code, str(file) in line) == (2, True)
    assert not (tmp_path / "out").exists()


def test_two_levels_are_no_curve(tmp_path):
    for n, levels in ((2, ("0.2", "0.8")), (3, ("0.2", "0.4", "0.8"))):
        for p in levels:
            fields = {"corruption.name": "partially_corrupted_labels"}
            write(tmp_path / str(n) / p, f"alexnet-p{p}", **fields)
        found = collect.read([tmp_path / str(n)]).trained
        runs = tuple(run._replace(row=f"alexnet-p{run.place.split('/')[-1]}") for run in found)
        figure = Figure()
        figures.figure1c(figure, contents.Sweep("figure1bc", "full", runs, collected=True))
        joined = [line for line in figure.axes[0].lines if len(line.get_xdata()) == n]
        (style,) = {line.get_linestyle() for line in joined if line.get_label() != "chance"} - {
            "--"
        }
        assert style == ("None" if n == 2 else "-")


# What is wrong.


def test_a_directory_with_nothing_to_report(two, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    code, line = run_report(capsys, f"--workdir={two[0]}", f"--workdir={tmp_path / 'empty'}")
    assert (code, f"--workdir is {tmp_path / 'empty'}; it holds no sweep" in line) == (2, True)
    code, line = run_report(capsys, f"--workdir={two[0]}", f"--workdir={tmp_path / 'nowhere'}")
    assert (code, "nowhere; there is no such directory" in line) == (2, True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, "{") for name in ("config.json", "run.json", "summary.json")),
        *((name, "[]") for name in ("config.json", "run.json", "summary.json")),
        ("metrics.jsonl", "{\n{}\n"),
        ("metrics.jsonl", '{"epoch": 1}\n'),
        ("run.json", "{}"),
        ("run.json", '{"num_train": "many", "backend": "gpu", "devices": ["x"]}'),
        ("config.json", '{"experiment": "dance"}'),
        ("config.json", '{"experiment": "train", "batch_size": 0, "epochs": 1}'),
        ("config.json", '{"experiment": "train", "seed": 0, "corruption": 3}'),
    ],
)
def test_a_damaged_file_is_told_in_one_line(name, content, two, capsys):
    write(two[0].parent / "c", "mlp3", 2, status="stopped")
    place = two[0].parent / "c"
    (place / name).write_text(content)
    code, line = run_report(capsys, f"--workdir={two[0]}", f"--workdir={place}")
    assert (code, str(place) in line) == (2, True)
    with pytest.raises(UserError):
        collect.read([place])


def test_made_up_data_are_told_first(two, tmp_path):
    write(tmp_path / "c", "mlp3", **{"data.fake": True})
    out = contents.write(tmp_path)
    text = (out / "report.md").read_text()
    assert text.startswith("# Zhang et al. 2017, collected runs, made-up data")
    assert "made-up cifar10_jpeg, 50,000 examples" in {line["data"] for line in rows_of(out)}
    assert markdown_row(tmp_path, "MLP 3×512", 1)
