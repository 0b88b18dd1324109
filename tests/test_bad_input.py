"""Bad input: what a user does, and the one line that it must give, with exit code 2 and nothing written."""

import contextlib
import fcntl
import itertools
import os
import pickle
import shlex
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.entry_point import make_place

PLAIN = "--config=configs/true_labels.py --workdir=run "
DIGITS = "--config=configs/true_labels.py:digits --workdir=run "

# The line stands for its beginning where it ends with "…".

FLAGS = {
    # --config.
    "": "--config is missing; for example --config=configs/random_pixels.py:digits",
    "--workdir=run": "--config is missing; for example --config=configs/random_pixels.py:digits",
    "configs/true_labels.py": "--config is missing; for example …",
    "--config": "--config names '', which is no file",
    "--config=": "--config names '', which is no file",
    "--config=:digits": "--config names '', which is no file",
    "--config=configs": "--config names 'configs', which is no file",
    "--config=configs/nope.py": "--config names 'configs/nope.py', which is no file",
    "--config=configs/nope.py --config.seed=1": "--config names 'configs/nope.py', which is no file",
    DIGITS + "--config=configs/gaussian.py": "--config is given 2 times; it must be given once",
    "--config.seed=1 " + DIGITS: "Found --config.seed=1 in argv before a value for --config was …",
    # Names and values.
    DIGITS + "--nope": "Unknown command line flag 'nope'",
    DIGITS + "--wrkdir=run": "Unknown command line flag 'wrkdir'. Did you mean: workdir ?",
    DIGITS + "--configs.seed=1": "Unknown command line flag 'configs.seed'",
    DIGITS + "--debug=perhaps": "--debug is 'perhaps'; it must be true or false",
    DIGITS + "--workdir": "Missing value for flag --workdir",
    DIGITS + "--config.epochs": "Missing value for flag --config.epochs",
    DIGITS + "false": "'false' belongs to no flag; write --flag=value, with an equals sign",
    DIGITS + "-- false": "'false' belongs to no flag; write --flag=value, with an equals sign",
    DIGITS + "--config.model.batch_norm false": "'false' belongs to no flag; write --flag=value, …",
    # --workdir.
    DIGITS + "--workdir=": "--workdir is ''; it must be a folder, or a place for one",
    DIGITS + "--workdir=file": "--workdir is 'file'; it must be a folder, or a place for one",
    DIGITS
    + "--workdir=file/run": "--workdir is 'file/run'; it must be a folder, or a place for one",
    DIGITS + f"--workdir={'x' * 300}": f"--workdir is '{'x' * 300}': File name too long",
    DIGITS + "--workdir=~nobody_here/run": (
        "--workdir is '~nobody_here/run': Could not determine home directory."
    ),
}

TOGETHER = "--coordinator_address, --num_processes and --process_id go together"
PROCESSES = {
    "--coordinator_address=a:1": f"--num_processes is missing; {TOGETHER}",
    "--num_processes=2 --process_id=0": f"--coordinator_address is missing; {TOGETHER}",
    "--coordinator_address=a:1 --num_processes=2": f"--process_id is missing; {TOGETHER}",
    "--coordinator_address=a:1 --num_processes=2 --process_id=2": (
        "--process_id is 2; it must be in [0, 2), the processes"
    ),
    "--coordinator_address=a:1 --num_processes=2 --process_id=-1": (
        "--process_id is -1; it must be in [0, 2), the processes"
    ),
    "--coordinator_address=a:1 --num_processes=0 --process_id=0": (
        "--num_processes is 0; it must be 1 or more"
    ),
    "--num_processes=two": "--num_processes is 'two'; it must be a whole number",
    "--process_id=": "--process_id is ''; it must be a whole number",
    **{
        f"--coordinator_address={address} --num_processes=2 --process_id=0": (
            f"--coordinator_address is '{address}'; it must be host:port"
        )
        for address in ("", "a", "a:", ":1", "a:b", "a:0", "a:65536", "http://a:80")
    },
}

