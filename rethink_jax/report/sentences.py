"""What the numbers of a figure show, in sentences."""

from rethink_jax import paper
from rethink_jax.report import measures, tables
from rethink_jax.report.measures import Censored
from rethink_jax.report.runs import ReportedRun, Sweep, circumstances, level_of
from rethink_jax.report.specification import Section
from rethink_jax.sweeps.estimates import Estimate, estimate, rank_correlation

_NEVER = float("inf")


def orders(sweep: Sweep, section: Section) -> list[str]:
    """Returns in which order the corruptions come down to each loss, ours and the paper's."""
    lines = []
    for quantity in measures.LOSSES:
        measured = [
            section.measure(sweep, row.key, quantity, line)
            for row in section.rows
            for line in sweep.lines(row.key)
            if tables.finished(line)
        ]
        ours = [(m.row, m.estimate.mean if m.estimate else _NEVER) for m in measured if m.readings]
        theirs = [
            (row.key, epoch)
            for row in section.rows
            if (epoch := row.values[quantity.key]) is not None
        ]
        lines.append(
            f"{quantity.title}, ours: {_order(ours) or 'not run'}. The paper's: {_order(theirs)}."
        )
    return [*lines, "never: in some seed, so that there is no mean and the row comes last."]


def _order(epochs: list[tuple[str, float]]) -> str:
    ordered = sorted(epochs, key=lambda item: item[1])
    return ", ".join(
        f"{paper.label(key)} ({tables.number(epoch, 'epochs') if epoch < _NEVER else 'never'})"
        for key, epoch in ordered
    )


def fits(sweep: Sweep, section: Section) -> list[str]:
    """Returns for each model how many runs never fitted, and the rank correlation with p."""
    models: dict[tuple[object, ...], list[tuple[float, ReportedRun]]] = {}
    for run in sweep.runs:
        level = level_of(run)
        if run.state == "finished" and level:
            same = circumstances(run) if sweep.collected else None
            models.setdefault((level[0], same), []).append((level[1], run))
    lines = []
    for (model, _), runs in models.items():
        if sweep.collected and len(runs) < 3:
            continue
        readings = [measures.epochs_to_fit(run, sweep) for _, run in runs]
        epochs = [_NEVER if isinstance(r, Censored) else r for r in readings]
        correlation = rank_correlation([p for p, _ in runs], epochs)
        lines.append(
            f"{paper.label(str(model))}: {epochs.count(_NEVER)} of {len(runs)} runs never fitted. "
            "Spearman's correlation of epochs to fit with p, runs that never fitted last: "
            + (tables.NOTHING if correlation is None else f"{correlation:.3f}".replace("-", "−"))
            + "."
        )
    return lines or ([] if sweep.collected else ["No run is finished."])


def peaks(sweep: Sweep, section: Section) -> list[str]:
    """Returns whether the test error of a sweep of widths rises and falls again, with intervals."""
    found = [
        (ratio, estimate([1 - run.summary["test_accuracy"] for run in line]))
        for ratio, line in measures.by_parameters(sweep)
    ]
    if len(found) < 3:
        return []
    inner = found[1:-1]
    ratio, top = max(inner, key=lambda one: one[1].mean)
    place = found.index((ratio, top))
    before = min((one for _, one in found[:place]), key=lambda one: one.mean)
    after = min((one for _, one in found[place + 1 :]), key=lambda one: one.mean)
    is_peak = all(_above(top, other) for other in (before, after))
    shown = [f"{100 * one.mean:.2f} %" for one in (before, top, after)]
    return [
        f"Between the ends the test error is largest at p/(n·K) = {ratio:.2f}, {shown[1]}; before it at least "
        f"{shown[0]}, after it {shown[2]}. {'A peak.' if is_peak else 'No peak.'}"
    ]


def _above(one: Estimate, other: Estimate) -> bool:
    """Returns whether a mean is above another one, with intervals apart where both have one."""
    if one.low is None or other.high is None:
        return one.mean > other.mean
    return one.low > other.high
