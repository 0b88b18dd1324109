import json
import os
import re
import subprocess
import sys

import pytest

from rethink_jax import config as config_lib, models
from rethink_jax.bench import rates, task, turns
from rethink_jax.data import synthetic_imagenet
from rethink_jax.runs.resolve import resolve
from tests.data_helpers import of_size
from tests.entry_point import ROOT

pytestmark = pytest.mark.ci

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
    synthetic_imagenet.prepare(root, 40, 5, height=30, width=40)
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


@pytest.mark.ci
def test_a_start_is_timed_and_its_memory():
    done = bench("--what=start", "--repeats=1", "--config=configs/random_labels.py:digits")
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"command to end, [\w ]+│ ([\d.]+) s", done.stdout)[1]) > 0.5
    assert 0.1 < float(re.search(r"peak memory +│ ([\d.]+) GiB", done.stdout)[1]) < 3


@pytest.mark.ci
def test_a_start_that_fails_says_why():
    config = ("--config=configs/random_labels.py:digits", "--config.batch_size=0")
    done = bench("--what=start", *config)
    assert done.returncode == 2
    assert done.stderr == "rethink_jax: config.batch_size is 0; it must be in [1, 1048576]\n"


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


def test_steps_and_evaluations_are_timed_in_turns(tmp_path):
    file = tmp_path / "rates.json"
    done = bench(
        "--what=train,eval", "--model=mlp1", "--repeats=3", "--seconds=0.1", f"--json={file}"
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(file.read_text())
    assert "--what=train,eval" in content["command"]
    assert "--config" not in content["command"]  # none was typed
    ((ours,),) = content["models"]
    assert ours["parameters"] == 1_209_866
    assert {word: len(rates) for word, rates in ours["rates"].items()} == {"train": 3, "eval": 3}
    median = sorted(ours["rates"]["train"])[1]
    assert f"{median:,.0f} (" in done.stdout
    share = median * ours["flops"] / ours["peak"]
    assert f"{share:.0%} of {ours['peak'] / 1e9:,.0f}" in done.stdout


def test_operations_are_those_of_the_definition():
    """Whatever the steps take on a CPU. XLA leaves out products with the zeros around maps."""
    config = config_lib.train("cifar10", "random_labels")
    config.model.name = "small_alexnet"
    config, _ = resolve(config, of_size())
    convolutions = 28**2 * 5**2 * 3 * 64 + 14**2 * 5**2 * 64 * 64
    dense = 7**2 * 64 * 384 + 384 * 192 + 192 * 10
    forward = rates.training_flops(config, 10, 3) / 3
    assert 0.85 < forward / (2 * (convolutions + dense)) < 1.05


def test_ratios_are_medians_over_the_turns():
    ours = {"rates": {"train": [10.0, 30.0, 20.0]}}
    other = {"rates": {"train": [10.0, 10.0, 10.0]}}
    loop = {"rates": {}}
    assert turns.ratios([ours, other, loop], "train") == [1.0, 2.0, None]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--what=train,input"], "--what"),
        (["--what=speed"], "--what"),
        (["--what="], "--what"),
        (["--what=train", "--model=mlp9"], "--model"),
        (["--what=train", "--repeats=0"], "--repeats"),
    ],
)
def test_a_mistake_is_one_line(arguments, said):
    done = bench(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("model", task.MODELS)
def test_pytorch_has_as_many_parameters(model):
    pytest.importorskip("torch")
    from rethink_jax.bench.torch_models import MODELS

    config, side = task.recipe(model, 1000, 128, "float32"), task.image_side(model)
    ours = models.count_parameters(models.create(config.model, task.CLASSES), (side, side, 3))
    trained = [p for p in MODELS[model]().parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == ours


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp1", "small_alexnet", "small_inception"])
def test_pytorch_fits_random_labels(model):
    pytest.importorskip("torch")
    from rethink_jax.bench import theirs

    images, labels = task.make(model, 256)
    rate = task.recipe(model, 256, 32, "float32").optimizer.learning_rate
    forms = [theirs.Form(channels_last=True, compile="")]
    side = theirs.Side(model, images, labels, 32, rate, "float32", forms)
    for _ in range(60):
        side.train(5.0)
        if side.accuracy() == 1.0:
            return
    pytest.fail(f"accuracy is {side.accuracy():.1%} after 5 minutes")
