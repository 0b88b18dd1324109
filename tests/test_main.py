import shlex

import pytest

from rethink_jax.training.load import load_run
from tests.entry_point import make_place, start
from tests.test_bad_input import CASES, DIGITS, PLAIN, assert_refused, content

pytestmark = pytest.mark.ci

LINES = {case.arguments: case.line for case in CASES}


@pytest.fixture
def here(tmp_path):
    return make_place(tmp_path / "here")


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        DIGITS + "--nope",
        DIGITS + "--config.optimizer.nope=1",
        DIGITS + "--config.batch_size=0",
        PLAIN + "--config.data.name=cifar11",
    ],
)
def test_a_process_of_its_own_says_what_a_fork_says(arguments, here):
    before = content(here)
    assert_refused(start(shlex.split(arguments), here), LINES[arguments])
    assert content(here) == before


@pytest.mark.parametrize("mistake", ["--nope", "--config.data.size=9"])
def test_debug_shows_the_traceback(mistake, here):
    outcome = start(shlex.split(DIGITS + mistake + " --debug"), here)
    assert outcome.code == 1
    assert "Traceback" in outcome.stderr


def test_the_main_job(here):
    arguments = [
        "--config=configs/random_pixels.py:digits",
        "--workdir=run",
        "--config.epochs=3",
        "--config.optimizer.learning_rate=0.05",
    ]
    outcome = start(arguments, here)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stderr == ""
    run = load_run(here / "run")
    assert run.config.corruption.name == "random_pixels"
    assert run.config.optimizer.learning_rate == 0.05
    assert f"epoch 3  step 36  train {run.summary['train_accuracy']:.2%}" in outcome.stdout
    again = start(arguments, here)
    assert again.code == 0
    assert "is finished" in again.stdout
