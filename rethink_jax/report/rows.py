"""Which rows of the paper's tables a training run measures, by its config alone."""

import functools
from typing import Any, NamedTuple

from rethink_jax import config as config_lib
from rethink_jax.report.catalog import SPECIFICATIONS
from rethink_jax.report.runs import ReportedRun
from rethink_jax.report.specification import CIFAR10, IMAGENET
from rethink_jax.runs import files, run_directory

# Fields that change how long, on which examples and how safely a run trains, and not what it is.
_NOT_THE_RECIPE = (
    *config_lib.may_change({}),
    *("seed", "corruption.seed", "launcher"),
    *("data.name", "data.data_dir", "data.examples", "data.fake"),
)
# Of these, what is no setting of interest, or has a place of its own in the report.
_TOLD_ELSEWHERE = (
    *("experiment", "seed", "epochs", "evaluate", "compilation_cache", "launcher"),
    *("data.name", "data.data_dir", "data.examples", "data.fake"),
)


class Row(NamedTuple):
    """One row of the paper: its table, by the name of the sweep, and its key there."""

    table: str
    key: str


class Other(NamedTuple):
    """What a run of no row is next to: the row, and (field, the row's value, its own) where it differs."""

    row: Row
    differences: list[tuple[str, Any, Any]]


# What each row changes in the default recipe, flattened.
_FIELDS: dict[str, dict[str, dict[str, Any]]] = {
    table: {row.key: specification.fields(row.key) for row in specification.sections[0].rows}
    for table, specification in SPECIFICATIONS.items()
    if specification.fields
}


def rows_of(run: ReportedRun) -> list[Row]:
    """Returns the rows whose recipe a run has; none where it has another one."""
    return [row for row, differing in _compare(run) if not differing]


def nearest(run: ReportedRun) -> Other:
    """Returns the row that a run differs least from."""
    return Other(*min(_compare(run), key=lambda pair: len(pair[1])))


def settings_of(run: ReportedRun) -> str:
    """Returns in words what a run sets that changes no recipe, where it is not the default."""
    config = config_lib.base()
    config.data.size = run.config["data"]["size"]
    usual = config_lib.fill_in(config, run.environment["num_train"], 32).to_dict()
    return ", ".join(
        f"{field} {value}"
        for field, _, value in run_directory.differences(usual, run.config)
        if _is_of(field, _NOT_THE_RECIPE) and not _is_of(field, _TOLD_ELSEWHERE)
    )


def _compare(run: ReportedRun) -> list[tuple[Row, list[tuple[str, Any, Any]]]]:
    data = run.config["data"]
    own = _canonical(run.config)
    compared = []
    for table, keys in _FIELDS.items():
        # The size is the data set's, which only for CIFAR-10's images is known here.
        known = data["name"] in CIFAR10.names or SPECIFICATIONS[table].data is IMAGENET
        size = None if known else data["size"]
        for key in keys:
            recipe = _recipe(table, key, data["name"], run.environment["num_train"], size)
            differing = [
                difference
                for difference in run_directory.differences(recipe, own)
                if not _is_of(difference[0], _NOT_THE_RECIPE)
            ]
            compared.append((Row(table, key), differing))
    return compared


@functools.cache
def _recipe(table: str, key: str, data: str, num_train: int, size: int | None) -> dict[str, Any]:
    """Returns a row's resolved config, canonical."""
    config = SPECIFICATIONS[table].data.make_config(data, "true_labels")
    config.data.size = size
    config.update_from_flattened_dict(_FIELDS[table][key])
    return _canonical(config_lib.fill_in(config, num_train, 32).to_dict())


def _canonical(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a config in which what is the same has the same fields: random labels are p = 1."""
    fields = files.with_defaults(config, config_lib.base().to_dict())
    corruption, usual = fields["corruption"], config_lib.base().corruption
    name = corruption.pop("name")
    of_labels = {"true_labels": 0.0, "random_labels": 1.0}
    if name in of_labels or name == "partially_corrupted_labels":
        share = float(of_labels.get(name, corruption["probability"]))
        unused = {"per_channel": usual.per_channel, "before_crop": usual.before_crop}
        corruption |= {"images": "unchanged", "probability": share, **unused}
    else:
        corruption |= {"images": name, "probability": 0.0}
    if not fields["optimizer"]["weight_decay"]:
        fields["optimizer"]["weight_decay_on"] = None
    return fields


def _is_of(field: str, names: tuple[str, ...]) -> bool:
    return field in names or field.split(".")[0] in names
