"""What a config's fields may hold, as far as the config alone tells."""

from typing import Any

from ml_collections import ConfigDict

from rethink_jax.config.base import SYNTHETIC, get
from rethink_jax.config.experiments import default_config_for, experiment_of, fields_for
from rethink_jax.config.sweeps import ASKED_BY
from rethink_jax.errors import UserError, require

# What a field of each type must be, in words.
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "a tuple, for example (150, 225)",
}


def check(config: ConfigDict) -> None:
    """Raises `UserError` for a config that no run could have, as far as it alone tells.

    Names of corruptions and models, and what depends on the data set, are checked by `runs.resolve`.
    """
    check_fields(config)
    for name, field in fields_for(config).items():
        value = get(config, name)
        for allowed in field.allowed:
            require(value is None or allowed.holds(value), name, value, allowed.words)
    _check_together(config)


def _check_together(config: ConfigDict) -> None:
    """Raises `UserError` for fields that exclude each other."""
    kind = experiment_of(config)
    if "optimizer" in config and config.optimizer.schedule == "cosine":
        decay, drops = config.optimizer.decay_per_epoch, config.optimizer.drop_epochs
        is_constant = decay is None or decay == 1
        require(is_constant, "optimizer.decay_per_epoch", decay, "1.0 or left out for cosine")
        require(len(drops) == 0, "optimizer.drop_epochs", drops, "() for cosine")
    if "stream" in config.data:
        stream, before = config.data.stream, config.corruption.before_crop
        allowed = "False for a stream, which is cut first"
        require(not (stream and before), "corruption.before_crop", before, allowed)
        allowed = f"False for {kind}, whose data are in memory"
        require(not stream or kind in ("train", "sweep"), "data.stream", stream, allowed)
    if kind == "kernel":
        gammas = config.kernel.gammas
        is_one = config.kernel.name != "linear" or len(gammas) == 1
        allowed = "one number for the linear kernel, which has no γ"
        require(is_one, "kernel.gammas", gammas, allowed)
    if kind == "expressivity" and config.data.name == SYNTHETIC:
        examples, fake, folder = config.data.examples, config.data.fake, config.data.data_dir
        allowed = "left out; set config.synthetic.points"
        require(examples is None, "data.examples", examples, allowed)
        require(not fake, "data.fake", fake, "False for synthetic points")
        require(folder is None, "data.data_dir", folder, "left out for synthetic points")
    if kind == "sweep":
        for field, launchers in ASKED_BY.items():
            value, allowed = config.slurm[field], f"left out for config.launcher={config.launcher}"
            is_asked = value is None or config.launcher in launchers
            require(is_asked, f"slurm.{field}", value, allowed)


def check_fields(config: ConfigDict) -> None:
    """Raises `UserError` unless a config has the fields of its kind, no others, each of its type."""
    _check_fields(config, default_config_for(config), "config")


def _check_fields(config: ConfigDict, reference: ConfigDict, where: str) -> None:
    for name in sorted({*config, *reference}):
        field = f"{where}.{name}"
        if name not in reference:
            raise UserError(f"{field} is no field; {where} has {fields_of(reference)}")
        if name not in config:
            raise UserError(f"{field} is missing; {where} has {fields_of(reference)}")
        value, kind = config[name], reference.get_type(name)
        if isinstance(reference[name], ConfigDict):
            if not isinstance(value, ConfigDict):
                fields = fields_of(reference[name])
                raise UserError(f"{field} is {value!r}; it must be a group of fields: {fields}")
            _check_fields(value, reference[name], field)
        elif not (_is_a(value, kind) or value is reference[name] is None):
            raise UserError(f"{field} is {value!r}; it must be {KINDS[kind]}")


def _is_a(value: Any, kind: type) -> bool:
    """Returns whether a field of a type may hold a value: a whole number is a number, true is none."""
    if isinstance(value, bool):
        return kind is bool
    wider = {float: (int, float), tuple: (list, tuple)}  # JSON knows no tuples
    return isinstance(value, wider.get(kind, kind))


def fields_of(group: Any) -> str:
    """Returns the names of a group's fields, in words."""
    return ", ".join(sorted(group)) if isinstance(group, ConfigDict) else "no fields"
