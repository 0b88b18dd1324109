"""Errors that end a command: what they are, the line that each becomes, and the exit codes."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

# Beside 0, and `preemption.EXIT_CODE` of what stopped and is saved.
FAILED, BAD_INPUT = 1, 2
_LONGEST = 500


class UserError(Exception):
    """A user's mistake: one line that names the field, the value and what is allowed."""


class InUse(UserError):
    """Another process has the run open."""


class RunFailed(Exception):
    """A run failed after it had begun: one line that says what happened and what is saved."""


class Diverged(RunFailed):
    """A loss or a weight that is not finite ended the run."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UserError` for a mistake."""

    def __init__(self, module: str, required: str, description: str | None):
        """Takes the command's module, its required arguments as a user types them, and its help."""
        super().__init__(prog=f"python -m {module}", description=description)
        self._required = required

    def error(self, message: str) -> NoReturn:
        """Raises the mistake."""
        raise UserError(f"{message}; usage: {self.prog} {self._required}")


def require(holds: bool, field: str, value: Any, allowed: str) -> None:
    """Raises `UserError` naming the config's field, its value and what is allowed, unless `holds`."""
    if not holds:
        raise UserError(f"config.{field} is {value!r}; it must be {allowed}")


def one_line(error: BaseException) -> str:
    """Returns an error's text in one line."""
    return " ".join(str(error).split())


def line_with_type(error: BaseException) -> str:
    """Returns an error that was not raised for people to read in one line, cut if it is very long."""
    return f"{type(error).__name__}: {one_line(error)[:_LONGEST]}".removesuffix(": ")


def print_error(line: object) -> None:
    """Prints a line to stderr, after the program's name."""
    print(f"rethink_jax: {line}", file=sys.stderr, flush=True)


def leave(error: BaseException) -> NoReturn:
    """Prints an error, and ends the command with the exit code for it."""
    print_error(error)
    sys.exit(BAD_INPUT if isinstance(error, UserError) else FAILED)


@contextlib.contextmanager
def exit_on_error(*others: type[Exception]) -> Iterator[None]:
    """Ends the command with one line where a `UserError`, a `RunFailed` or one of the others is raised."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (UserError, RunFailed, *others)):
            raise
        leave(error)
