"""`python -m rethink_jax.main` for tests: as a process of its own, as a fork, or in the test's own process."""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

from absl.testing import flagsaver

ROOT = Path(__file__).parents[1]
# Relative to where the command is run, so that what it writes lies there.
PLACES = {"TFDS_DATA_DIR": "tfds", "RETHINK_JAX_CACHE": "cache"}
# Imported by one command in a test's process they would keep its variables, and lose their flags with it.
_IMPORTED_LATE = (
    *("rethink_jax.data.tfds_reader", "rethink_jax.pipeline.stream"),
    "array_record.python.array_record_data_source",
)


class Outcome(NamedTuple):
    code: int
    stdout: str
    stderr: str


def make_place(here):
    """Makes a directory from which commands can be run as from the top of a checkout."""
    here.mkdir()
    (here / "configs").symlink_to(ROOT / "configs")
    (here / PLACES["RETHINK_JAX_CACHE"]).mkdir()
    compiled = here / PLACES["RETHINK_JAX_CACHE"] / "compiled"
    compiled.symlink_to(os.environ["COMPILED_BY_TESTS"])
    return here


def start(arguments, here, **environment):
    """Runs a command as a user does, in another process."""
    result = subprocess.run(
        [sys.executable, "-m", "rethink_jax.main", *arguments],
        cwd=here,
        env={**environment_of_a_command(), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return Outcome(result.returncode, result.stdout, result.stderr)


class ForkedEntryPoint:
    """A process that has imported everything and used nothing; a fork of it runs a command.

    What takes a process of its own three seconds, importing, is done once. JAX has no backend
    before the fork.
    """

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.entry_point"],
            cwd=ROOT,
            env=environment_of_a_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *exception):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, arguments, here, **environment):
        """Does what the function `start` does."""
        output = [here.with_name(f"{here.name}.{stream}") for stream in ("stdout", "stderr")]
        request = [list(arguments), str(here), environment, *map(str, output)]
        print(json.dumps(request), file=self._process.stdin, flush=True)
        code = json.loads(self._process.stdout.readline())
        return Outcome(code, *(file.read_text() for file in output))


class InProcessEntryPoint:
    """Runs commands in the test's own process, for those that are refused before JAX is used.

    All but what `main.run` does once a process: its handlers of signals, loggers and crashes, and
    JAX's start.
    """

    def __init__(self, monkeypatch, capsys):
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def start(self, arguments, here):
        """Does what the function `start` does."""
        from rethink_jax import main
        from rethink_jax.distributed import jax_settings, processes

        for name in _IMPORTED_LATE:
            importlib.import_module(name)

        self._capsys.readouterr()
        with (
            self._monkeypatch.context() as patch,
            flagsaver.flagsaver(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", DeprecationWarning)  # ml_collections', as Python does
            patch.chdir(here)
            patch.setattr("tensorflow_datasets.core.constants.DATA_DIR", PLACES["TFDS_DATA_DIR"])
            for name, value in PLACES.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", [main.__file__, *arguments])
            patch.setattr(sys, "dont_write_bytecode", True)
            patch.setattr(os, "_exit", sys.exit)
            patch.setattr(processes, "start", lambda *flags: None)
            patch.setattr(jax_settings, "use_compilation_cache", lambda folder: None)
            code = 0
            try:
                main.main(main.parse_flags(sys.argv))
            except SystemExit as error:
                code = error.code or 0
        return Outcome(code, *self._capsys.readouterr())


def environment_of_a_command():
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("JAX_")},
        **PLACES,
        "JAX_PLATFORMS": "cpu",
        "PYTHONDONTWRITEBYTECODE": "1",  # Python leaves a cache beside a config file
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "",
    }


def _serve():
    import rethink_jax.main
    import rethink_jax.training.train
    from rethink_jax.data import tfds_reader  # noqa: F401

    gc.freeze()  # a collection in a fork would visit, and so copy, every object
    for request in sys.stdin:
        child = os.fork()
        if child == 0:
            arguments, here, environment, *output = json.loads(request)
            signal.alarm(120)
            for number, path in enumerate(["/dev/null", *output]):
                flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                os.dup2(os.open(path, flags), number)
            os.chdir(here)
            os.environ.update(environment)
            sys.argv = [rethink_jax.main.__file__, *arguments]
            code = 0
            try:
                rethink_jax.main.run()
            except SystemExit as error:
                code = error.code or 0
            sys.stdout.flush()
            os._exit(code)  # the interpreter's own end would take most of the time
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
