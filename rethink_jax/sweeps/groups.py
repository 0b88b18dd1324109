"""Which runs of a sweep train together."""

import resource

from rethink_jax.distributed import parallel
from rethink_jax.runs import files
from rethink_jax.sweeps.manifest import PlannedRun
from rethink_jax.training import ensemble

MOST_MEMBERS = 128
# Files that a member has open, and that all else in the process may need.
_FILES, _OTHER_FILES = 2, 128
# Twice what a checkpoint took on a busy machine.
_SECONDS_TO_SAVE = 0.1


def divide(runs: list[PlannedRun]) -> list[list[PlannedRun]]:
    """Returns runs in the order of the first of each group: those that train together, and others alone."""
    found: dict[str, list[PlannedRun]] = {}
    for number, run in enumerate(runs):
        shared = ensemble.shared_by_members(run.config)
        if shared is None or _has_many_devices(run):
            shared = f"alone {number}"
        found.setdefault(shared, []).append(run)
    divided = []
    for members in found.values():
        most = _most_members(members[0].config.grace_seconds)
        divided += [members[i : i + most] for i in range(0, len(members), most)]
    return divided


def _most_members(grace_seconds: float) -> int:
    """Returns how many members a signal leaves time to save, and the system files to open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    by_files = MOST_MEMBERS if limit == resource.RLIM_INFINITY else (limit - _OTHER_FILES) // _FILES
    by_time = int(grace_seconds / 2 / _SECONDS_TO_SAVE)
    return max(1, min(MOST_MEMBERS, by_files, by_time))


def _has_many_devices(run: PlannedRun) -> bool:
    """Returns whether a run has begun on several simulated devices, on which it resumes by itself."""
    before = files.read_environment(run.path)
    is_chosen = parallel.most_cpu_devices() is not None
    return is_chosen and before.get("backend") == "cpu" and len(before.get("devices", [])) > 1
