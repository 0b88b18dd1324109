"""The paper's figures drawn again, its own points as hollow markers; parameters over examples."""

import io
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rethink_jax import paper
from rethink_jax.report import measures
from rethink_jax.report.measures import Censored, Quantity, Reading
from rethink_jax.report.runs import Circumstances, ReportedRun, Sweep, circumstances, level_of
from rethink_jax.sweeps.estimates import estimate

# Narrow, so that the letters can be read on a phone.
_WIDTH = 4.6
_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple")
_HOLLOW: dict[str, Any] = {"markerfacecolor": "none", "linestyle": "none"}
_MARKERS = dict(zip(paper.LOSSES, "os^", strict=True))
_MODELS = dict.fromkeys(paper.words_of(row.key)[0].text for row in paper.FIGURE1B)


class Picture(NamedTuple):
    """A figure, drawn.

    Attributes:
      name: of its files.
      caption: what it shows, and what is hollow.
      svg: the whole SVG file.
      png: the same as PNG.
    """

    name: str
    caption: str
    svg: str
    png: bytes


def draw(name: str, caption: str, fill: Callable[[Figure], None], height: float = 3.6) -> Picture:
    """Returns what `fill` draws on an empty figure: equal data, equal bytes."""
    with matplotlib.rc_context({"svg.hashsalt": "rethink_jax", "font.size": 9}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        fill(figure)
        svg, png = io.StringIO(), io.BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(svg, format="svg", metadata=nothing)
        figure.savefig(png, format="png", dpi=200, metadata={"Software": None})
    return Picture(name, caption, svg.getvalue(), png.getvalue())


class Drawing(NamedTuple):
    """How the runs of a sweep are drawn.

    Attributes:
      name: of the files.
      caption: what is drawn; what is hollow, and what is a cross, is added.
      fill: `(figure, sweep=sweep)` draws the runs and the paper's points.
      height: of the figure, in inches.
      needs_curves: whether it draws curves, which runs in an earlier report do not have.
    """

    name: str
    caption: str
    fill: Callable[..., None]
    height: float = 3.6
    needs_curves: bool = True

    def draw(
        self, sweep: Sweep, rows: tuple[paper.Row, ...], suffix: str = "", more: str = ""
    ) -> Picture:
        """Returns the figure of a sweep's runs.

        Args:
          sweep: whose runs.
          rows: the paper's, whose points are there, too.
          suffix: of the files' names.
          more: what the caption says besides.
        """
        hollow = " Hollow: the paper's, read from its figure." if rows else ""
        caption = f"{self.caption}{hollow}{more}"
        if any(run.state != "finished" and run.summary for run in sweep.runs):
            caption += " Crosses: runs that did not finish, as far as they came."
        return draw(self.name + suffix, caption, partial(self.fill, sweep=sweep), self.height)


def figure1a(figure: Figure, sweep: Sweep) -> None:
    """Draws each run's training loss, and when the paper's was at 1, 0.1 and 0.01."""
    axes = figure.subplots()
    for row, colour in zip(paper.FIGURE1A, _COLOURS, strict=True):
        for run in _drawn(sweep, row.key):
            steps, losses = _curve(run, "train_loss")
            axes.plot(steps, losses, color=colour, linewidth=1)
            _mark_stop(axes, run, steps, losses, colour)
        axes.plot([], [], color=colour, label=row.label)
        for loss, marker in _MARKERS.items():
            step = paper.STEPS_PER_EPOCH * (row.values[f"epochs_to_loss_{loss}"] or 0)
            axes.plot([step], [loss], marker, color=colour, **_HOLLOW)
    axes.set(xlabel="steps", ylabel="training loss", yscale="log", ylim=(0.003, 5))
    # Small sets end after a hundredth of the paper's steps.
    if sweep.size != "full":
        axes.set_xscale("log")
    _finish(axes)


def figure1b(figure: Figure, sweep: Sweep) -> None:
    """Draws Inception's relative epochs to fit, and the others' epochs below."""
    relative, absolute = figure.subplots(2, 1)
    for i, model in enumerate(_MODELS):
        axes, quantity = (
            (relative, measures.RELATIVE) if model == "inception" else (absolute, measures.EPOCHS)
        )
        _draw_levels(axes, sweep, model, quantity, paper.FIGURE1B, _COLOURS[i])
    relative.set(ylabel="epochs to fit, relative to p = 0")
    absolute.set(ylabel="epochs to fit", xlabel="label corruption p")
    _finish(relative)
    _finish(absolute)


def figure1c(figure: Figure, sweep: Sweep) -> None:
    """Draws the test error of the three models."""
    axes = figure.subplots()
    for i, model in enumerate(_MODELS):
        _draw_levels(axes, sweep, model, measures.ERROR_CORRUPTED, paper.FIGURE1C, _COLOURS[i])
        _draw_levels(axes, sweep, model, measures.ERROR, (), _COLOURS[i], "--")
    axes.axhline(0.9, color="grey", linestyle=":", label="chance")
    axes.set(xlabel="label corruption p", ylabel="test error", ylim=(0, 1))
    _finish(axes)


def figure2(figure: Figure, sweep: Sweep, rows: tuple[paper.Row, ...]) -> None:
    """Draws the test accuracy of each of Figure 2a's or 2b's rows, and marks the best."""
    axes = figure.subplots()
    last_step = 1
    for row, colour in zip(rows, _COLOURS, strict=False):
        for run in _drawn(sweep, row.key):
            steps, fractions = _curve(run, "test_accuracy")
            accuracies = [100 * fraction for fraction in fractions]
            axes.plot(steps, accuracies, color=colour, linewidth=1)
            _mark_stop(axes, run, steps, accuracies, colour)
            best = max(range(len(steps)), key=accuracies.__getitem__)
            axes.plot(steps[best], accuracies[best], "*", color=colour, markersize=9)
            last_step = max(last_step, steps[-1])
        axes.plot([], [], color=colour, label=row.label)
    for row, colour in zip(rows, _COLOURS, strict=False):
        for quantity, marker, width in (("test_accuracy", "o", 5), ("best_test_accuracy", "*", 10)):
            theirs = [100 * (row.values[quantity] or 0)]
            axes.plot([last_step], theirs, marker, color=colour, markersize=width, **_HOLLOW)
    axes.set(xlabel="steps", ylabel="test accuracy (%)")
    _finish(axes)


def width(figure: Figure, sweep: Sweep) -> None:
    """Draws errors of MLPs, and norms of their weights, against p/(n·K): means with 95 % intervals."""
    ordered = measures.by_parameters(sweep)
    known = all("weight_norm" in run.summary for _, line in ordered for run in line)
    panels = figure.subplots(2 if known else 1, sharex=True, squeeze=False)[:, 0]
    errors, norms = panels[0], panels[1:]

    def plot(axes: Axes, of_run: Callable[[ReportedRun], float], colour: str, label: str) -> None:
        found = [estimate([of_run(run) for run in line]) for _, line in ordered]
        half = [0.0 if one.high is None else one.high - one.mean for one in found]
        means, at = [one.mean for one in found], [ratio for ratio, _ in ordered]
        axes.errorbar(at, means, half, color=colour, label=label, marker=".", lw=1, capsize=2)

    def error(run: ReportedRun, split: str) -> float:
        return 100 * (1 - float(run.summary[f"{split}_accuracy"]))

    plot(errors, partial(error, split="test"), _COLOURS[0], "test, true labels")
    plot(errors, partial(error, split="train"), _COLOURS[1], "training")
    errors.set(ylabel="error (%)", xscale="log")
    for axes in norms:
        plot(axes, lambda run: run.summary["weight_norm"], _COLOURS[2], measures.NORM.title)
        plot(axes, lambda run: run.summary["weight_distance"], _COLOURS[3], measures.DISTANCE.title)
        axes.set(ylabel="norm of the weights")
    for axes in panels:
        axes.axvline(1, color="black", linestyle="--", label="p = n·K")
        _finish(axes)
    panels[-1].set(xlabel="parameters p over n·K")


def ratios(models: list[tuple[str, str, float]]) -> Picture:
    """Draws p/n of models, each (name, data set, p/n), beside the classical picture's border at p = n."""

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        places = range(len(models), 0, -1)
        axes.hlines(places, 1, [ratio for _, _, ratio in models], color="lightgrey", linewidth=1)
        for data, colour in zip(
            dict.fromkeys(data for _, data, _ in models), _COLOURS, strict=False
        ):
            points = [
                (m[2], place) for m, place in zip(models, places, strict=True) if m[1] == data
            ]
            axes.plot(*zip(*points, strict=True), "o", color=colour, label=data)
        axes.axvline(1, color="black", linestyle="--", label="p = n")
        axes.set_yticks(places, [name for name, _, _ in models])
        axes.set(xlabel="p/n", xscale="log", xlim=(0.3, 300))
        axes.grid(alpha=0.3)
        figure.legend(loc="outside upper right", ncols=3, fontsize=7)

    caption = "Parameters p over training examples n; the dashed line is p = n."
    return draw("parameters", caption, fill, 1.1 + 0.25 * len(models))


def _draw_levels(
    axes: Axes,
    sweep: Sweep,
    model: str,
    quantity: Quantity,
    rows: tuple[paper.Row, ...],
    colour: str,
    line: str = "-",
) -> None:
    """Draws one model's readings at each p, the mean of each p joined, beside the paper's points in `rows`."""
    theirs = [
        row.values[quantity.compared] or 0
        for row in rows
        if paper.words_of(row.key)[0].text == model
    ]
    if theirs:
        axes.plot(paper.LEVELS, theirs, "o", color=colour, **_HOLLOW)
    label = paper.label(model) if theirs else None
    axes.plot([], [], line, color=colour, linewidth=1, label=label)
    groups: dict[Circumstances | None, dict[float, list[Reading]]] = {}
    for run in sweep.runs:
        level = level_of(run)
        if not level or level[0] != model:
            continue
        if run.state == "finished":
            same = circumstances(run) if sweep.collected else None
            readings = groups.setdefault(same, {}).setdefault(level[1], [])
            readings.append(quantity.read(run, sweep))
        elif run.summary:
            reading = quantity.read(run, sweep)
            value = reading.until if isinstance(reading, Censored) else reading
            axes.plot([level[1]], [float("nan") if value is None else value], "x", color=colour)
    for readings_at in groups.values():
        joined = len(readings_at) > 2 or not sweep.collected  # two levels alone are no curve
        _draw_readings(axes, readings_at, colour, line if joined else "none")


def _draw_readings(
    axes: Axes, readings: dict[float, list[Reading]], colour: str, line: str
) -> None:
    """Draws readings at each p, and joins the means of those that all fitted."""
    means = []
    for p, values in sorted(readings.items()):
        for reading in values:
            if isinstance(reading, Censored):
                axes.plot([p], [reading.until], "^", color=colour)
            elif reading is not None:
                axes.plot([p], [reading], ".", color=colour)
        fitted = [reading for reading in values if isinstance(reading, int | float)]
        whole = fitted and len(fitted) == len(values)
        means.append((p, sum(fitted) / len(fitted) if whole else float("nan")))
    axes.plot(
        [p for p, _ in means],
        [mean for _, mean in means],
        linestyle=line,
        color=colour,
        linewidth=1,
    )


def _drawn(sweep: Sweep, row: str) -> list[ReportedRun]:
    """Returns the runs of a row that have a curve: finished ones, and of collected ones those that stopped."""
    return [run for run in (sweep.of if sweep.collected else sweep.finished)(row) if run.history]


def _mark_stop(
    axes: Axes, run: ReportedRun, steps: list[int], values: list[float], colour: str
) -> None:
    if run.state != "finished":
        axes.plot(steps[-1], values[-1], "x", color=colour)


def _curve(run: ReportedRun, name: str) -> tuple[list[int], list[float]]:
    return [r["step"] for r in run.history], [r[name] for r in run.history]


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
