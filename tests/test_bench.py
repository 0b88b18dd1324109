import os
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
        env={**os.environ, "COLUMNS": "300"},
        capture_output=True,
        text=True,
    )


def numbers(pattern, text):
    return [float(number) for number in re.search(pattern, text)[1].split()]


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
    bare = numbers(r"in turns +│ (.*) images/s", text)
    loaded = numbers(r"over 160 images +│ (.*) images/s", text)
    median, shares = re.search(r"loader / bare decoder +│ ([\d.]+)% \((.*)\)", text).groups()
    found = [float(share) for share in re.findall(r"[\d.]+", shares)]
    assert len(bare) == len(loaded) == len(found) == 5
    assert found == pytest.approx(
        [100 * a / b for a, b in zip(loaded, bare, strict=True)], rel=0.05
    )
    assert float(median) == sorted(found)[2]
    assert len(numbers(r"above a bare one's +│ (.*) MiB", text)) == 6
    rate = sorted(loaded)[2]
    steps = int(re.search(r"training steps mlp +│ (\d+) images/s", text)[1])
    limit, least = re.search(r"what limits +│ the (\w+): (\d+) images/s", text).groups()
    assert int(least) == min(rate, steps)
    assert limit == ("loader" if rate < steps else "steps")


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
