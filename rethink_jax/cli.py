"""Parses and checks the command line before anything slow is imported; reports a mistake in one line."""

import contextlib
import importlib.machinery
import importlib.util
import itertools
import os
import re
import types
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from rethink_jax.config import KINDS, check_fields, fields_of
from rethink_jax.errors import UserError, line_with_type, one_line

_HELP = ("--help", "-help", "--helpfull", "--helpshort", "--helpxml")
_FLAG_TYPES = {kind.__name__: text for kind, text in KINDS.items()}


def parse(argv: list[str]) -> None:
    """Parses the flags, including `--config` and its fields.

    Raises:
      UserError: for the first mistake in them or in the config file.
    """
    if not any(argument in _HELP for argument in argv):
        config = _load(config_argument(argv))
        for argument in argv[1:]:
            _check_field(argument, config)
    parse_flags(argv)


def parse_flags(argv: list[str]) -> None:
    """Parses the flags alone; `UserError` for the first mistake in them."""
    try:
        rest = flags.FLAGS(argv)
    except Exception as error:  # absl and ml_collections each raise their own
        raise UserError(_explain(error)) from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} belongs to no flag; write --flag=value, with an equals sign")


def config_argument(argv: list[str]) -> str:
    """Returns the value of `--config`: a file, perhaps with a colon and an argument.

    Raises:
      UserError: there is no `--config`, more than one, or one that names no file.
    """
    named = []
    for argument, following in itertools.pairwise([*argv, ""]):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            named.append(value if equals else following)
    if not named:
        raise UserError("--config is missing; for example --config=configs/random_pixels.py:digits")
    if len(named) > 1:
        raise UserError(f"--config is given {len(named)} times; it must be given once")
    file = named[0].partition(":")[0]
    if not os.path.isfile(file):  # pathlib reads an empty name as the current directory
        raise UserError(f"--config names {file!r}, which is no file")
    return named[0]


def names_no_config(argv: list[str]) -> bool:
    """Returns whether there is neither `--config` nor a flag that asks for help."""
    names = {argument.partition("=")[0] for argument in argv}
    return not names & {"--config", "-config", *_HELP}


def check_workdir(workdir: str | None) -> None:
    """Raises `UserError` for a `--workdir` that is no folder and cannot become one."""
    if workdir is None:
        return
    if "://" in workdir:
        _check_bucket(workdir)
        return
    try:
        path = Path(workdir).expanduser().absolute()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()  # a name may be too long, links may go round
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--workdir is {workdir!r}: {reason}") from error
    nearest = next(holder for holder in (path, *path.parents) if os.path.lexists(holder))
    if not (workdir and nearest.is_dir()):
        raise UserError(f"--workdir is {workdir!r}; it must be a folder, or a place for one")
    is_run = nearest == path and (path / "config.json").exists()  # a finished one is only read
    if not (is_run or os.access(nearest, os.W_OK)):
        raise UserError(f"--workdir is {workdir!r}; {nearest} cannot be written")


def _check_bucket(workdir: str) -> None:
    if not re.fullmatch(r"gs://[^/]+/.+", workdir):
        raise UserError(f"--workdir is {workdir!r}; it must be a folder, or gs://BUCKET/FOLDER")
    if not importlib.util.find_spec("gcsfs"):
        raise UserError(f"--workdir is {workdir!r}, which needs gcsfs: pip install -e '.[gcs]'")


def check_processes(address: str | None, count: int | None, index: int | None) -> None:
    """Raises `UserError` for flags with which the distributed runtime would wait forever."""
    given = {"coordinator_address": address, "num_processes": count, "process_id": index}
    missing = [name for name, value in given.items() if value is None]
    if address is None or count is None or index is None:
        if len(missing) == len(given):
            return
        together = "--coordinator_address, --num_processes and --process_id go together"
        raise UserError(f"--{missing[0]} is missing; {together}")
    match = re.fullmatch(r"[^\s/]+:(\d{1,5})", address)
    if not match or not 0 < int(match[1]) < 2**16:
        raise UserError(f"--coordinator_address is {address!r}; it must be host:port")
    if count < 1:
        raise UserError(f"--num_processes is {count}; it must be 1 or more")
    if not 0 <= index < count:
        raise UserError(f"--process_id is {index}; it must be in [0, {count}), the processes")


def _load(argument: str) -> ConfigDict:
    """Returns the config of the file that `--config` names, before the command line changes it.

    ml_collections loads the file too, but says less about mistakes in it.
    """
    path, *given = argument.split(":", maxsplit=1)
    loader = importlib.machinery.SourceFileLoader(Path(path).stem, path)
    module = types.ModuleType(loader.name)
    try:
        loader.exec_module(module)
        config = module.get_config(*given)
    except UserError as error:
        raise UserError(f"{argument}: {error}") from error
    except Exception as error:  # the file is a program and may raise anything
        raise UserError(f"{argument}: {line_with_type(error)}") from error
    if not isinstance(config, ConfigDict):
        wanted = "a ConfigDict, for example rethink_jax.config.train's"
        returned = type(config).__name__
        raise UserError(f"{argument}: get_config returns a {returned}; it must return {wanted}")
    check_fields(config)
    return config


def _check_field(argument: str, config: ConfigDict) -> None:
    """Raises `UserError` for a `--config.….field` that the config does not have, or that is a group of fields.

    ml_collections itself would also set attributes of the config that are no fields, and replace a group by a
    dict.
    """
    match = re.fullmatch(r"--?(?:no)?config\.([^=]*)(=.*)?", argument, re.DOTALL)
    if not match:
        return
    field = match[1]
    where, holder = "config", config
    for part in field.split("."):
        if not isinstance(holder, ConfigDict) or part not in holder:
            raise UserError(f"{where}.{part} is no field; {where} has {fields_of(holder)}")
        where, holder = f"{where}.{part}", holder[part]
    if isinstance(holder, ConfigDict):
        raise UserError(f"{where} is a group of fields; set one of {fields_of(holder)} in it")


def _explain(error: Exception) -> str:
    """Returns one line for a mistake that absl or ml_collections found in the flags."""
    if not isinstance(error, flags.Error):
        return line_with_type(error)
    match = re.match(r"flag --([\w.]+)=(.*?): ", str(error), re.DOTALL)
    if isinstance(error, flags.IllegalFlagValueError) and match and match[1] in flags.FLAGS:
        allowed = _FLAG_TYPES.get(flags.FLAGS[match[1]].flag_type())
        shown = match[1] if match[1].startswith("config.") else f"--{match[1]}"
        if allowed:
            return f"{shown} is {match[2]!r}; it must be {allowed}"
    return one_line(error)
