"""Where a report is written, and what it leaves alone there."""

import json

import pytest

from rethink_jax.report import contents
from tests.report.helpers import run_report, write


def test_by_default_several_are_reported_here(two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contents.write(*two)
    assert (tmp_path / "report" / "report.html").exists()
    assert {path.name for path in two[0].iterdir()} == {
        *("config.json", "run.json", "summary.json", "metrics.jsonl"),
    }


def test_a_report_is_written_over_an_earlier_one(two, tmp_path):
    write(tmp_path / "c", "inception")
    out = contents.write(*two, tmp_path / "c", out=tmp_path / "out")
    assert (out / "figure2b.png").exists()
    (out / "report.md.partial").touch()
    contents.write(*two, out=out)
    listed = json.loads((out / "report.json").read_text())["files"]
    assert sorted(path.name for path in out.iterdir()) == listed
    assert "figure2b.png" not in listed


@pytest.mark.parametrize("name", ["notes.txt", "figure1a.png", "report.json"])
def test_files_that_are_no_reports_are_left_alone(name, two, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("{}")
    code, line = run_report(capsys, *(f"--workdir={path}" for path in two), f"--out={out}")
    assert (code, f"{out} holds {name}, which is no file of a report" in line) == (2, True)
    assert [path.read_text() for path in out.iterdir()] == ["{}"]


def test_a_file_in_the_way(two, tmp_path, capsys):
    (tmp_path / "out").touch()
    code, line = run_report(capsys, f"--workdir={two[0]}", f"--out={tmp_path / 'out'}")
    assert (code, f"{tmp_path / 'out'} is a file" in line) == (2, True)


def test_a_report_beside_a_run_leaves_foreign_files_alone(two, capsys):
    notes = two[0] / "report" / "report.md"
    notes.parent.mkdir()
    notes.write_text("my thesis")
    code, line = run_report(capsys, f"--workdir={two[0]}")
    assert (code, f"{notes.parent} holds report.md" in line) == (2, True)
    assert [path.name for path in notes.parent.iterdir()] == ["report.md"]
    assert notes.read_text() == "my thesis"


def test_a_report_of_an_older_version_is_written_over(two):
    out = contents.write(two[0])
    content = json.loads((out / "report.json").read_text())
    del content["files"]
    (out / "report.json").write_text(json.dumps(content))
    (out / "notes.txt").write_text("mine")
    contents.write(two[0])
    assert (out / "notes.txt").read_text() == "mine"
    assert "files" in json.loads((out / "report.json").read_text())
