"""Bad input to the other experiments and commands: one line, exit code 2 and nothing written."""

import json
import shlex
import subprocess
import sys

import pytest

from rethink_jax.report import __main__ as report
from tests.entry_point import Outcome, environment_of_a_command, make_place
from tests.test_bad_input import EVIL, assert_refused, content, mine

KERNEL, THEOREM = "configs/kernel_mnist.py:digits", "configs/expressivity.py:digits"
LINEAR, RADEMACHER = "configs/minimum_norm.py:digits", "configs/rademacher.py:digits"
STABILITY, TABLE = "configs/stability.py:digits", "configs/table1.py:smoke"
TRAIN, IMAGENET = "configs/true_labels.py:digits", "configs/imagenet/true_labels.py"

# File, field, value as it is typed; what the line says after the field's name, up to its end or "…".
VALUES = [
    *(
        (KERNEL, field, value, f"is {shown}; it must be {allowed}")
        for field, value, shown, allowed in (
            ("seed", "-1", "-1", "in [0, 2**32)"),
            ("seed", "4294967296", "4294967296", "in [0, 2**32)"),
            ("kernel.name", "laplace", "'laplace'", "one of gaussian, linear"),
            ("kernel.gammas", "()", "()", "one or more numbers above 0"),
            ("kernel.gammas", "(0.0,)", "(0.0,)", "one or more numbers above 0"),
            ("kernel.gammas", "(-1.0, 1.0)", "(-1.0, 1.0)", "one or more numbers above 0"),
            ("kernel.ridges", "()", "()", "one or more numbers of 0 or more"),
            ("kernel.ridges", "(-0.1,)", "(-0.1,)", "one or more numbers of 0 or more"),
            ("kernel.validation_fraction", "0.0", "0.0", "in [0.01, 0.9]"),
            ("kernel.validation_fraction", "1.0", "1.0", "in [0.01, 0.9]"),
            ("kernel.validation_fraction", "nan", "nan", "in [0.01, 0.9]"),
            ("kernel.selection_examples", "0", "0", "in [1, 1000000]"),
            ("solver.dtype", "float16", "'float16'", "float32 or float64"),
            ("solver.rank", "0", "0", "in [1, 100000]"),
            ("solver.tolerance", "0.0", "0.0", "in [1e-12, 0.5]"),
            ("solver.tolerance", "1.0", "1.0", "in [1e-12, 0.5]"),
            ("solver.tolerance", "nan", "nan", "in [1e-12, 0.5]"),
            ("solver.max_iterations", "0", "0", "in [1, 1000000]"),
            ("solver.save_seconds", "-1.0", "-1.0", "in [0, 86400]"),
            ("grace_seconds", "0.0", "0.0", "in [0.1, 86400]"),
            ("features.name", "sift", "'sift'", "one of pixels, gabor, random_convolutions"),
            ("features.filters", "0", "0", "in [1, 1000000]"),
            ("features.filters", "9", "9", "left out for pixels, it is for random_convolutions"),
            ("features.orientations", "65", "65", "in [1, 64]"),
            ("features.orientations", "4", "4", "left out for pixels, it is for gabor"),
            ("features.wavelengths", "()", "()", "tuples of numbers in [2, 256], …"),
            ("features.wavelengths", "((1.0,),)", "((1.0,),)", "tuples of numbers in …"),
            ("features.pools", "(0,)", "(0,)", "whole numbers in [1, 256]"),
            ("features.pools", "(1.5,)", "(1.5,)", "whole numbers in [1, 256]"),
            ("experiment", "train", "'train'", "one of kernel"),
            ("data.examples", "0", "0", "…"),
            ("data.examples", "1501", "1501", "…"),
        )
    ),
    *(
        (THEOREM, field, value, f"is {shown}; it must be {allowed}")
        for field, value, shown, allowed in (
            ("theorem.depth", "0", "0", "in [1, 10000]"),
            ("theorem.evaluate_all_up_to", "0", "0", "in [1, 1000000]"),
            ("theorem.sample_size", "0", "0", "in [1, 1000000]"),
            ("synthetic.points", "0", "0", "in [1, 100000000]"),
            ("synthetic.points", "9", "9", "left out for digits, it is for synthetic points"),
            ("synthetic.dimension", "0", "0", "in [1, 1000000]"),
            ("synthetic.classes", "0", "0", "in [1, 1000000]"),
            ("seed", "-1", "-1", "in [0, 2**32)"),
            ("corruption.seed", "-1", "-1", "in [0, 2**32)"),
            ("corruption.probability", "0.5", "0.5", "1.0 or left out for random_labels"),
            ("corruption.name", "gaussian", "'gaussian'", "one of true_labels, …"),
            ("experiment", "evaluate", "'evaluate'", "one of expressivity"),
        )
    ),
    *(
        (LINEAR, field, value, f"is {shown}; it must be {allowed}")
        for field, value, shown, allowed in (
            ("sgd.epochs", "0", "0", "…"),
            ("seed", "4294967296", "4294967296", "in [0, 2**32)"),
            ("corruption.name", "random_pixels", "'random_pixels'", "one of true_labels, …"),
            ("corruption.probability", "0.5", "0.5", "1.0 or left out for random_labels"),
            ("corruption.probability", "nan", "nan", "in [0, 1]"),
            ("data.examples", "-1", "-1", "…"),
        )
    ),
    *(
        (file, field, value, f"is {shown}; it must be {allowed}")
        for file, kind, count in (
            (RADEMACHER, "rademacher", "rademacher.draws"),
            (STABILITY, "stability", "stability.replacements"),
        )
        for field, value, shown, allowed in (
            (count, "0", "0", "in [1, 1000]"),
            (count, "1001", "1001", "in [1, 1000]"),
            ("model.width", "0", "0", "1 or more"),
            ("model.batch_norm", "false", "False", "left out for mlp, …"),
            ("batch_size", "0", "0", "in [1, 1048576]"),
            ("corruption.probability", "0.5", "0.5", "1.0 or left out for true_labels"),
            ("augment.random_crop", "true", "True", "False for digits's images of 8×8, …"),
            ("experiment", "train", "'train'", f"one of {kind}"),
        )
    ),
    *(
        (TABLE, field, value, f"is {shown}; it must be {allowed}")
        for field, value, shown, allowed in (
            ("sweep.only", "mlp2", "'mlp2'", "a name or a pattern of inception-crop-decay, …"),
            ("sweep.only", "", "''", "a name or a pattern of …"),
            ("sweep.seeds", "0", "0", "in [1, 1000]"),
            ("sweep.seeds", "1001", "1001", "in [1, 1000]"),
            ("launcher", "pbs", "'pbs'", "one of local, slurm, submitit_local"),
            ("corruption.probability", "0.5", "0.5", "1.0 or left out for true_labels"),
            ("data.workers", "2", "2", "left out where data.stream is False"),
        )
    ),
    *(
        (TRAIN, field, value, f"is {shown}; it must be {allowed}")
        for field, value, shown, allowed in (
            ("optimizer.weight_decay", "-0.1", "-0.1", "in [0, 1)"),
            ("optimizer.weight_decay", "1.0", "1.0", "in [0, 1)"),
            ("optimizer.weight_decay", "nan", "nan", "in [0, 1)"),
            ("optimizer.weight_decay_on", "biases", "'biases'", "all, kernels or hidden_dense"),
            ("optimizer.drop_epochs", "(0,)", "(0,)", "whole numbers in [1, 2**31)"),
            ("optimizer.drop_epochs", "(1.5,)", "(1.5,)", "whole numbers in [1, 2**31)"),
            ("augment.rotation_degrees", "-1.0", "-1.0", "in [0, 180]"),
            ("augment.rotation_degrees", "181.0", "181.0", "in [0, 180]"),
            ("augment.rotation_degrees", "nan", "nan", "in [0, 180]"),
            ("model.dropout", "1.0", "1.0", "in [0, 1)"),
            ("model.dropout", "-0.1", "-0.1", "in [0, 1)"),
            ("model.batch_norm", "false", "False", "left out for mlp, which does not have it"),
            ("corruption.probability", "0.5", "0.5", "1.0 or left out for true_labels"),
            ("corruption.per_channel", "false", "False", "True for true_labels, …"),
            ("corruption.before_crop", "true", "True", "False for true_labels, …"),
            ("augment.random_crop", "true", "True", "False for digits's images of 8×8, …"),
            ("data.workers", "2", "2", "left out where data.stream is False"),
            ("data.workers", "-1", "-1", "in [0, 1024]"),
        )
    ),
    *(
        (TRAIN, f"model.name={model} --config.{field}", value, f"is {shown}; it must be {allowed}")
        for model, field, value, shown, allowed in (
            ("small_alexnet", "model.width", "16", "16", "left out for small_alexnet, …"),
            ("wide_resnet", "model.depth", "3", "3", "left out for wide_resnet, …"),
            ("alexnet", "data.size", "8", "8", "63 or more for alexnet"),
            ("vgg11", "data.size", "8", "8", "32 or more for vgg11"),
            ("inception_v3", "data.size", "8", "8", "75 or more for inception_v3"),
        )
    ),
    *(
        (
            TRAIN,
            f"model.name={model} --config.optimizer.weight_decay=0.1 "
            "--config.optimizer.weight_decay_on",
            "hidden_dense",
            f"is 'hidden_dense'; it must be all or kernels for {model}, which has no hidden dense …",
        )
        for model in ("small_inception", "wide_resnet", "resnet18")
    ),
    *(
        (file, field, "x", f"is 'x'; it must be {allowed}")
        for file, field, allowed in (
            (KERNEL, "solver.rank", "a whole number"),
            (KERNEL, "solver.tolerance", "a number"),
            (KERNEL, "kernel.gamma_scale", "true or false"),
            (THEOREM, "theorem.depth", "a whole number"),
            (LINEAR, "sgd.epochs", "a whole number"),
            (RADEMACHER, "rademacher.draws", "a whole number"),
            (STABILITY, "stability.replacements", "a whole number"),
            (TABLE, "sweep.seeds", "a whole number"),
            (TRAIN, "data.stream", "true or false"),
            (TRAIN, "data.fake", "true or false"),
            (TRAIN, "augment.flip", "true or false"),
            (TRAIN, "optimizer.weight_decay", "a number"),
            (TRAIN, "augment.rotation_degrees", "a number"),
            (TRAIN, "model.initial_std", "a number"),
        )
    ),
]

