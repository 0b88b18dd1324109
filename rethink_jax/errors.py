"""Errors that end a command: what they are, and how one is told in one line."""

from typing import Any


class UserError(Exception):
    """A mistake of the user's: one line that names the field, the value and what is allowed."""


class InUse(UserError):
    """Another process has the run open."""


class RunFailed(Exception):
    """What ended a run that was underway: one line that says what happened and what is left."""


class Diverged(RunFailed):
    """A loss or a weight that is not finite ended the run."""


def require(holds: bool, field: str, value: Any, allowed: str) -> None:
    """Raises `UserError` naming the config's field, its value and what is allowed, unless `holds`."""
    if not holds:
        raise UserError(f"config.{field} is {value!r}; it must be {allowed}")