# The text of --config=mine.py.
FILES = {
    "def get_config():\n    return 1 / 0\n": "mine.py: ZeroDivisionError: division by zero",
    "def get_config(:\n": "mine.py: SyntaxError: …",
    "import nothing_of_the_kind\n": "mine.py: ModuleNotFoundError: No module named 'nothing_of_…",
    "raise ValueError('two\\nlines')\n": "mine.py: ValueError: two lines",
    "raise TypeError\n": "mine.py: TypeError",
    "open('nope')\n": "mine.py: FileNotFoundError: [Errno 2] No such file or directory: 'nope'",
    "": "mine.py: AttributeError: module 'mine' has no attribute 'get_config'",
    "def get_config(data):\n    pass\n": "mine.py: TypeError: get_config() missing 1 required …",
    "def get_config():\n    pass\n": (
        "mine.py: get_config returns a NoneType; it must return a ConfigDict, for example …"
    ),
    "def get_config():\n    return {'seed': 1}\n": (
        "mine.py: get_config returns a dict; it must return a ConfigDict, for example …"
    ),
}

# What --config=mine.py makes of the base config.
CHANGES = {
    "c.epoch = 3": "config.epoch is no field; config has augment, batch_size, …",
    "c.model.nope = 3": (
        "config.model.nope is no field; config.model has auxiliary, batch_norm, depth, dropout, …"
    ),
    "del c.model.depth": (
        "config.model.depth is missing; config.model has auxiliary, batch_norm, depth, dropout, …"
    ),
    "del c.model": "config.model is missing; config has augment, batch_size, …",
    "del c.model; c.model = 'mlp'": (
        "config.model is 'mlp'; it must be a group of fields: auxiliary, batch_norm, …"
    ),
    "c.batch_size = None": "config.batch_size is None; it must be a whole number",
    "c.batch_size = 'x'": "mine.py: TypeError: Could not override field 'batch_size' …",
    "del c.seed; c.seed = '1'": "config.seed is '1'; it must be a whole number",
    "del c.seed; c.seed = True": "config.seed is True; it must be a whole number",
    "del c.dtype; c.dtype = 32": "config.dtype is 32; it must be text",
    "del c.model.batch_norm; c.model.batch_norm = 1": (
        "config.model.batch_norm is 1; it must be true or false"
    ),
    "c.optimizer.momentum = float('nan')": "config.optimizer.momentum is nan; it must be in [0, 1)",
}

