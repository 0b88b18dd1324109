"""`python -m rethink_jax.report`, and what it says of damaged files."""

import json
import subprocess
import sys

import pytest

from rethink_jax.errors import UserError
from rethink_jax.report import __main__ as command
from rethink_jax.report.runs import read_sweep
from tests.report.helpers import run_report


def test_the_command(table1, capsys):
    command.main([f"--workdir={table1}"])
    assert str(table1 / "report") in capsys.readouterr().out


def test_bad_input_is_told_in_one_line(tmp_path, capsys):
    code, line = run_report(capsys)
    assert (code, "--workdir" in line) == (2, True)
    code, line = run_report(capsys, f"--workdir={tmp_path}/nowhere")
    assert (code, line) == (
        2,
        f"rethink_jax: --workdir is {tmp_path}/nowhere; there is no such directory",
    )
    code, line = run_report(capsys, f"--workdir={tmp_path}")
    assert (code, line) == (
        2,
        f"rethink_jax: --workdir is {tmp_path}; it holds no sweep: sweep.json is missing there, "
        "and no training run or finished run of kernel, expressivity, rademacher, stability, minimum_norm, "
        "memorization, fine_grained, pac_bayes, certificate, capacity, double_descent, measures",
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is damaged"),
        ("[]", "it holds no object"),
        ('{"name": "table1", "runs": []}', "'size'"),
        ('{"name": "table1", "size": "full", "runs": [{"name": "mlp1"}]}', "is damaged: TypeError"),
        ('{"name": "table9", "size": "full", "runs": []}', "is of 'table9', which is no table of"),
        (
            '{"name": "table1", "size": "full", "runs": [{"name": "mlp1", "seed": 0, '
            '"directory": "a", "status": "lost"}]}',
            "the status of a is 'lost'; it must be one of finished,",
        ),
        (
            '{"name": "table1", "size": "full", "runs": [{"name": "mlp1", "seed": 0, '
            '"directory": "a", "status": "finished"}]}',
            "a/config.json is damaged",
        ),
    ],
)
def test_a_damaged_sweep_is_told_in_one_line(content, told, tmp_path, capsys):
    (tmp_path / "sweep.json").write_text(content)
    code, line = run_report(capsys, f"--workdir={tmp_path}")
    assert code == 2
    assert told in line


def test_a_run_of_an_older_version_is_told_in_one_line(table1, capsys):
    file = table1 / "mlp3-seed0" / "run.json"
    environment = json.loads(file.read_text())
    del environment["num_train"]
    file.write_text(json.dumps(environment))
    code, line = run_report(capsys, f"--workdir={table1}")
    assert code == 2
    assert "is damaged, or was made by an older version (KeyError: 'num_train')" in line
    assert not (table1 / "report").exists()


def test_an_error_of_the_report_is_not_the_runs_fault(table1, capsys, monkeypatch):
    def broken(*arguments):
        return {}["lost"]

    monkeypatch.setattr("rethink_jax.report.tables.how_measured", broken)
    code, line = run_report(capsys, f"--workdir={table1}")
    assert (code, line) == (
        *(1, "rethink_jax: the report failed, the runs are as they were: KeyError: 'lost'"),
    )
    assert not (table1 / "report").exists()


def test_damaged_metrics_are_told(figure1bc):
    (figure1bc / "mlp1-p0.5-seed0" / "metrics.jsonl").write_text("{\n{}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        read_sweep(figure1bc)


def test_a_file_in_a_reports_place_is_refused(table1, capsys):
    (table1 / "report").write_text("in the way")
    code, line = run_report(capsys, f"--workdir={table1}")
    assert code == 2
    assert f"{table1 / 'report'} is a file" in line
    assert (table1 / "report").read_text() == "in the way"


def test_importing_it_starts_no_backend():
    program = (
        "import rethink_jax.report.__main__, jax._src.xla_bridge as bridge; print(bridge._backends)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout == "{}\n"
