"""`sweep.json`: which runs a sweep has, and how each of them ended; read and written here alone."""

from typing import Any, NamedTuple

from etils import epath

from rethink_jax.errors import UserError
from rethink_jax.runs import files


class Damaged(UserError):
    """A `sweep.json` that lacks something, or has it in another form."""


class Entry(NamedTuple):
    """One run of a sweep.

    Attributes:
      name: as the config file has it.
      seed: of training.
      directory: the name of its run directory.
      expect_divergence: whether a loss that is not finite is a result and no failure.
      status: "finished", "stopped", "failed" or "not run yet".
      diverged: whether it failed because of a loss that is not finite.
    """

    name: str
    seed: int
    directory: str
    expect_divergence: bool
    status: str
    diverged: bool


class SweepFile(NamedTuple):
    """The content of `sweep.json`.

    Attributes:
      name: of the table or figure.
      size: smoke, small or full.
      runs: all that were ever started in the directory.
    """

    name: str
    size: str
    runs: tuple[Entry, ...]

    def by_directory(self) -> dict[str, Entry]:
        """Returns the entries by the names of their directories."""
        return {entry.directory: entry for entry in self.runs}

    def to_dict(self) -> dict[str, Any]:
        """Returns what is written."""
        entries = [entry._asdict() for entry in self.runs]
        return {"name": self.name, "size": self.size, "runs": entries}


def from_dict(content: dict[str, Any]) -> SweepFile:
    """Returns what `to_dict` made a dict of; `KeyError` or `TypeError` where something is missing."""
    return SweepFile(content["name"], content["size"], tuple(map(_entry, content["runs"])))


def _entry(fields: dict[str, Any]) -> Entry:
    known = {name: value for name, value in fields.items() if name in Entry._fields}
    return Entry(**{"expect_divergence": False, "diverged": False, **known})


def read(file: epath.Path) -> SweepFile:
    """Reads a `sweep.json`.

    Raises:
      UserError: there is none, or it is damaged.
    """
    content = files.read_json(file)
    try:
        return from_dict(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{file} is damaged: {type(error).__name__}: {error}") from error


def write(file: epath.Path, content: SweepFile) -> None:
    """Writes a `sweep.json`, whole or not at all."""
    files.write_json(file, content.to_dict())