NO_FIELDS = [
    (KERNEL, "augment.flip", "augment"),
    (KERNEL, "model.name", "model"),
    (KERNEL, "kernel.gamma", "kernel.gamma"),
    (KERNEL, "solver.ranks", "solver.ranks"),
    (THEOREM, "theorem.deep", "theorem.deep"),
    (THEOREM, "optimizer.momentum", "optimizer"),
    (LINEAR, "sgd.steps", "sgd.steps"),
    (LINEAR, "epochs", "epochs"),
    (RADEMACHER, "rademacher.seeds", "rademacher.seeds"),
    (RADEMACHER, "stability.replacements", "stability"),
    (STABILITY, "rademacher.draws", "rademacher"),
    (TABLE, "sweep.rows", "sweep.rows"),
    (TABLE, "launchers", "launchers"),
    (TRAIN, "sweep.only", "sweep"),
    (IMAGENET, "augment.crop", "augment.crop"),
]

# What `config.….RUNS` of a config file of one's own says: a call, and the line.
ENTRIES = {
    'config.cifar10_entry("inception-croop")': "run 'inception-croop' has the word 'croop'; …",
    'config.cifar10_entry("mlp1-decay-decay")': "run 'mlp1-decay-decay' has the word 'decay' twice",
    'config.cifar10_entry("mlp9")': "run 'mlp9' begins with 'mlp9'; it must be one of inception, …",
    'config.cifar10_entry("mlp1-random-p0.5")': "run 'mlp1-random-p0.5' has words that contradict …",
    'config.cifar10_entry("mlp1", {"model.depth": 3})': "run 'mlp1' sets config.model.depth to 1 by …",
    'config.imagenet_entry("true-augmnet")': "run 'true-augmnet' has the word 'augmnet'; …",
    'config.imagenet_entry("wrong")': "run 'wrong' begins with 'wrong'; it must be one of true, random",
}
RUNS_OF = {
    'config.cifar10_entry("mlp1-p1.5")': "run mlp1-p1.5: config.corruption.probability is 1.5; …",
    'config.sweep_entry("a b", {})': "config.sweep.runs is 'a b'; it must be names of letters, …",
    'config.sweep_entry("a", {"nope": 1})': "run a: config.nope is no field",
    'config.sweep_entry("a", {"model.name": "mlp4"})': "run a: config.model.name is 'mlp4'; …",
    'config.sweep_entry("a", {"epochs": "x"})': "run a: config.epochs is 'x'; it must be a whole number",
    '{"name": "a"}': "config.sweep.runs is …",
}


