"""What a config's fields may hold."""

import math
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from rethink_jax.config.base import get
from rethink_jax.config.experiments import default_config_for
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
    """Raises `UserError` for a value that no run could have; each room checks the fields it owns."""
    check_fields(config)
    for field in (
        *("epochs", "steps", "data.examples", "data.size", "evaluate.every_epochs"),
        *(
            "evaluate.examples",
            "checkpoint.every_epochs",
            "checkpoint.every_steps",
            "checkpoint.keep",
        ),
    ):
        _require_in(config, field, lambda value: 1 <= value < 2**31, "in [1, 2**31)")
    check_seeds(config)
    for field, is_allowed, allowed in (
        ("batch_size", lambda value: 1 <= value <= 2**20, "in [1, 1048576]"),
        ("optimizer.learning_rate", lambda value: 0 < value < math.inf, "above 0 and finite"),
        ("optimizer.decay_per_epoch", lambda value: 0 < value <= 1, "in (0, 1]"),
        ("optimizer.momentum", lambda value: 0 <= value < 1, "in [0, 1)"),
        (
            "optimizer.schedule",
            lambda value: value in ("exponential", "cosine"),
            "exponential or cosine",
        ),
        ("optimizer.warmup_epochs", lambda value: 0 <= value < 2**31, "in [0, 2**31)"),
        ("label_smoothing", lambda value: 0 <= value < 1, "in [0, 1)"),
        ("optimizer.weight_decay", lambda value: 0 <= value < 1, "in [0, 1)"),
        (
            "optimizer.weight_decay_on",
            lambda value: value in ("all", "kernels", "hidden_dense"),
            "all, kernels or hidden_dense",
        ),
        (
            "optimizer.drop_epochs",
            lambda value: all(type(epoch) is int and 1 <= epoch < 2**31 for epoch in value),
            "whole numbers in [1, 2**31)",
        ),
        ("augment.rotation_degrees", lambda value: 0 <= value <= 180, "in [0, 180]"),
        ("model.dropout", lambda value: 0 <= value < 1, "in [0, 1)"),
        ("grace_seconds", lambda value: 0 < value <= 86_400, "in (0, 86400], a day at most"),
        ("dtype", lambda value: value in ("float32", "bfloat16"), "float32 or bfloat16"),
    ):
        _require_in(config, field, is_allowed, allowed)
    for field in ("learning_rate", "weight_decay", "decay_per_epoch"):
        _require_in(
            config, f"optimizer.{field}", _is_float32, "0 or in float32's range, 1e-37 to 3e38"
        )
    if config.optimizer.schedule == "cosine":
        for field, is_allowed, allowed in (
            ("optimizer.decay_per_epoch", lambda value: value == 1, "1.0 or left out for cosine"),
            ("optimizer.drop_epochs", lambda value: len(value) == 0, "() for cosine"),
        ):
            _require_in(config, field, is_allowed, allowed)


def _is_float32(value: float) -> bool:
    return value == 0 or 1e-37 <= value <= 3e38


def check_seeds(config: ConfigDict) -> None:
    """Raises `UserError` for a seed that is none."""
    for field in ("seed", "corruption.seed"):
        _require_in(config, field, lambda value: 0 <= value < 2**32, "in [0, 2**32)")


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


def _require_in(
    config: ConfigDict, field: str, is_allowed: Callable[[Any], bool], allowed: str
) -> None:
    value = get(config, field)
    require(value is None or is_allowed(value), field, value, allowed)
