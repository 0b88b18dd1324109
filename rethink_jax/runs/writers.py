"""Writes a run's evaluations: JSON lines, TensorBoard's event files, curves."""

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from etils import epath

from rethink_jax.runs import own_files
from rethink_jax.runs.files import is_in_bucket, write_text
from rethink_jax.runs.own_files import METRICS

# tensorboardX imports PyTorch where that is installed, which takes seconds, and needs it for tensors alone.
_has_torch = "torch" in sys.modules
sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
try:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
finally:
    if not _has_torch:
        del sys.modules["torch"]

Record = dict[str, Any]

# Seconds from one flush of the event files to the next at least: the system takes milliseconds for each.
_BETWEEN_FLUSHES = 1.0


class MetricsWriter:
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
        self._flushed = -math.inf
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

    def _add_event(self, events: EventsWriter, record: Record) -> None:
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in record.items()
            if name not in ("epoch", "step")
        ]
        events.write_event(
            Event(wall_time=time.time(), step=record["step"], summary=Summary(value=values))
        )
        if time.monotonic() > self._flushed + _BETWEEN_FLUSHES:
            events.flush()
            self._flushed = time.monotonic()


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"


def draw_curves(history: list[Record], num_classes: int, file: epath.Path) -> None:
    """Draws loss and accuracy of both splits against epochs into a PNG."""
    is_corrupted = any("train_accuracy_replaced" in record for record in history)

    def fill(figure: Any) -> None:
        # To find the margins takes as long as the drawing.
        figure.set_layout_engine(None)
        margins = {"left": 0.08, "right": 0.985, "bottom": 0.14, "wspace": 0.18}
        margins["top"] = 0.83 if is_corrupted else 0.97
        losses, accuracies = figure.subplots(1, 2, gridspec_kw=margins)
        epochs = [record["epoch"] for record in history]
        for split, colour in (("train", "tab:blue"), ("test", "tab:orange")):
            style = {"color": colour, "marker": ".", "label": split}
            losses.plot(epochs, [record[f"{split}_loss"] for record in history], **style)
            percents = [100 * record[f"{split}_accuracy"] for record in history]
            accuracies.plot(epochs, percents, **style)
        for kind, line in (("kept", "--"), ("replaced", ":"), ("replaced_true", "-.")):
            name = f"train_accuracy_{kind}"
            shares = [(record["epoch"], 100 * record[name]) for record in history if name in record]
            if shares:
                label = {"replaced_true": "replaced, true class"}.get(kind, kind)
                accuracies.plot(*zip(*shares, strict=True), line, color="tab:blue", label=label)
        accuracies.axhline(100 / num_classes, color="grey", linestyle=":", label="chance")
        losses.set(xlabel="epoch", ylabel="mean cross-entropy")
        accuracies.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 102))
        for axes in (losses, accuracies):
            axes.legend(loc="center right")
            axes.grid(alpha=0.3)
        if is_corrupted:  # a legend between the curves would hide some
            place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 3}
            accuracies.legend(**place, fontsize="small")

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