EVIL = '__import__("os").system("touch evaluated")'
COUNTS = (
    *("epochs", "steps", "data.examples", "data.size", "evaluate.every_epochs"),
    *("checkpoint.every_epochs", "checkpoint.every_steps", "checkpoint.keep"),
)
BOOLS = (
    *("stop_when_fitted", "model.batch_norm"),
    *("corruption.per_channel", "corruption.before_crop"),
    *("augment.color", "model.auxiliary"),
)
NUMBERS = {
    "optimizer.learning_rate": ("above 0 and finite", ("0.0", "-0.1", "nan", "inf", "-inf")),
    "optimizer.decay_per_epoch": ("in (0, 1]", ("0.0", "-0.1", "1.01", "nan", "inf")),
    "optimizer.momentum": ("in [0, 1)", ("-0.1", "1.0", "nan", "inf")),
    "optimizer.warmup_epochs": ("in [0, 2**31)", ("-0.1", "nan", "inf")),
    "stop_at_loss": ("above 0 and finite", ("0.0", "-0.1", "nan", "inf")),
    "label_smoothing": ("in [0, 1)", ("-0.1", "1.0", "nan", "inf")),
    "corruption.probability": ("in [0, 1]", ("-0.1", "1.5", "nan", "inf")),
    "grace_seconds": ("in (0, 86400], a day at most", ("0.0", "-1.0", "86401.0", "nan", "inf")),
}
FIELDS = {
    # No field, or no field to set.
    "nope=1": "config.nope is no field; config has augment, batch_size, …",
    "optimizer.nope=1": (
        "config.optimizer.nope is no field; config.optimizer has decay_per_epoch, drop_epochs, "
        "learning_rate, momentum, schedule, warmup_epochs, weight_decay, weight_decay_on"
    ),
    "seed.nope=1": "config.seed.nope is no field; config.seed has no fields",
    "=1": "config. is no field; config has …",
    "lock=1": "config.lock is no field; config has …",
    "__class__=int": "config.__class__ is no field; config has …",
    "data._fields.name=x": "config.data._fields is no field; config.data has …",
    "get_config.__globals__.x=1": "config.get_config is no field; config has …",
    """data'["name"]'=digits""": 'config.data["name"] is no field; config has …',
    **{
        f"model={shlex.quote(value)}": (
            "config.model is a group of fields; set one of auxiliary, batch_norm, depth, dropout, "
            "initial_std, name, width in it"
        )
        for value in ("mlp", "", "{'name': 'mlp'}", EVIL)
    },
    # Whole numbers.
    **{
        f"{field}={value}": f"config.{field} is {value}; it must be in [1, 2**31)"
        for field in COUNTS
        for value in (0, -1, 2**31)
    },
    **{
        f"{field}={value}": f"config.{field} is '{value}'; it must be a whole number"
        for field in (
            *COUNTS,
            "batch_size",
            "seed",
            "corruption.seed",
            "model.depth",
            "model.width",
        )
        for value in ("2.5",)
    },
    **{
        f"epochs={shlex.quote(value)}": f"config.epochs is {value!r}; it must be a whole number"
        for value in ("", "few", "1e3", "nan", "inf", "true", "None", "1 2", EVIL)
    },
    **{
        f"{field}={value}": f"config.{field} is {value}; it must be in [0, 2**32)"
        for field in ("seed", "corruption.seed")
        for value in (-1, 2**32)
    },
    **{
        f"batch_size={value}": f"config.batch_size is {value}; it must be in [1, 1048576]"
        for value in (0, -1, 2**20 + 1, 10**30)
    },
    **{
        f"model.{field}={value}": f"config.model.{field} is {value}; it must be 1 or more"
        for field in ("depth", "width")
        for value in (0, -1)
    },
    "model.initial_std=0": "config.model.initial_std is 0.0; it must be in (0, 1]",
    "model.initial_std=1.5": "config.model.initial_std is 1.5; it must be in (0, 1]",
    "model.name=wide_resnet --config.model.initial_std=0.04": (
        "config.model.initial_std is 0.04; it must be left out for wide_resnet, which has its own"
    ),
    "augment.color=true": (
        "config.augment.color is True; it must be False for digits's images, which are not red, "
        "green and blue"
    ),
    "model.auxiliary=true": (
        "config.model.auxiliary is True; it must be False for mlp, which has no second classifier"
    ),
    "model.auxiliary=true --config.model.name=resnet18": (
        "config.model.auxiliary is True; it must be False for resnet18, which has no second classifier"
    ),
    "optimizer.schedule=linear": (
        "config.optimizer.schedule is 'linear'; it must be exponential or cosine"
    ),
    "optimizer.schedule=cosine --config.optimizer.decay_per_epoch=0.9": (
        "config.optimizer.decay_per_epoch is 0.9; it must be 1.0 or left out for cosine"
    ),
    "model.depth=1001": "config.model.depth is 1001; it must be at most 1000",
    "model.width=1048577": "config.model.width is 1048577; it must be at most 1048576",
    "data.examples=1501": (
        "config.data.examples is 1501; it must be in [1, 1500], the training examples of digits"
    ),
    "data.size=9": "config.data.size is 9; it must be at most 8, the side of digits's images",
    # Numbers.
    **{
        f"{field}={value}": f"config.{field} is {value}; it must be {allowed}"
        for field, (allowed, values) in NUMBERS.items()
        for value in values
    },
    **{
        f"{field}={shlex.quote(value)}": f"config.{field} is {value!r}; it must be a number"
        for field in NUMBERS
        for value in ("x", EVIL)
    },
    # True or false.
    **{f"{field}=maybe": f"config.{field} is 'maybe'; it must be true or false" for field in BOOLS},
    f"model.batch_norm='{EVIL}'": f"config.model.batch_norm is '{EVIL}'; it must be true or false",
    # Names.
    "experiment=test": "config.experiment is 'test'; it must be one of train, evaluate",
    "experiment=": "config.experiment is ''; it must be one of train, evaluate",
    "dtype=float16": "config.dtype is 'float16'; it must be float32 or bfloat16",
    "corruption.name=noise": (
        "config.corruption.name is 'noise'; it must be one of true_labels, partially_corrupted_labels, "
        "random_labels, shuffled_pixels, random_pixels, gaussian, symmetric_labels, pair_flip_labels, "
        "asymmetric_labels, transition_labels, instance_dependent_labels, human_labels"
    ),
    "corruption.name=human_labels": "config.corruption.file is None; it must be the file of human_labels",
    "corruption.name=human_labels --config.corruption.file=no.npz": (
        "config.corruption.annotator is None; it must be one of aggregate, random1, random2, random3, worst, …"
    ),
    "corruption.name=human_labels --config.corruption.file=no.npz --config.corruption.annotator=worst": (
        "config.corruption.file is 'no.npz'; [Errno 2] No such file or directory: 'no.npz'"
    ),
    "corruption.name=transition_labels --config.corruption.file=m.csv": "config.corruption.file is 'm.csv'; …",
    "corruption.name=gaussian --config.corruption.file=m.csv": (
        "config.corruption.file is 'm.csv'; it must be left out for gaussian, which reads no file"
    ),
    "corruption.probability=0.5 --config.corruption.name=gaussian": (
        "config.corruption.probability is 0.5; it must be 1.0 or left out for gaussian"
    ),
    **{
        f"model.name={value}": (
            f"config.model.name is '{value}'; it must be one of mlp, small_alexnet, small_inception, "
            "wide_resnet, alexnet, inception_v3, inception_v4, resnet18, resnet34, resnet50, "
            "resnet101, resnet152, vgg11, vgg13, vgg16, vgg19"
        )
        for value in ("vgg", "MLP", "")
    },
    f"corruption.name='{EVIL}'": f"config.corruption.name is '{EVIL}'; it must be one of …",
}


