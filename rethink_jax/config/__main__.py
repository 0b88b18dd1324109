"""Prints docs/configuration.md: `python -m rethink_jax.config > docs/configuration.md`."""

from rethink_jax.config.experiments import EXPERIMENTS, experiments_like
from rethink_jax.config.fields import Field, Fields
from rethink_jax.config.validate import KINDS

_HEAD = """\
# Configuration

Written by `python -m rethink_jax.config > docs/configuration.md` from the descriptions in `rethink_jax/config`,
by which configs are made and checked, too. Set a field with `--config.FIELD=VALUE`.

"Resumed" marks fields that may change when a run resumes; all others are part of what the run is. "From" says
whether the default is the paper's or ours. A default in italics is what happens where a field is left out. The
`config.json` of a run holds the values after the model and the data set have filled such fields in.
"""

_COLUMNS = ("field", "default", "allowed", "meaning", "from", "resumed")


def page() -> str:
    """Returns the page: a table for each kind of config, less what it shares with a training run's."""
    training = EXPERIMENTS["train"].fields
    parts = [_HEAD, _section("train", training)]
    for name, experiment in EXPERIMENTS.items():
        if not experiment.group:  # of training
            continue
        fields = experiment.fields
        if {*training} < {*fields}:
            own = {
                field: one
                for field, one in fields.items()
                if field not in training or one.default != training[field].default
            }
            said = (
                f"The fields of a training run, and these, or with these defaults:\n\n{_table(own)}"
            )
            parts.append(f"## `{name}`\n\n{said}")
        else:
            parts.append(_section(name, fields))
    return "\n".join(parts)


def _section(name: str, fields: Fields) -> str:
    return f"## `{name}`\n\n{_table(fields)}"


def _table(fields: Fields) -> str:
    rows = [_COLUMNS, ("---",) * len(_COLUMNS)]
    rows += [(f"`{name}`", *_cells(name, field)) for name, field in fields.items()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(name: str, field: Field) -> tuple[str, ...]:
    shown = str(field.default) or repr(field.default)
    default = f"*{field.unset}*" if field.unset else f"`{shown}`"
    words = [allowed.words for allowed in field.allowed] or [KINDS[field.type]]
    if name == "experiment":
        words = [" or ".join(experiments_like(str(field.default)))]
    return default, "; ".join(words), field.meaning, field.origin, "yes" if field.may_change else ""


if __name__ == "__main__":
    print(page(), end="")
