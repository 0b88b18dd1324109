"""What identifies a run: the digits of its default directory; which fields may change when it resumes."""

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from rethink_jax.config.experiments import fields_for

# Fields of kernels and theory that had other names: the earlier one → today's.
RENAMED = {
    "kernel.choose_with": "kernel.selection_examples",
    "kernel.held_out": "kernel.validation_fraction",
    "kernel.scaled": "kernel.gamma_scale",
    "solver.most_iterations": "solver.max_iterations",
    "theorem.whole_up_to": "theorem.evaluate_all_up_to",
    "theorem.run_points": "theorem.sample_size",
}


def with_todays_names(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a `config.json`, those that had other names under today's."""
    return _rename(fields, RENAMED)


def _rename(fields: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    groups = dict(fields)
    for before, after in names.items():
        group, name = before.split(".")
        if isinstance(groups.get(group), dict) and name in groups[group]:
            groups[group] = {
                after.split(".")[1] if field == name else field: value
                for field, value in groups[group].items()
            }
    return groups


def digest(config: ConfigDict) -> str:
    """Returns eight hexadecimal digits that name a resolved config: equal configs, equal digits.

    Fields count under the names that they first had, so runs of earlier versions keep their directories.
    """
    named = config.to_dict()
    for name, field in fields_for(named).items():
        *groups, last = name.split(".")
        group = functools.reduce(lambda group, part: group.get(part, {}), groups, named)
        if not field.in_name or (field.is_later and group.get(last) is None):
            group.pop(last, None)
    named = {name: value for name, value in named.items() if value != {}}
    named = _rename(named, {after: before for before, after in RENAMED.items()})
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:8]


def may_change(config: Mapping[str, Any]) -> set[str]:
    """Returns the fields that a run of this config may change when it resumes."""
    fields = {name for name, field in fields_for(config).items() if field.may_change}
    if config.get("optimizer", {}).get("schedule") == "cosine":
        fields -= {"epochs", "steps"}  # the rate of every step depends on them
    return fields
