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
    """Returns whether the test error of widths rises and falls again, and where weights moved farthest."""
    return [*_rise(sweep), *_farthest(sweep)]


def _farthest(sweep: Sweep) -> list[str]:
    """Returns at which p/(n·K) the weights moved farthest; nothing where runs do not tell."""
    lines = measures.by_parameters(sweep)
    if not lines or any("weight_distance" not in run.summary for _, line in lines for run in line):
        return []
    means = [estimate([run.summary["weight_distance"] for run in line]).mean for _, line in lines]
    farthest = max(means)
    ratio, _ = lines[means.index(farthest)]
    return [f"Weights moved farthest at p/(n·K) = {ratio:.2f}, where ‖w − w⁰‖ is {farthest:.2f}."]


def _rise(sweep: Sweep) -> list[str]:
    """Returns where the test error of a sweep of widths rises most and falls again, with intervals."""
    found = [
        (ratio, estimate([1 - run.summary["test_accuracy"] for run in line]))
        for ratio, line in measures.by_parameters(sweep)
    ]
    if len(found) < 3:
        return []
    estimates = [one for _, one in found]

    def sides(place: int) -> list[Estimate]:
        return [
            min(side, key=lambda one: one.mean)
            for side in (estimates[:place], estimates[place + 1 :])
        ]

    def height(place: int) -> float:
        return min(estimates[place].mean - side.mean for side in sides(place))

    place = max(range(1, len(found) - 1), key=height)
    ratio, top = found[place]
    before, after = sides(place)
    if height(place) <= 0:
        return ["The test error rises nowhere and falls again. No peak."]
    is_peak = all(_above(top, other) for other in (before, after))
    shown = [f"{100 * one.mean:.2f} %" for one in (before, top, after)]
    return [
        f"The test error rises most at p/(n·K) = {ratio:.2f}, from {shown[0]} to {shown[1]}, and falls to "
        f"{shown[2]}. {'A peak.' if is_peak else 'No peak: intervals overlap.'}"
    ]


def _above(one: Estimate, other: Estimate) -> bool:
    """Returns whether a mean is above another one, with intervals apart where both have one."""
    if one.low is None or other.high is None:
        return one.mean > other.mean
    return one.low > other.high
