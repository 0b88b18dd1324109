import re
import subprocess
import sys

import pytest

from rethink_jax.data import made
from tests.door import ROOT

SMALL = (
    *("--seconds=0.2", "--config.model.name=mlp", "--config.model.width=8"),
    *("--config.data.size=8", "--config.batch_size=16", "--config.dtype=float32"),
)


def bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "rethink_jax.bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("made-for-bench")
    made.prepare(root, 40, 5, height=30, width=40)
    return root


def test_input_is_set_beside_the_bare_decoder_and_the_steps(folder):
    done = bench(
        "--images=160", f"--config.data.data_dir={folder}", "--config.data.workers=1", *SMALL
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.replace(",", "")
    before, after = map(
        int, re.search(r"before and after +│ (\d+) and (\d+) images/s", text).groups()
    )
    rate, share = re.search(r"over 160 images +│ (\d+) images/s ([\d.]+)% of that", text).groups()
    assert float(share) == pytest.approx(200 * int(rate) / (before + after), rel=0.02)
    steps = int(re.search(r"training steps mlp +│ (\d+) images/s", text)[1])
    limit, least = re.search(r"what limits +│ the (\w+): (\d+) images/s", text).groups()
    assert int(least) == min(int(rate), steps)
    assert limit == ("loader" if int(rate) < steps else "steps")


def test_steps_are_set_beside_large_products():
    done = bench("--what=step", *SMALL)
    assert done.returncode == 0, done.stderr
    rate = int(re.search(r"training steps, mlp +│ ([\d,]+)", done.stdout)[1].replace(",", ""))
    peak = float(re.search(r"large matrix products +│ ([\d.]+) TFLOP/s", done.stdout)[1])
    assert rate > 0
    assert peak > 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--config=configs/true_labels.py"], "config.data.stream is False; it must be True"),
        (["--what=all"], "--what"),
        (["--config=nope.py"], "--config names 'nope.py', which is no file"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, line):
    done = bench(*arguments)
    assert done.returncode == 2
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
