"""Output that nobody takes: the run ends as if it had been read, and its files are whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.entry_point import ROOT, environment_of_a_command, make_place

pytestmark = pytest.mark.ci

MAIN = "rethink_jax.main --config=configs/random_labels.py:digits --workdir=run --config.epochs=3"
FULL = Path("/dev/full")


def shell(command, here, **environment):
    """Runs a command line of bash, whose `python` is this one, and returns its exit code and its stderr."""
    bin_ = here / "bin"
    bin_.mkdir(exist_ok=True)
    if not (bin_ / "python").exists():
        (bin_ / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (bin_ / "python").chmod(0o755)
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=here,
        env={**environment_of_a_command(), "PATH": f"{bin_}:{os.environ['PATH']}", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return result.returncode, result.stderr


@pytest.fixture
def here(tmp_path):
    return make_place(tmp_path / "here")


def assert_finished(here):
    summary = json.loads((here / "run/summary.json").read_text())
    assert (summary["status"], summary["epochs"]) == ("finished", 3.0)
    assert (here / "run/checkpoints/36").is_dir()


@pytest.mark.parametrize(
    "output",
    [
        " | head -1; exit ${PIPESTATUS[0]}",
        " >&- 2>&- <&-",
        pytest.param(
            " >/dev/full 2>&1", marks=pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
        ),
    ],
)
def test_a_run_whose_output_nobody_takes_is_finished(output, here):
    code, error = shell(f"python -m {MAIN}{output}", here)
    assert (code, error) == (0, "")
    assert_finished(here)


def test_a_mistake_is_one_however_little_is_read(here):
    code, _ = shell(f"python -m {MAIN} --config.batch_size=0 2>&-", here)
    assert code == 2
    assert not (here / "run").exists()


def test_a_closed_descriptor_is_no_file_of_the_run(here):
    """What a library prints on descriptors 1 and 2 is in none of the run's files."""
    program = (
        "import os\nfrom rethink_jax import output\noutput.drop_what_cannot_be_written()\n"
        "file = open('mine', 'w')\nos.write(1, b'a library')\nos.write(2, b'a library')\n"
        "print('a line')\nassert file.fileno() > 2\n"
    )
    code, error = shell(f"""python -c "{program}" >&- 2>&- <&-""", here)
    assert (code, error) == (0, "")
    assert (here / "mine").read_text() == ""


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("rethink_jax.models", 0),
        ("rethink_jax.report --workdir=nothing", 2),
        ("rethink_jax.data.imagenet --manual_dir=nothing --data_dir=nothing", 2),
        ("rethink_jax.bench --config=nothing.py", 2),
        ("rethink_jax.chaos --nope", 2),
    ],
)
@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_every_command_leaves_with_its_own_code(command, code, here):
    assert shell(f"python -m {command} >/dev/full 2>/dev/full", here) == (code, "")


def test_what_can_be_written_is(here):
    program = (
        "import sys\nfrom rethink_jax import output\noutput.drop_what_cannot_be_written()\n"
        "print('first · ü')\nsys.stderr.write('second')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "first · ü\n", "second")


def test_a_full_pipe_that_does_not_block_loses_nothing(here):
    """Some terminals and pipes are non-blocking: a write that has to wait waits."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    program = (
        "from rethink_jax import output\noutput.drop_what_cannot_be_written()\n"
        "for i in range(20_000): print(i, 'x' * 50)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=writer)
    os.close(writer)
    with open(reader, "rb") as file:
        text = file.read()
    assert process.wait() == 0
    assert text.count(b"\n") == 20_000
