"""Which runs of a sweep train together."""

from rethink_jax.runs import files
from rethink_jax.sweeps.manifest import PlannedRun
from rethink_jax.training import ensemble


def divide(runs: list[PlannedRun]) -> list[list[PlannedRun]]:
    """Returns runs in the order of the first of each group: those that train together, and others alone."""
    found: dict[str, list[PlannedRun]] = {}
    for number, run in enumerate(runs):
        shared = ensemble.shared_by_members(run.config)
        if shared is None or _has_many_devices(run):
            shared = f"alone {number}"
        found.setdefault(shared, []).append(run)
    most = ensemble.MOST_MEMBERS
    return [
        members[first : first + most]
        for members in found.values()
        for first in range(0, len(members), most)
    ]


def _has_many_devices(run: PlannedRun) -> bool:
    """Returns whether a run has begun on several simulated devices, on which it resumes."""
    before = files.read_environment(run.path)
    return before.get("backend") == "cpu" and len(before.get("devices", [])) > 1
