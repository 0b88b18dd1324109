"""What is known of a config's field: its default, what it may hold, what it means and what it is good for.

All that has to do with fields is derived from these descriptions: the configs themselves, the check of values,
the digits of a run's default directory, what may change when a run resumes, what a report lists as a changed
setting, and docs/configuration.md.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

PAPER, OURS = "paper", "ours"


class Allowed(NamedTuple):
    """A condition on a value.

    Attributes:
      words: what a value must be, as an error says it.
      holds: whether a value of the field's type is allowed.
    """

    words: str
    holds: Callable[[Any], bool]


class Field(NamedTuple):
    """A field of a config.

    Attributes:
      default: its value where nobody sets it; None where it is left out or resolved.
      meaning: one sentence for docs/configuration.md.
      allowed: the conditions on a value that is not None.
      origin: who chose the default, `PAPER` or `OURS`.
      kind: the type of a value, where the default is None.
      unset: what None stands for, in words.
      in_name: whether the value is part of the digits of a run's default directory.
      is_later: whether earlier runs did not have the field, so that None leaves their digits as they were.
      may_change: whether a run may change it when it resumes, because it changes no step that was taken.
      in_report: whether a report lists it among the settings that a run changes; the others say how a run is
        carried out, or have a place of their own in the report.
    """

    default: Any
    meaning: str
    allowed: tuple[Allowed, ...] = ()
    origin: str = OURS
    kind: type | None = None
    unset: str = ""
    in_name: bool = True
    is_later: bool = False
    may_change: bool = False
    in_report: bool = True

    @property
    def type(self) -> type:
        """The type of a value."""
        return type(self.default) if self.kind is None else self.kind


# The fields of a kind of config by their flattened names, `model.name` for example.
Fields = Mapping[str, Field]


def make(fields: Fields) -> ConfigDict:
    """Returns a config with these fields and their defaults."""
    config: dict[str, Any] = {}
    for name, field in fields.items():
        *groups, last = name.split(".")
        holder = config
        for group in groups:
            holder = holder.setdefault(group, {})
        holder[last] = field.default if field.kind is None else placeholder(field.kind)
    return ConfigDict(config)


def with_defaults(fields: Fields, **defaults: Any) -> dict[str, Field]:
    """Returns fields with other defaults; names are written with `__` for a dot."""
    changed = {name.replace("__", "."): value for name, value in defaults.items()}
    return {
        name: field._replace(default=changed[name], kind=None, unset="", origin=OURS)
        if name in changed
        else field
        for name, field in fields.items()
    }


def one_of(*names: str) -> tuple[Allowed, ...]:
    """A name of a few."""
    return (Allowed(f"one of {', '.join(names)}", lambda value: value in names),)


def within(low: float, high: float, words: str = "") -> tuple[Allowed, ...]:
    """A number of a closed interval."""
    return (Allowed(words or f"in [{low}, {high}]", lambda value: low <= value <= high),)


def of_numbers(words: str, is_allowed: Callable[[Any], bool]) -> tuple[Allowed, ...]:
    """A tuple of one or more numbers."""
    return (Allowed(words, lambda values: _are_numbers(values, is_allowed)),)


def _are_numbers(values: object, is_allowed: Callable[[Any], bool]) -> bool:
    numbers = list(values) if isinstance(values, list | tuple) else []
    return bool(numbers) and all(isinstance(x, int | float) and is_allowed(x) for x in numbers)


def of_sets_of_numbers(words: str, is_allowed: Callable[[Any], bool]) -> tuple[Allowed, ...]:
    """A tuple of one or more such tuples."""
    return (
        Allowed(
            words, lambda sets: bool(sets) and all(_are_numbers(one, is_allowed) for one in sets)
        ),
    )


COUNT = within(1, 2**31 - 1, "in [1, 2**31)")
SEED = within(0, 2**32 - 1, "in [0, 2**32)")
FRACTION = within(0, 1)
BELOW_ONE = (Allowed("in [0, 1)", lambda value: 0 <= value < 1),)
POSITIVE = (Allowed("above 0 and finite", lambda value: 0 < value < math.inf),)
FLOAT32 = (
    Allowed(
        "0 or in float32's range, 1e-37 to 3e38",
        lambda value: value == 0 or 1e-37 <= value <= 3e38,
    ),
)


def at_least_one_and_at_most(most: int) -> tuple[Allowed, ...]:
    """A whole number whose two ends have messages of their own."""
    return (
        Allowed("1 or more", lambda value: value >= 1),
        Allowed(f"at most {most}", lambda value: value <= most),
    )
