"""What is told of measures that were judged: a table, what came out of two claims, and a figure."""

from typing import Any

from rethink_jax.runs import display
from rethink_jax.theory.rademacher import RANDOM, TRUE

# In the order of the table.
MEASURES = {
    "parameters": "parameters",
    "inverse_margin": "inverse margin",
    "spectral": "spectral norms",
    "spectral_distance": "spectral norms and distance",
    "bartlett": "(2,1) norms (Bartlett)",
    "path_norm": "path norm",
    "distance": "distance to the start",
    "sharpness": "sharpness, 1/α",
    "flatness": "flatness, 1/σ",
    "distance_over_sigma": "distance over σ",
}
_AXES = {
    "widths": "ψ width",
    "depths": "ψ depth",
    "learning_rates": "ψ rate",
    "weight_decays": "ψ decay",
}
# Of the claims.
_NORMS = ("spectral", "spectral_distance", "bartlett", "path_norm")
_FLAT = ("sharpness", "flatness")
_GROWING = ("spectral", "spectral_distance", "distance_over_sigma")


def table(summary: dict[str, Any]) -> display.Rows:
    """Returns each measure's level on both kinds of labels, in words."""
    rows = []
    for name, label in MEASURES.items():
        own = summary["measures"][name]
        levels = [_with_interval(own["levels"][kind], "mean", ".3g") for kind in (TRUE, RANDOM)]
        rows.append((label, *levels, _number(own["ratio"], ".2f")))
    fitted = summary["fitted"]
    title = (
        f"Measures judged by networks trained to a loss of {summary['loss']:g}: {summary['settings']} settings "
        f"of {summary['model']} × {summary['seeds']} seeds, {summary['examples']:,} examples; {fitted[TRUE]} "
        f"networks on true and {fitted[RANDOM]} on random labels, {len(summary['left_out'])} left out"
    )
    return title, ("", "true labels", "random labels", "random / true"), rows


def ranks_table(summary: dict[str, Any]) -> display.Rows:
    """Returns how each measure ranks networks on true labels by their gap, in words."""
    rows = []
    for name, label in MEASURES.items():
        own = summary["measures"][name]
        ranks = [_with_interval(own[statistic], "value", ".2f") for statistic in ("tau", "Psi")]
        psi = [_number(own["psi"][axis]["value"], ".2f") for axis in _AXES]
        errors = [_number(own[name]["value"], ".2f") for name in ("sign_error", "worst_sign_error")]
        rows.append((label, *ranks, *psi, *errors))
    columns = ("", "τ", "Ψ", *_AXES.values(), "sign error", "worst")
    return "Rank correlation of measures with the generalization gap, true labels", columns, rows


def _with_interval(values: dict[str, Any], field: str, digits: str) -> str:
    if values["low"] is None:
        return _number(values[field], digits)
    low, high = (format(values[end], digits) for end in ("low", "high"))
    return f"{values[field]:{digits}} ({low} to {high})"


def _number(value: float | None, digits: str) -> str:
    return "—" if value is None else format(value, digits)


def conclude(summary: dict[str, Any]) -> list[str]:
    """Returns, in a sentence each, whether two claims on the measures came out, and what was left out."""
    of = summary["measures"]
    grown = [name for name in _GROWING if of[name]["ratio"] >= 2 and _are_apart(of[name])]
    ratios = ", ".join(f"{MEASURES[name]} {of[name]['ratio']:.2f}" for name in _GROWING)
    told = [
        "Neyshabur et al. 2017 (arXiv 1706.08947) ask of a measure that it is larger on random labels. "
        "Spectral norms, without and with the distance to the start, and distance over σ are at least twice as "
        "large, with intervals apart: "
        f"{_came_out(len(grown) == len(_GROWING))} (random / true: {ratios})."
    ]
    flat, norms = ([of[name]["Psi"]["value"] for name in names] for names in (_FLAT, _NORMS))
    if None not in (*flat, *norms):
        best, worst = max(norms), min(flat)
        told.append(
            "Jiang et al. 2020 (arXiv 1912.02178) find that flatness ranks networks by their gap, and norms do "
            f"so less or the wrong way round: {_came_out(worst > max(best, 0))} (Ψ at least {worst:.2f} for "
            f"sharpness and flatness, at most {best:.2f} for norms)."
        )
    if summary["left_out"]:
        names = ", ".join(summary["left_out"])
        told.append(f"Left out, as their loss stayed above {summary['loss']:g}: {names}.")
    return told


def _came_out(is_true: bool) -> str:
    return "this came out" if is_true else "this did not come out"


def _are_apart(own: dict[str, Any]) -> bool:
    low, high = (own["levels"][kind] for kind in (RANDOM, TRUE))
    return bool(low["low"] is not None and low["low"] > high["high"])


def draw(figure: Any, summary: dict[str, Any]) -> None:
    """Draws the gap of the networks on true labels against each measure on an empty figure of matplotlib's."""
    shown = [point for point in summary["points"] if point["labels"] == TRUE]
    columns = 4
    rows = -(-len(MEASURES) // columns)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    depths = summary["axes"]["depths"]
    for axes, (name, label) in zip(grid.flat, MEASURES.items(), strict=False):
        for number, depth in enumerate(depths):
            own = [point for point in shown if point["setting"][1] == number]
            gaps = [100 * point["gap"] for point in own]
            axes.plot([point[name] for point in own], gaps, ".", label=f"depth {depth}")
        psi = _number(summary["measures"][name]["Psi"]["value"], ".2f")
        axes.set_title(f"{label}\nΨ = {psi}", fontsize="small")
        axes.locator_params(axis="x", nbins=4)
        axes.grid(alpha=0.3)
    for axes in grid[:, 0]:
        axes.set(ylabel="gap (%)")
    for axes in list(grid.flat)[len(MEASURES) :]:
        axes.set_axis_off()
    grid[0, 0].legend(fontsize="small")
