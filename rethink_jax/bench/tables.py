"""The comparison's results as a table on the screen and as JSON."""

import os
import platform
import statistics
import time
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from rethink_jax.bench.turns import Result, ratios
from rethink_jax.runs import environment

_GIGA, _MIB = 1e9, 2**20
_NAMES = {"ours": "rethink_jax", "torch": "PyTorch, best", "loop": "PyTorch, DataLoader loop"}


def table(results: Sequence[Result], what: Sequence[str]) -> Table:
    """Returns a table of one model's results, a column for each side; rates are medians over the turns."""
    ours = results[0]
    found = Table(title=f"{ours['model']}, {ours['parameters']:,} parameters")
    found.add_column("")
    for result in results:
        found.add_column(f"{_NAMES[result['side']]}, {result['dtype']}", justify="right")
    rows = {"version": [result["version"] for result in results]}
    for word in what:
        rows[f"{word}, images/s"] = [_rate(result, word) for result in results]
        rows[f"{word}, ours / this"] = [
            "" if ratio is None else f"{ratio:.2f}" for ratio in ratios(results, word)
        ]
    if "train" in what:
        rows["train, GFLOP/s"] = [f"{_speed(ours, result) / _GIGA:,.0f}" for result in results]
        share = f"{_speed(ours, ours) / ours['peak']:.0%} of {ours['peak'] / _GIGA:,.0f}"
        rows["share of a large product"] = [share, *[""] * (len(results) - 1)]
    compiled = [result.get("compile_seconds") for result in results]
    rows["compilation, s"] = ["" if value is None else f"{value:.1f}" for value in compiled]
    rows["memory at most, MiB"] = [f"{result['memory'] / _MIB:,.0f}" for result in results]
    rows["how"] = [result["form"] for result in results]
    for name, cells in rows.items():
        found.add_row(name, *cells)
    return found


def _rate(result: Result, word: str) -> str:
    rates = result["rates"].get(word)
    if rates is None:
        return ""
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})"


def _speed(ours: Result, result: Result) -> float:
    return statistics.median(result["rates"]["train"]) * ours["flops"]


def to_dict(results: Sequence[Sequence[Result]], command: Sequence[str]) -> dict[str, Any]:
    """Returns what a file holds: every rate of every turn, the command and the machine."""
    return {
        "command": " ".join(command),
        "time": time.strftime("%F %T"),
        "machine": platform.platform(),
        "load": os.getloadavg()[0],
        "environment": environment.describe(),
        "models": [list(sides) for sides in results],
    }
