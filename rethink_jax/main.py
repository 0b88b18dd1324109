"""The entry point: `python -m rethink_jax.main --config=configs/random_pixels.py:digits [--workdir=DIR]`."""

import contextlib
import faulthandler
import itertools
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from absl import app, flags, logging as absl_logging
from ml_collections import config_flags

from rethink_jax import cli, config as config_lib, output
from rethink_jax.distributed import preemption
from rethink_jax.errors import (
    FAILED,
    RunFailed,
    UserError,
    leave,
    line_with_type,
    print_error,
    require,
)

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
flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def main(argv: list[str]) -> None:
    """Runs the experiment that `--config` describes; exits with 0, 1, 2 or 75."""
    try:
        _run(argv)
    except Exception as error:
        _end(error)


def _run(argv: list[str]) -> None:
    # JAX takes seconds to import; a wrong flag need not wait.
    from rethink_jax.data import cache
    from rethink_jax.distributed import jax_settings, processes

    if not _debug() and faulthandler.is_enabled():  # by absl
        # JAX ends a process so when another one has died.
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
    config = CONFIG.value
    fitting = config_lib.experiments_like(config_lib.experiment_of(config))
    allowed = "one of " + ", ".join(fitting)
    require(config.experiment in fitting, "experiment", config.experiment, allowed)
    run_experiment = config_lib.EXPERIMENTS[config.experiment].load()
    name = Path(cli.config_argument(argv).partition(":")[0]).stem
    with preemption.stop_on_signals() as stop_request:
        processes.start(COORDINATOR_ADDRESS.value, NUM_PROCESSES.value, PROCESS_ID.value)
        stop_request.listen()  # JAX's distributed runtime has a handler of its own
    jax_settings.use_compilation_cache(config.compilation_cache or cache.root() / "compiled")
    if not processes.is_primary():
        logging.getLogger("rethink_jax").setLevel(logging.WARNING)
    run_experiment(config, WORKDIR.value, name=name)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; a mistake in it becomes one line and exit code 2."""
    try:
        cli.parse(argv)
        cli.check_workdir(WORKDIR.value)
        cli.check_processes(COORDINATOR_ADDRESS.value, NUM_PROCESSES.value, PROCESS_ID.value)
    except Exception as error:
        _end(error)
    return argv


def _end(error: Exception) -> NoReturn:
    if _debug():
        raise error
    if isinstance(error, UserError | RunFailed):
        leave(error)
    print_error(_line(error))
    sys.stdout.flush()
    os._exit(FAILED)  # other processes may wait for this one, and JAX for them


def _line(error: BaseException) -> str:
    return f"{line_with_type(error)} (--debug shows where)"


def _print_uncaught(kind: type, error: BaseException, trace: TracebackType | None) -> None:
    print_error(_line(error))


def _print_if_ours(args: Any) -> None:
    """Prints an error that ended a thread or a finalizer of this package; nothing else reports it.

    Threads of Orbax, TensorStore and Grain print what the main thread also raises and reports in one line.
    """
    trace, here = args.exc_traceback, str(Path(__file__).parent)
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith(here):
            print_error(_line(args.exc_value))
            return
        trace = trace.tb_next


def _debug() -> bool:
    """Returns the value of `--debug`, even before the flags are parsed; the last one counts, as in absl."""
    debug = False
    for argument in itertools.takewhile(lambda argument: argument != "--", sys.argv[1:]):
        name, equals, value = argument.partition("=")
        if name in ("--debug", "-debug", "--nodebug", "-nodebug"):
            with contextlib.suppress(ValueError):  # reported when the flags are parsed
                debug = flags.BooleanParser().parse(value) if equals else "no" not in name
    return bool(debug)


def run() -> None:
    """Runs `main` under absl."""
    output.drop_what_cannot_be_written()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax and TFDS log everything they do
    if not _debug():
        absl_logging.set_verbosity(absl_logging.FATAL)
        sys.excepthook = _print_uncaught
        sys.unraisablehook = threading.excepthook = _print_if_ours
    logger = logging.getLogger("rethink_jax")
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        with preemption.stop_on_signals(owns_process=True):
            app.run(main, flags_parser=parse_flags)
    except preemption.Stopped as stopped:
        print_error(stopped)
        sys.exit(preemption.EXIT_CODE)


if __name__ == "__main__":
    run()