def sweep_of(entry):
    return (
        "from rethink_jax import config\ndef get_config():\n"
        f"    return config.sweep('mine', 'digits', [{entry}])\n"
    )


CASES = [
    *(
        (
            f"--config={file} --config.{field}={shlex.quote(value)}",
            f"config.{field.rpartition('--config.')[2]} {told}",
            None,
        )
        for file, field, value, told in VALUES
    ),
    *(
        (f"--config={file} --config.{field}=1", f"config.{told} is no field; …", None)
        for file, field, told in NO_FIELDS
    ),
    *(("--config=mine.py", f"mine.py: {told}", sweep_of(entry)) for entry, told in ENTRIES.items()),
    *(("--config=mine.py", told, sweep_of(entry)) for entry, told in RUNS_OF.items()),
    *(
        (f"--config={file}:{argument}", f"{file}:{argument}: the config's argument is …", None)
        for file in ("configs/table1.py", "configs/figure1bc.py", "configs/imagenet/table2.py")
        for argument in ("a,b", "digits,", "smoke,full")
    ),
    (
        "--config=configs/imagenet/table2.py:small",
        "configs/imagenet/table2.py:small: the config's argument is 'small'; …",
        None,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} → {case[1]}"[:150])
def test_one_line_and_nothing_written(case, in_process, tmp_path):
    arguments, line, text = case
    here = make_place(tmp_path / "here")
    if text is not None:
        mine(text)(here)
    before = content(here)
    outcome = in_process.start([*shlex.split(arguments), "--workdir=run"], here)
    assert content(here) == before
    assert_refused(outcome, line)


def test_there_are_enough():
    from tests import test_bad_input

    every = {case[0] + (case[2] or "") for case in CASES}
    assert len(every) == len(CASES)
    assert len(CASES) + len(test_bad_input.CASES) >= 300


# The other commands.


def a_sweep(path, **changes):
    entry = {"name": "mlp1", "seed": 0, "directory": "mlp1-seed0", "status": "not run yet"}
    entry |= {"expect_divergence": False, "diverged": False} | changes.pop("entry", {})
    path.mkdir()
    (path / "sweep.json").write_text(
        json.dumps({"name": "table1", "size": "full", "runs": [entry]} | changes)
    )


@pytest.mark.parametrize(
    ("arguments", "made", "told"),
    [
        ([], {}, "the following arguments are required: --workdir"),
        (["--workdir=nope"], {}, "nope"),
        (["--workdir=empty"], {}, "empty"),
        (["--workdir=sweep", "--nope"], {}, "unrecognized arguments: --nope"),
        (["--workdir=sweep"], {"entry": {"status": "odd"}}, "the status of mlp1-seed0 is 'odd'"),
        (["--workdir=sweep"], {"runs": [{}]}, "is damaged"),
        (["--workdir=sweep"], {"runs": 3}, "is damaged"),
        (["--workdir=sweep"], {"entry": {"status": "finished"}}, "mlp1-seed0"),
    ],
)
def test_the_report(arguments, made, told, tmp_path, monkeypatch, capsys):
    a_sweep(tmp_path / "sweep", **dict(made))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jax.config.update", lambda *_: None)
    before = content(tmp_path)
    with pytest.raises(SystemExit) as left:
        report.main(arguments)
    printed = capsys.readouterr().err
    assert left.value.code == 2
    assert printed.startswith("rethink_jax: ")
    assert printed.count("\n") == 1
    assert told in printed
    assert content(tmp_path) == before


COMMANDS = {
    "rethink_jax.main --config=nope.py": "--config names 'nope.py', which is no file",
    f"rethink_jax.main --config={TRAIN} --config.epochs=0": "config.epochs is 0; …",
    f"rethink_jax.main --config={KERNEL} --config.solver.rank=0": "config.solver.rank is 0; …",
    f"rethink_jax.main --config={TABLE} --config.sweep.only=mlp9": "config.sweep.only is 'mlp9'; …",
    f"rethink_jax.main --config={TRAIN} --config.model='{EVIL}'": "config.model is a group of …",
    "rethink_jax.bench --config.model.name=vgg": "config.model.name is 'vgg'; …",
    "rethink_jax.bench --config=configs/true_labels.py:digits": "config.data.stream is False; …",
    "rethink_jax.bench --config=configs/kernel_mnist.py": "config.experiment is 'kernel'; …",
    "rethink_jax.report": "the following arguments are required: --workdir; …",
    "rethink_jax.models --nope": "'--nope' is given; there are no arguments",
    "rethink_jax.chaos --nope=1": "Unknown command line flag 'nope'",
    "rethink_jax.chaos --kills=x": "--kills is 'x'; it must be a whole number",
    "rethink_jax.data.imagenet": "the following arguments are required: --manual_dir, --data_dir; …",
    "rethink_jax.data.synthetic_imagenet": "the following arguments are required: --data_dir; …",
    "rethink_jax.data.imagenet --manual_dir=nope --data_dir=out": "--manual_dir is 'nope'; …",
}


@pytest.mark.ci
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_as_a_user_runs_it(command, entry_point, tmp_path):
    here = make_place(tmp_path / "here")
    before = content(here)
    module, *arguments = shlex.split(command)
    if module == "rethink_jax.main":
        outcome = entry_point.start(arguments, here)
    else:
        result = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=here,
            env=environment_of_a_command(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        outcome = Outcome(result.returncode, result.stdout, result.stderr)
    told = COMMANDS[command].removesuffix("…")
    assert outcome.stderr.startswith(f"rethink_jax: {told}"), outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert "Traceback" not in outcome.stdout
    assert outcome.code == 2
    assert content(here) == before
