"""What identifies a run: the digits of its default directory, and the names that its fields had before."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

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
    fields = _rename(config.to_dict(), {after: before for before, after in RENAMED.items()})
    for field in ("experiment", "compilation_cache"):
        fields.pop(field, None)
    data = fields.get("data", {})
    if data.get("channels") is None:  # a later field: the runs before it keep their directories
        data.pop("channels", None)
    evaluate = fields.get("evaluate", {})
    if evaluate.get("examples") is None:  # likewise
        evaluate.pop("examples", None)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:8]
