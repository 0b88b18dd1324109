"""Exact metrics from sums and counts, and the summary of a run's evaluations."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Record = dict[str, Any]

# Figure 1b: the first epoch whose loss over the whole training set is below this counts as fitted; inferred
# from the figure's Inception curve.
FITTED_LOSS = 0.05
FITTED_ACCURACY = 0.999

# Of the last evaluation, by the ends of their names.
_IN_SUMMARY = (
    *("_corrupted", "_evaluated", "_kept", "_replaced", "_replaced_true"),
    *("weight_norm", "weight_distance"),
)

# What is counted, by the name of its fraction.
_COUNTS = {"accuracy": "correct", "top5": "top5"}


def from_sums(sums: list[dict[str, np.ndarray]], true_labels: bool = False) -> dict[str, float]:
    """Returns mean loss and accuracy over a split.

    Args:
      sums: what `steps.make_eval_steps` returned for each dispatch, at least one; losses float32, counts int32.
      true_labels: whether to measure against the true labels.

    Returns:
      `loss`, `accuracy` and, where it was counted, `top5`; sums are taken in float64 and in integers.
    """
    suffix = "_true" if true_labels else ""
    count = sum(int(part["count"].sum()) for part in sums)
    loss = math.fsum(float(x) for part in sums for x in part["loss" + suffix])
    counted = {
        name: sum(int(part[summed + suffix].sum()) for part in sums)
        for name, summed in _COUNTS.items()
        if summed + suffix in sums[0]
    }
    return {"loss": loss / count} | {name: value / count for name, value in counted.items()}


def from_replaced(sums: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Returns how a split's kept and replaced labels are answered; empty where none was replaced by another.

    A label that was redrawn as the true one counts as kept. Figures 7 and 8 of Arpit et al. 2017 (arXiv
    1706.05394) follow these shares over a run.

    Args:
      sums: as for `from_sums`.

    Returns:
      `accuracy_kept` and `accuracy_replaced` by the split's labels, and `accuracy_replaced_true`, the share of
      the replaced that get their true class.
    """
    names = ("count", "replaced", "correct", "correct_replaced", "correct_true")
    count, replaced, correct, fitted, true = (
        sum(int(part[name].sum()) for part in sums) for name in names
    )
    if not replaced:
        return {}
    correct_kept = correct - fitted
    kept = {"accuracy_kept": correct_kept / (count - replaced)} if replaced < count else {}
    return kept | {
        "accuracy_replaced": fitted / replaced,
        "accuracy_replaced_true": (true - correct_kept) / replaced,
    }


def of_weights(params: Any, initial: Any) -> dict[str, float]:
    """Returns the Euclidean norm of all parameters, and their distance to the initial ones.

    Args:
      params: a tree of floating arrays.
      initial: the tree of the same shapes that training began with.

    Returns:
      `weight_norm` ‖w‖₂ and `weight_distance` ‖w − w⁰‖₂, summed in float64.
    """
    weights, start = jax.tree.leaves(params), jax.tree.leaves(initial)
    moved = [np.subtract(w, w0, dtype=np.float64) for w, w0 in zip(weights, start, strict=True)]
    return {"weight_norm": _norm(weights), "weight_distance": _norm(moved)}


def _norm(arrays: list[np.ndarray]) -> float:
    return math.sqrt(sum(float(np.square(x, dtype=np.float64).sum()) for x in arrays))


def summarize(history: list[Record], status: str, parameters: int) -> Record:
    """Returns `summary.json` for the evaluations so far.

    Args:
      history: the records of `metrics.jsonl`.
      status: `finished`, `stopped` or `failed`.
      parameters: of the model.
    """
    last = history[-1] if history else {}
    best = max(history, key=lambda record: record["test_accuracy"], default={})
    top5: Record = {name: last[name] for name in ("train_top5", "test_top5") if name in last}
    if top5:
        top5["best_test_top5"] = max(record["test_top5"] for record in history)
    return {
        "status": status,
        "parameters": parameters,
        "epochs": last.get("epoch", 0),
        "steps": last.get("step", 0),
        **{
            name: last.get(name)
            for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        },
        **{name: value for name, value in last.items() if name.endswith(_IN_SUMMARY)},
        **top5,
        "best_test_accuracy": best.get("test_accuracy"),
        "best_test_epoch": best.get("epoch"),
        "epochs_to_fit": _first_epoch(
            history, lambda r: _is_whole(r) and r["train_loss"] < FITTED_LOSS
        ),
        "epochs_to_fit_accuracy": _first_epoch(
            history, lambda r: _is_whole(r) and r["train_accuracy"] >= FITTED_ACCURACY
        ),
        "seconds": last.get("seconds", 0.0),
    }


def has_fitted_all(record: Record) -> bool:
    """Returns whether a record or a summary tells that the whole training set is fitted."""
    return _is_whole(record) and record.get("train_accuracy") == 1.0


def has_ended(config: Mapping[str, Any], summary: Record, total_steps: int) -> bool:
    """Returns whether a run has taken all its steps, or has fitted where its config stops it then."""
    return summary.get("steps", 0) >= total_steps or is_fitted(config, summary)


def is_fitted(config: Mapping[str, Any], record: Record) -> bool:
    """Returns whether a record or a summary tells of the accuracy or the loss at which a config ends a run."""
    limit = config.get("stop_at_loss")  # runs of earlier versions have no such field
    loss = record.get("train_loss")  # None where nothing was evaluated
    if limit is not None and loss is not None and _is_whole(record) and loss <= limit:
        return True
    return bool(config["stop_when_fitted"] and has_fitted_all(record))


def _is_whole(record: Record) -> bool:
    return "train_evaluated" not in record


def _first_epoch(history: list[Record], fitted: Any) -> float | None:
    return next((record["epoch"] for record in history if fitted(record)), None)
