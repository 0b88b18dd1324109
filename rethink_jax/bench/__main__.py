"""How fast things are: `python -m rethink_jax.bench --what=train --model=small_inception --against=torch`.

`train` and `eval` time the steps of the models that `--model` names on made-up images in memory. With
`--against=torch` they take turns with PyTorch's. `corrupt` times the corruption of 50,000 images. `input` times
the loader of a streamed data set beside a bare loop of OpenCV's decoder on the same JPEGs and as many
processes, and beside the model's training steps. `step` times the steps of a config alone, beside the largest
matrix product of the device. Both take `--config`; without `--config.data.data_dir` they make the images.
`start` times a whole run of one step of `--config`, import and evaluation included, and its memory.
"""

import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from rethink_jax import cli, config as config_lib, data, output, paper
from rethink_jax.bench import loader, rates, start, tables, task, turns
from rethink_jax.data import cache, synthetic_imagenet
from rethink_jax.distributed import jax_settings
from rethink_jax.errors import UserError, exit_on_error, require
from rethink_jax.pipeline import inputs
from rethink_jax.runs import files
from rethink_jax.runs.resolve import check_names, resolve

DEFAULT_CONFIG = "--config=configs/imagenet/true_labels.py"
OF_CONFIG, OF_MODELS = ("input", "step", "start"), ("train", "eval", "corrupt")
WHAT = flags.DEFINE_list(
    "what", ["input"], f"What is timed: {', '.join(OF_MODELS)}, or one of {', '.join(OF_CONFIG)}."
)
MODEL = flags.DEFINE_list(
    "model", list(task.MODELS)[:4], f"For train and eval: {', '.join(task.MODELS)}."
)
AGAINST = flags.DEFINE_enum("against", None, ["torch"], "What train and eval are compared with.")
DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Of our steps in train and eval."
)
REPEATS = flags.DEFINE_integer(
    "repeats", 5, "Turns of train and eval; runs of start and corrupt.", 1
)
JSON = flags.DEFINE_string("json", None, "A file for the results of train and eval.")
IMAGES = flags.DEFINE_integer("images", 50_000, "Images that the loader is timed over.", 1)
SECONDS = flags.DEFINE_float(
    "seconds", None, "Time for each measurement: 2 for train and eval, otherwise 20.", 0.1
)
CONFIG = config_flags.DEFINE_config_file("config", None, "As for rethink_jax.main.")

_BATCH_SIZE = 128
_MADE_TRAIN, _MADE_TEST = 2000, 10


def main(argv: list[str]) -> None:
    """Prints a table of what `--what` names."""
    typed = argv[1:]
    if cli.names_no_config(argv):
        argv = [argv[0], DEFAULT_CONFIG, *argv[1:]]  # its fields become flags only after it
    cli.parse(argv)
    jax_settings.check_platforms()
    what = WHAT.value
    known = f"one of {', '.join(OF_CONFIG)}, or some of {', '.join(OF_MODELS)}"
    of_config = len(what) == 1 and what[0] in OF_CONFIG
    if not what or not (of_config or set(what) <= set(OF_MODELS)):
        raise UserError(f"--what is {','.join(what)!r}; it must be {known}")
    if what == ["start"]:
        arguments = [word for word in argv[1:] if word.startswith(("--config", "-config"))]
        _print_rows("start", start.time_start(arguments, REPEATS.value))
        return
    if of_config:
        _time_config(what[0], SECONDS.value or 20.0)
        return
    _check_models(MODEL.value)
    if "corrupt" in what:
        _time_corruptions()
    if steps := [word for word in what if word != "corrupt"]:
        _compare(steps, typed)


def _check_models(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in task.MODELS]
    if unknown or not names:
        raise UserError(f"--model is {','.join(names)!r}; it must be of {', '.join(task.MODELS)}")
    if AGAINST.value == "torch" and importlib.util.find_spec("torch") is None:
        raise UserError("--against is 'torch', which needs PyTorch: pip install torch")


def _compare(what: Sequence[str], typed: Sequence[str]) -> None:
    sides = [("ours", DTYPE.value)]
    if AGAINST.value == "torch":
        sides += [("torch", "float32"), ("torch", "bfloat16")]
    console, results = Console(soft_wrap=True), []
    for model in MODEL.value:
        chosen = [*sides]
        if AGAINST.value == "torch" and model.startswith("mlp"):
            chosen.append(("loop", "float32"))
        found = turns.compare(model, what, chosen, REPEATS.value, _BATCH_SIZE, SECONDS.value or 2.0)
        console.print(tables.table(found, what))
        results.append(found)
        if JSON.value:
            content = tables.to_dict(results, ["python", "-m", "rethink_jax.bench", *typed])
            files.write_json(Path(JSON.value), content)


def _time_corruptions() -> None:
    """Prints how long corruptions of 50,000 made-up images take, and their fingerprints: medians.

    One before the first that counts compiles.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (paper.CIFAR10_TRAIN, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, paper.CIFAR10_TRAIN)
    dataset = data.from_arrays((images, labels), (images[:100], labels[:100]), "made_up")
    table = Table(title=f"corruptions of {paper.CIFAR10_TRAIN:,} images of 32×32, in memory")
    table.add_column("corruption")
    table.add_column("seconds", justify="right")
    table.add_column("of its fingerprint", justify="right")
    for name in ("random_labels", "shuffled_pixels", "random_pixels", "gaussian"):
        config, _ = resolve(config_lib.train("made_up", name), dataset)
        of_corruption, of_digest = [], []
        for _ in range(1 + REPEATS.value):
            start = time.perf_counter()
            prepared = inputs.prepare(config, dataset)
            both = time.perf_counter() - start
            start = time.perf_counter()
            inputs.digest([prepared.train, prepared.test])
            of_digest.append(time.perf_counter() - start)
            of_corruption.append(both - of_digest[-1])
        medians = (statistics.median(each[1:]) for each in (of_corruption, of_digest))
        table.add_row(name, *(f"{seconds:.2f}" for seconds in medians))
    Console(soft_wrap=True).print(table)


def _time_config(what: str, seconds: float) -> None:
    config = CONFIG.value
    require(config.experiment == "train", "experiment", config.experiment, "train")
    require(config.data.stream, "data.stream", config.data.stream, "True")
    config_lib.check(config)  # before images are made
    check_names(config)
    jax_settings.use_compilation_cache(config.compilation_cache or cache.root() / "compiled")
    with tempfile.TemporaryDirectory() as folder:
        if config.data.data_dir is None and not config.data.fake and what == "input":
            synthetic_imagenet.prepare(Path(folder), _MADE_TRAIN, _MADE_TEST)
            config.data.data_dir = folder
        if what == "step":
            config.data.fake = True
        resolved, _ = resolve(config)
        rows = (
            rates.time_step(resolved, seconds)
            if what == "step"
            else loader.time_input(resolved, IMAGES.value, seconds)
        )
        _print_rows(what, rows)


def _print_rows(what: str, rows: Iterable[rates.Row]) -> None:
    measured = list(rows)
    device = jax.devices()[0].device_kind
    title = f"{what}: {jax.device_count()} × {device}, {os.cpu_count()} cores"
    table = Table(title=title, show_header=False)
    for row in measured:
        table.add_row(*row)
    Console(soft_wrap=True).print(table)


if __name__ == "__main__":
    output.drop_what_cannot_be_written()
    with exit_on_error():
        main(sys.argv)
