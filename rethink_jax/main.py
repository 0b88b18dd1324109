"""The one door: `python -m rethink_jax.main --config=configs/random_pixels.py:digits [--workdir=DIR]`."""

import faulthandler
import logging
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging as absl_logging
from ml_collections import ConfigDict, config_flags

from rethink_jax import preemption
from rethink_jax.config import RunFailed, UserError, require

FAILED, BAD_INPUT = 1, 2

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, with a data set's name after a colon.", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's directory; runs/<config>-<data>-<model>-<hash> where none is named."
)
COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address", None, "host:port of process 0, where no cluster tells of it."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes run this command.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def main(argv: list[str]) -> None:
    """Runs the experiment that `--config` describes, and leaves with 0, 1, 2 or 75."""
    try:
        _run(argv)
    except Exception as error:
        if DEBUG.value:
            raise
        if isinstance(error, UserError | RunFailed):
            _leave(error, BAD_INPUT if isinstance(error, UserError) else FAILED)
        line = " ".join(str(error).split())[:500]
        _print_error(f"{type(error).__name__}: {line} (--debug shows where)")
        sys.stdout.flush()
        os._exit(FAILED)  # of several processes the others may wait for this one, and JAX for them


def _run(argv: list[str]) -> None:
    from rethink_jax import (
        parallel,
        train,
    )  # JAX takes seconds to import; a wrong flag need not wait

    if not DEBUG.value:
        faulthandler.disable()  # absl's; JAX ends a process by abort when another one has died
    experiments = {"train": train.run, "evaluate": train.evaluate}
    config = CONFIG.value
    allowed = "one of " + ", ".join(experiments)
    name = Path(_config_argument(argv).partition(":")[0]).stem
    require(config.experiment in experiments, "experiment", config.experiment, allowed)
    with preemption.stop_on_signals() as stop_request:
        parallel.start(COORDINATOR_ADDRESS.value, NUM_PROCESSES.value, PROCESS_ID.value)
        stop_request.listen()  # JAX's distributed runtime has a handler of its own
    if not parallel.is_primary():
        logging.getLogger("rethink_jax").setLevel(logging.WARNING)
    experiments[config.experiment](config, WORKDIR.value, name=name)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; a mistake in it becomes one line and exit code 2."""
    try:
        if "--help" not in argv and "--helpfull" not in argv:
            _config_argument(argv)
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise UserError(
                f"{rest[1]!r} belongs to no flag; write --flag=value, with an equals sign"
            )
    except Exception as error:  # absl, ml_collections and the config file each raise their own
        if "--debug" in argv:
            raise
        _leave(_explain(error, argv), BAD_INPUT)
    return argv


def _config_argument(argv: list[str]) -> str:
    """Returns what `--config` names, a file and perhaps a colon and an argument."""
    for argument, following in zip(argv[1:], [*argv[2:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            text = value if equals else following
            file = Path(text.partition(":")[0])
            if not file.is_file():
                raise UserError(f"--config names {str(file)!r}, which is no file")
            return text
    raise UserError("--config is missing; for example --config=configs/random_pixels.py:digits")


def _explain(error: Exception, argv: list[str]) -> str:
    """Returns one line for whatever went wrong while the command line was parsed."""
    if isinstance(error, KeyError | AttributeError):
        for argument in argv:
            if argument.startswith("--config.") and (line := _unknown_field(argument, argv)):
                return line
    if isinstance(error, flags.IllegalFlagValueError):
        match = re.match(r"flag --config\.([\w.]+)=(.*?): ", str(error), re.DOTALL)
        if match and (line := _wrong_value(match[1], match[2], argv)):
            return line
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, UserError | flags.Error):
        return " ".join(lines)
    return f"{_config_argument(argv)}: {type(error).__name__}: {lines[-1] if lines else ''}"


def _load_config(argv: list[str]) -> ConfigDict:
    """Returns the config of the file, without what the command line changes in it."""
    return flags.FLAGS["config"].parser.parse(_config_argument(argv))


def _unknown_field(argument: str, argv: list[str]) -> str | None:
    """Returns a line for a `--config.….field` that the config does not have."""
    *path, name = argument.partition("=")[0].split(".")[1:]
    holder: Any = _load_config(argv)
    for depth, part in enumerate([*path, name]):
        if not isinstance(holder, ConfigDict) or part not in holder:
            where = ".".join(["config", *[*path, name][:depth]])
            fields = ", ".join(sorted(holder)) if isinstance(holder, ConfigDict) else "no fields"
            return f"{where}.{part} is no field; {where} has {fields}"
        holder = holder[part]
    return None


def _wrong_value(field: str, value: str, argv: list[str]) -> str | None:
    """Returns a line for a `--config.field=value` whose value is not of the field's type."""
    holder: Any = _load_config(argv)
    *path, name = field.split(".")
    for part in path:
        holder = holder[part]
    kind = holder.get_type(name)
    if issubclass(kind, ConfigDict):
        return f"config.{field} is a group of fields; set one of {', '.join(sorted(holder[name]))} in it"
    names = {int: "a whole number", float: "a number", bool: "true or false"}
    return f"config.{field} is {value!r}; it must be {names[kind]}" if kind in names else None


def _leave(line: object, code: int) -> NoReturn:
    _print_error(line)
    sys.exit(code)


def _print_error(line: object) -> None:
    print(f"rethink_jax: {line}", file=sys.stderr, flush=True)


def run() -> None:
    """Runs `main` under absl."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax and TFDS tell all they do
    if "--debug" not in sys.argv:
        # Orbax's and TensorStore's threads print what the main thread raises and tells in one line.
        absl_logging.set_verbosity(absl_logging.FATAL)
        sys.excepthook = sys.unraisablehook = threading.excepthook = lambda *exception: None
    logger = logging.getLogger("rethink_jax")
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        with preemption.stop_on_signals(owns_process=True):
            app.run(main, flags_parser=parse_flags)
    except preemption.Stopped as stopped:
        _leave(stopped, preemption.EXIT_CODE)


if __name__ == "__main__":
    run()
