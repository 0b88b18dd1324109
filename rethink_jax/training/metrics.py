"""Exact metrics from sums and counts, and where they go: JSON lines, TensorBoard, curves."""

import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from rethink_jax.runs import own_files
from rethink_jax.runs.files import is_in_bucket, write_text
from rethink_jax.runs.own_files import METRICS

Record = dict[str, Any]

# Figure 1b: the first epoch whose loss over the whole training set is below this counts as fitted; inferred
# from the figure's Inception curve.
FITTED_LOSS = 0.05
FITTED_ACCURACY = 0.999

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
        **{
            name: value
            for name, value in last.items()
            if name.endswith(("_corrupted", "_evaluated"))
        },
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


def _is_whole(record: Record) -> bool:
    return "train_evaluated" not in record


def _first_epoch(history: list[Record], fitted: Any) -> float | None:
    return next((record["epoch"] for record in history if fitted(record)), None)


class Writer:
    """Writes each record to `metrics.jsonl` and to TensorBoard's event files.

    Both begin with the history that a checkpoint stands for, so that what a run wrote after its last
    checkpoint is not there twice when it has come that far again. In a bucket, where nothing can be appended,
    `metrics.jsonl` is written anew each time and there are no event files.
    """

    def __init__(self, path: epath.Path, history: list[Record]):
        self._file = path / METRICS
        self._events: EventsWriter | None = None
        self._lines = [_line(record) for record in history]
        write_text(self._file, "".join(self._lines))
        if is_in_bucket(path):
            return
        events = own_files.empty_events(path)
        # Not tensorboardX's SummaryWriter: its thread does not tell anyone of a full disk.
        self._events = EventsWriter(str(events / "events"))
        for record in history:
            self._add_event(self._events, record)

    def write(self, record: Record) -> None:
        """Appends one record; `OSError` where it cannot."""
        self._lines.append(_line(record))
        if self._events is None:
            write_text(self._file, "".join(self._lines))
            return
        with self._file.open("a") as file:
            file.write(self._lines[-1])
        self._add_event(self._events, record)

    def close(self) -> None:
        """Closes the event file."""
        if self._events is not None:
            self._events.close()

    @staticmethod
    def _add_event(events: EventsWriter, record: Record) -> None:
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in record.items()
            if name not in ("epoch", "step")
        ]
        events.write_event(
            Event(wall_time=time.time(), step=record["step"], summary=Summary(value=values))
        )
        events.flush()


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"


def draw_curves(history: list[Record], num_classes: int, file: epath.Path) -> None:
    """Draws loss and accuracy of both splits against epochs into a PNG."""

    def fill(figure: Any) -> None:
        losses, accuracies = figure.subplots(1, 2)
        epochs = [record["epoch"] for record in history]
        for split, colour in (("train", "tab:blue"), ("test", "tab:orange")):
            style = {"color": colour, "marker": ".", "label": split}
            losses.plot(epochs, [record[f"{split}_loss"] for record in history], **style)
            percents = [100 * record[f"{split}_accuracy"] for record in history]
            accuracies.plot(epochs, percents, **style)
        accuracies.axhline(100 / num_classes, color="grey", linestyle=":", label="chance")
        losses.set(xlabel="epoch", ylabel="mean cross-entropy")
        accuracies.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 102))
        for axes in (losses, accuracies):
            axes.legend(loc="center right")
            axes.grid(alpha=0.3)

    write_figure(file, (9, 3.6), fill)


def write_figure(
    file: epath.Path, inches: tuple[float, float], fill: Callable[[Any], None]
) -> None:
    """Writes a PNG of what `fill` draws on an empty figure of matplotlib's."""
    # It takes a second to import, and is needed at the end.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasAgg(figure)
    fill(figure)
    with file.open("wb") as stream:
        figure.savefig(stream, format="png", dpi=120)


class Stopwatch:
    """Seconds of a run, counted on over its interruptions."""

    def __init__(self, before: float = 0.0):
        self._start = time.perf_counter() - before

    def seconds(self) -> float:
        """Returns the seconds so far."""
        return time.perf_counter() - self._start
