"""What identifies a run, and fields that had other names."""

import json

import pytest
from etils import epath

from rethink_jax import config as config_lib
from rethink_jax.config.identity import RENAMED, with_todays_names
from rethink_jax.errors import UserError
from rethink_jax.runs import files, run_directory
from rethink_jax.training import load

KERNEL = config_lib.experiment("kernel", "digits")
THEOREM = config_lib.experiment("expressivity", "digits")
# As the version before the renaming computed them.
DIGESTS = [(KERNEL, "a281450e"), (THEOREM, "ed2887d7")]


def with_old_names(fields):
    """Returns fields as a run of an earlier version has them in `config.json`."""
    fields = json.loads(json.dumps(fields))
    for before, after in RENAMED.items():
        (group, old), (_, new) = before.split("."), after.split(".")
        if group in fields:
            fields[group][old] = fields[group].pop(new)
    return fields


@pytest.mark.parametrize(("config", "digest"), DIGESTS)
def test_renamed_fields_leave_the_default_directory(config, digest):
    assert config_lib.digest(config) == digest


@pytest.mark.parametrize("config", [KERNEL, THEOREM])
def test_a_run_with_the_old_names_is_read_and_resumed(config, tmp_path):
    path = epath.Path(tmp_path)
    old = with_old_names(config.to_dict())
    assert old != config.to_dict()
    files.write_json(path / "config.json", old)
    assert files.read_config(path) == json.loads(json.dumps(config.to_dict()))
    run_directory.check_same_run(path, config)
    assert load.load_run(path).config == config


def test_another_value_under_an_old_name_is_another_run(tmp_path):
    path, old = epath.Path(tmp_path), with_old_names(KERNEL.to_dict())
    old["kernel"]["held_out"] = 0.5
    files.write_json(path / "config.json", old)
    with pytest.raises(UserError, match=r"config\.kernel\.validation_fraction 0\.5 → 0\.2"):
        run_directory.check_same_run(path, KERNEL)


def test_todays_names_stay():
    for config, _ in DIGESTS:
        assert with_todays_names(config.to_dict()) == config.to_dict()


def test_every_renamed_field_is_a_field():
    for name in RENAMED.values():
        group = name.split(".")[0]
        config = KERNEL if group in KERNEL else THEOREM
        config_lib.get(config, name)