def a_file(here):
    (here / "file").touch()


def images(here, *paths):
    for path in paths:
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(here / path)


def no_images(here):
    (here / "images").mkdir()


def one_class(here):
    images(here, *(f"images/cat/{i}.png" for i in range(9)))


def no_test_images(here):
    images(here, "images/cat/0.png", "images/dog/0.png")


def no_images_in_test(here):
    images(here, "images/train/cat/0.png", "images/train/dog/0.png")
    (here / "images/test").mkdir()


def a_broken_first_image(here):
    images(here, *(f"images/{name}/{i}.png" for name in ("cat", "dog") for i in range(9)))
    (here / "images/cat/0.png").write_text("no image")


IMAGES = "--config.data.name=image_folder --config.data.data_dir=images"
UNKNOWN = "TFDS knows no such data set and none is prepared in tfds; did you mean"
WAYS_ON = (
    "point config.data.data_dir at a folder where it is prepared, "
    "or use the embedded data set: --config=FILE:digits"
)
# Preparation, arguments, line.
DATA = [
    (
        None,
        "--config.data.name=cifar11",
        f"config.data.name is 'cifar11'; {UNKNOWN} cifar10_1 or cifar10 or cifar100? "
        f"Otherwise {WAYS_ON}",
    ),
    (
        None,
        "--config.data.name=digit",
        f"config.data.name is 'digit'; {UNKNOWN} digits? Otherwise {WAYS_ON}",
    ),
    (None, "--config.data.name=", "config.data.name is ''; it must be the name of a data set"),
    *(
        (
            None,
            f"--config.data.name={shlex.quote(name)}",
            f"config.data.name is {name!r}; {UNKNOWN} digits or cifar10? Otherwise {WAYS_ON}",
        )
        for name in ("../tfds", "huggingface:x/y", EVIL)
    ),
    (
        None,
        "--config.data.name=mnist:9.9.9",
        "config.data.name is 'mnist:9.9.9'; TFDS cannot open it in tfds: …",
    ),
    (
        None,
        "--config.data.name=mnist",
        "config.data.name is 'mnist', which is not prepared: no tfds/mnist/3.0.1. `pip install …",
    ),
    (
        None,
        "--config.data.name=mnist --config.data.data_dir=nope",
        "config.data.name is 'mnist', which is not prepared: no nope/mnist/3.0.1. `pip install …",
    ),
    (
        a_file,
        "--config.data.data_dir=file",
        "config.data.data_dir is 'file'; it must be a folder, and it is a file",
    ),
    (
        None,
        "--config.data.name=image_folder",
        "config.data.data_dir is None; it must be the folder that holds the images",
    ),
    (None, IMAGES, "config.data.data_dir is 'images'; it must be a folder of class folders"),
    (
        no_images,
        IMAGES,
        "config.data.data_dir is 'images'; it must hold 2 or more class folders with files, and it "
        "has 0, in itself or in train/ and test/",
    ),
    (
        one_class,
        IMAGES,
        "config.data.data_dir is 'images'; it must hold 2 or more class folders with files, and it "
        "has 1, in itself or in train/ and test/",
    ),
    (no_test_images, IMAGES, "config.data.data_dir is 'images'; it has no test images"),
    (no_images_in_test, IMAGES, "config.data.data_dir is 'images'; it has no test images"),
    (a_broken_first_image, IMAGES, "cat/0.png in images: does not decode: cannot identify …"),
]


