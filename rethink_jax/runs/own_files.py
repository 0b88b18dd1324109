"""The names that this program writes; what else is in a directory is never replaced or removed."""

import contextlib
import os
import re
import unicodedata
from collections.abc import Collection

from etils import epath

from rethink_jax.errors import UserError

CONFIG, ENVIRONMENT, METRICS, SUMMARY = "config.json", "run.json", "metrics.jsonl", "summary.json"
SWEEP, LOCK, SWEEP_LOCK = "sweep.json", "lock", "sweep.lock"
SELECTION, SOLUTION, PRODUCTS = "selection.json", "solution.npz", "products.npz"
SECONDS, EVALUATION, CURVES = "seconds.json", "evaluation.json", "curves.png"
WITH_RIDGE = "with_ridge"
MEMBERS, INFLUENCE, SCORES, PAIRS = "members.npz", "influence.npz", "scores.csv", "pairs.csv"
REMOVAL, POINTS = "removal.npz", "points.json"
FILES = (
    *(CONFIG, ENVIRONMENT, METRICS, SUMMARY, SWEEP, EVALUATION, CURVES),
    *(SELECTION, SOLUTION, f"{WITH_RIDGE}-{SOLUTION}", PRODUCTS, SECONDS),
    *(MEMBERS, INFLUENCE, SCORES, PAIRS, REMOVAL, POINTS),
)
PARTIAL = ".partial"
_PARTIALS = tuple(name + PARTIAL for name in FILES)

_CHECKPOINTS, _EVENTS = "checkpoints", "tensorboard"
_EVENT_FILE = re.compile(r"events\.out\.tfevents\.\d+\..*")

# Submitit's.
_JOB_FILE = re.compile(r"\d+_.*|\d+|%j|submission_file_.*|\..*")

# Where a shell or a job system puts what a command prints: `> runs/mine/log.txt`, `slurm-17.out`.
_PRINTED = re.compile(r".*\.(log|out|err)|(log|out|output|stdout|stderr)(\.txt)?")
_HOLDER = re.compile(r"process \d+ on .*|\s*")


def check(path: epath.Path, mark: str = CONFIG, runs: Collection[str] = ()) -> None:
    """Refuses a directory that is neither empty nor a run's; writes nothing.

    A run killed before it wrote `config.json` leaves a lock, an empty `checkpoints` and half-written files of
    our names. Hidden files and what the command printed may be there, too: we write none of these names.

    Args:
      path: of the directory, which need not exist.
      mark: the file that makes it ours: `CONFIG` for a run, `SWEEP` for a sweep, which may have lost it.
      runs: the names of a sweep's own folders; each is checked by itself.

    Raises:
      UserError: naming a file or folder that this program has not written.
    """
    if not path.exists() or (path / mark).exists():
        return
    if not path.is_dir():
        raise UserError(f"{path} is a file; --workdir must be a folder, or a place for one")
    allowed = _is_of_sweep if mark == SWEEP else _may_be_before
    foreign = sorted(
        entry.name for entry in path.iterdir() if entry.name not in runs and not allowed(entry)
    )
    if foreign:
        kind = "sweep" if mark == SWEEP else "run"
        raise UserError(
            f"{path} is not empty and holds no {kind}: {mark} is missing beside {foreign[0]!r}; "
            "choose another --workdir"
        )


def _may_be_before(entry: epath.Path) -> bool:
    name = entry.name
    if name.startswith(".") or name in _PARTIALS:
        return True
    if name == _CHECKPOINTS:
        return entry.is_dir() and not any(entry.iterdir())
    if entry.is_dir():
        return False
    if name in (LOCK, SWEEP_LOCK):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return _HOLDER.fullmatch(entry.read_text().strip()) is not None
        return False
    return _PRINTED.fullmatch(name) is not None


def _is_of_sweep(entry: epath.Path) -> bool:
    """Returns whether a sweep's folder may hold this without `sweep.json`: runs, reports and jobs are ours."""
    if not entry.is_dir():
        return _may_be_before(entry)
    if entry.name == "jobs":
        return all(_JOB_FILE.fullmatch(inner.name) for inner in entry.iterdir())
    if entry.name == "report":
        return (entry / "report.json").exists()
    is_run = (entry / CONFIG).exists() and (entry / ENVIRONMENT).exists()
    return is_run or _may_be_before(entry)


def check_name(path: epath.Path) -> None:
    """Refuses characters that TensorStore or a line of output cannot hold."""
    name = os.fspath(path)
    odd = [c for c in name if c == "\\" or unicodedata.category(c) in ("Cc", "Cs")]
    if odd:
        raise UserError(
            f"--workdir is {name!r}; it must have no backslash, line break or other control character"
        )


def remove_partial(path: epath.Path) -> None:
    """Removes the half-written files that a killed process left."""
    for name in _PARTIALS:
        (path / name).unlink(missing_ok=True)


def empty_events(path: epath.Path) -> epath.Path:
    """Makes the folder of TensorBoard's files, removes a run's earlier ones from it, and returns it."""
    folder = path / _EVENTS
    folder.mkdir(exist_ok=True)
    for file in list(folder.iterdir()):
        if _EVENT_FILE.fullmatch(file.name) and not file.is_dir():
            file.unlink()
    return folder