def a_damaged_config(here):
    (here / "run/config.json").write_text("{")


def a_damaged_summary(here):
    (here / "run/summary.json").write_text("{")


def a_list_for_a_config(here):
    (here / "run/config.json").write_text("[]")


def a_folder_for_a_config(here):
    (here / "run/config.json").unlink()
    (here / "run/config.json").mkdir()


def a_list_for_a_summary(here):
    (here / "run/summary.json").write_text("[1, 2]")


def no_config(here):
    (here / "run/config.json").unlink()


def no_checkpoints(here):
    shutil.rmtree(here / "run/checkpoints")


def cut_checkpoints(here):
    for file in (here / "run/checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-5])


class Evil:
    """What unpickles as a call."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def pickled_checkpoints(here):
    for file in (here / "run/checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(pickle.dumps(Evil()))


@contextlib.contextmanager
def in_use(here):
    with open(here / "run/lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("process 1 on another machine\n")
        file.flush()
        yield


RUN = PLAIN + IMAGES + " --config.model.width=4 --config.epochs=1 "
OTHER = "choose another --workdir"
EVALUATE = "--config.experiment=evaluate"
# What is done to a finished run, further arguments, line.
RUNS = [
    (
        None,
        "--config.seed=1",
        f"HERE/run holds a run of another config (config.seed 0 → 1); {OTHER}",
    ),
    (
        None,
        "--config.optimizer.momentum=0.5 --config.model.name=small_alexnet",
        "HERE/run holds a run of another config (config.model.name 'mlp' → 'small_alexnet', "
        "config.optimizer.momentum 0.9 → 0.5, config.optimizer.weight_decay_on 'all' → 'hidden_dense'); "
        + OTHER,
    ),
    (
        None,
        f"{EVALUATE} --config.seed=1",
        f"HERE/run holds a run of another config (config.seed 0 → 1); {OTHER}",
    ),
    (a_damaged_config, "", "HERE/run/config.json is damaged: Expecting property name …"),
    (a_damaged_config, EVALUATE, "HERE/run/config.json is damaged: Expecting property name …"),
    (a_damaged_summary, "", "HERE/run/summary.json is damaged: Expecting property name …"),
    (a_list_for_a_config, "", f"HERE/run/config.json is damaged: it holds no object; {OTHER}"),
    (a_folder_for_a_config, "", "HERE/run/config.json is damaged: [Errno 21] Is a directory: …"),
    (a_list_for_a_summary, "", f"HERE/run/summary.json is damaged: it holds no object; {OTHER}"),
    (in_use, "", f"HERE/run is in use by process 1 on another machine; wait for it, or {OTHER}"),
    (no_config, EVALUATE, "HERE/run holds no run to evaluate; train it first"),
    (
        None,
        f"{EVALUATE} --workdir=nope",
        "HERE/nope holds no run to evaluate; train it first",
    ),
    (no_checkpoints, EVALUATE, "HERE/run has no whole checkpoint to evaluate"),
    (cut_checkpoints, EVALUATE, "HERE/run has no whole checkpoint to evaluate"),
    (pickled_checkpoints, EVALUATE, "HERE/run has no whole checkpoint to evaluate"),
]
DAMAGED_CHECKPOINTS = (cut_checkpoints, pickled_checkpoints)


class Case(NamedTuple):
    arguments: str
    line: str
    given: Callable[..., Any] | None = None
    trained: bool = False
    environment: dict[str, str] = {}  # noqa: RUF012


def mine(text):
    """Returns what leaves a config file of that text."""

    def write(here):
        (here / "mine.py").write_text(text)

    return write


BASE = (
    "from rethink_jax import config\ndef get_config():\n    c = config.base(); {}\n    return c\n"
)
CASES = [
    *(Case(arguments, line, a_file) for arguments, line in FLAGS.items()),
    *(Case(DIGITS + arguments, line) for arguments, line in PROCESSES.items()),
    *(Case("--config=mine.py", line, mine(text)) for text, line in FILES.items()),
    *(Case("--config=mine.py", line, mine(BASE.format(text))) for text, line in CHANGES.items()),
    Case(
        "--config=mine.py:digits",
        "mine.py:digits: TypeError: get_config() takes 0 positional arguments but 1 was given",
        mine(BASE.format("")),
    ),
    *(Case(f"{DIGITS}--config.{field}", line) for field, line in FIELDS.items()),
    Case(
        DIGITS,
        "config.batch_size is 128; it must be a multiple of the number of devices, 3",
        environment={"XLA_FLAGS": "--xla_force_host_platform_device_count=3"},
    ),
    *(Case(PLAIN + arguments, line, given) for given, arguments, line in DATA),
    *(Case(RUN + arguments, line, given, True) for given, arguments, line in RUNS),
]


@pytest.fixture(scope="module")
def trained(entry_point, tmp_path_factory):
    """The place of a finished run, with its images and its cache."""
    here = make_place(tmp_path_factory.mktemp("trained") / "here")
    images(here, *(f"images/{name}/{i}.png" for name in ("cat", "dog") for i in range(9)))
    outcome = entry_point.start(shlex.split(RUN), here)
    assert outcome.code == 0, outcome.stderr
    return here


def content(here):
    """Returns all that lies in a folder; of a lock, that it is there."""
    return {
        str(path.relative_to(here)): path.read_bytes()
        if path.is_file() and path.name != "lock"
        else None
        for path in here.rglob("*")
    }


def assert_refused_at_once(in_process, config, arguments, line, tmp_path):
    """Runs a file of configs/ with more arguments: it is refused, and no run directory is made."""
    here = make_place(tmp_path / "here")
    assert_refused(in_process.start([f"--config=configs/{config}", *arguments.split()], here), line)
    assert not (here / "runs").exists()


def assert_refused(outcome, line):
    assert outcome.stderr.count("\n") == 1
    if line.endswith("…"):
        assert outcome.stderr.startswith(f"rethink_jax: {line[:-1]}")
    else:
        assert outcome.stderr == f"rethink_jax: {line}\n"
    assert "Traceback" not in outcome.stdout
    assert outcome.code == 2


def through_a_process(case):
    """Whether a case is run in a process of its own: the first of each kind, and what needs one."""
    kinds = (FLAGS, PROCESSES, FILES, CHANGES, FIELDS)
    firsts = {line for kind in kinds for line in itertools.islice(kind.values(), 2)}
    firsts |= {line for *_, line in (DATA[0], DATA[-1], RUNS[0])}
    return case.line in firsts or case.environment or case.given in DAMAGED_CHECKPOINTS


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.arguments} → {case.line}"[:150])
def test_one_line_and_nothing_written(case, request, tmp_path):
    here = tmp_path / "here"
    if case.trained:
        shutil.copytree(request.getfixturevalue("trained"), here, symlinks=True)
    else:
        make_place(here)
    with contextlib.ExitStack() as stack:
        if case.given and (held := case.given(here)):
            stack.enter_context(held)
        before = content(here)
        how = "entry_point" if through_a_process(case) else "in_process"
        start = request.getfixturevalue(how).start
        outcome = start(shlex.split(case.arguments), here, **case.environment)
        assert content(here) == before
    assert_refused(outcome, case.line.replace("HERE", str(here)))


def test_an_error_of_the_program_is_one_line_too(entry_point, tmp_path):
    here = make_place(tmp_path / "here")
    broken = "import rethink_jax.config\nrethink_jax.config.check = lambda config: 1 / 0\n"
    mine(broken + BASE.format("c.data.name = 'digits'"))(here)
    outcome = entry_point.start(["--config=mine.py"], here)
    assert outcome.stderr == (
        "rethink_jax: ZeroDivisionError: division by zero (--debug shows where)\n"
    )
    assert outcome.code == 1
