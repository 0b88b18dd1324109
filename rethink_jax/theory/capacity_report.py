"""What searches for the capacity of networks have found: numbers, words, a table and a figure."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rethink_jax.runs import display
from rethink_jax.sweeps.estimates import estimate
from rethink_jax.theory.rademacher import RANDOM, TRUE

_WORDS = {RANDOM: "random labels", TRUE: "true labels"}


def describe(
    width: int, inputs: int, classes: int, found: Mapping[str, Sequence[tuple[int, bool]]]
) -> dict[str, Any]:
    """Returns what networks of one width fit, beside what constructions of this width do.

    Args:
      width: hidden units, in one layer.
      inputs: numbers in an image.
      classes: of the data set.
      found: for each kind of labels what each draw fitted, and whether these were all examples there are.

    Returns:
      `width`; `parameters`; for each kind `fitted` of each draw, their mean and interval, and whether any is
      `at_least`; and how many examples constructions fit: `theorem1` (Zhang et al.), one a unit; `baum`, four
      units for every `inputs` examples of each class but one, classes of equal size; `yun`, two hidden layers
      of this width and one output; `vardi`, so many parameters in any shape, up to logarithms.

    Example:
      >>> one = describe(64, 784, 10, {"random_labels": [(900, False), (1000, False)]})
      >>> one["parameters"], one["random_labels"]["mean"], one["baum"]
      (50890, 950.0, 7840)
    """
    parameters = inputs * width + width + width * classes + classes
    kinds = {
        kind: {
            "fitted": [count for count, _ in draws],
            "at_least": any(is_all for _, is_all in draws),
            **estimate([float(count) for count, _ in draws])._asdict(),
        }
        for kind, draws in found.items()
    }
    return {
        "width": width,
        "parameters": parameters,
        **kinds,
        "theorem1": width,
        "baum": width // 4 // max(1, classes - 1) * classes * inputs,
        "yun": width**2 // 4,
        "vardi": parameters**2,
    }


def conclude(widths: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns how the numbers of examples grow with parameters, from what `describe` returns of rising widths.

    Returns:
      `monotone`: for each kind of labels whether the means never fall. `growth`: for each kind the estimates
      over draws of `per_parameter`, the slope of examples over parameters by least squares, and of `exponent`,
      that of their logarithms. Widths that fit all examples there are do not count; one width has None.
    """
    kinds = [kind for kind in _WORDS if kind in widths[0]]
    rises = {}
    growth = {}
    for kind in kinds:
        means = [one[kind]["mean"] for one in widths]
        rises[kind] = all(low <= high for low, high in itertools.pairwise(means))
        inner = [one for one in widths if not one[kind]["at_least"]]
        parameters = np.array([one["parameters"] for one in inner], np.float64)
        fitted = np.array([one[kind]["fitted"] for one in inner], np.float64)
        growth[kind] = {
            "widths": [one["width"] for one in inner],
            "per_parameter": _slope(parameters, fitted),
            "exponent": _slope(np.log(parameters), np.log(np.maximum(fitted, 1))),
        }
    return {"monotone": rises, "growth": growth}


def _slope(x: np.ndarray, y: np.ndarray) -> dict[str, Any] | None:
    """Returns the estimate over draws of least squares' slope, for x [widths] and y [widths, draws]."""
    if len(x) < 2:
        return None
    centred = x - x.mean()
    slopes = centred @ y / (centred @ centred)
    return estimate(slopes.tolist())._asdict()


def table(summary: dict[str, Any]) -> display.Rows:
    """Returns what each width fits, in words."""
    title = (
        "Examples that an MLP of one hidden layer fits in {steps:,} steps, of {examples:,} with {dimension:,} "
        "inputs and {classes} classes"
    )
    columns = (
        *("width", "parameters", *_WORDS.values(), "random, per parameter"),
        *("Theorem 1", "Baum", "Yun et al.", "Vardi et al., of order"),
    )
    rows = []
    for one in summary["widths"]:
        each = one[RANDOM]["mean"] / one["parameters"]
        built = [f"{one[name]:,}" for name in ("theorem1", "baum", "yun")]
        cells = (
            f"{one['width']}",
            f"{one['parameters']:,}",
            *(_count(one[kind]) for kind in _WORDS),
        )
        rows.append((*cells, f"{each:.4f}", *built, f"{one['vardi']:.0e}"))
    return title.format(**summary), columns, rows


def short_table(summary: dict[str, Any]) -> display.Rows:
    """Returns the first columns of `table`, for a terminal, which is too narrow for all."""
    title, columns, rows = table(summary)
    return title, columns[:5], [row[:5] for row in rows]


def _count(found: dict[str, Any]) -> str:
    least = "≥ " if found["at_least"] else ""
    ends = "" if found["low"] is None else f" [{found['low']:,.0f}, {found['high']:,.0f}]"
    return f"{least}{found['mean']:,.0f}{ends}"


def verdict(summary: dict[str, Any]) -> list[str]:
    """Returns how the numbers grow, and the claim of what was published, ours, and whether it came out."""
    sentences = []
    for kind, words in _WORDS.items():
        growth, rises = summary["growth"][kind], summary["monotone"][kind]
        order = "more at each width" if rises else "not more at each width"
        if growth["per_parameter"] is None:
            sentences.append(f"With {words}: {order}; too few widths for a slope.")
            continue
        slopes = [_interval(growth[name]) for name in ("per_parameter", "exponent")]
        widths = growth["widths"]
        sentences.append(
            f"With {words}: {order}; {slopes[0]} examples for each further parameter, exponent {slopes[1]}, "
            f"widths {widths[0]} to {widths[-1]}."
        )
    found = summary["widths"]
    most = max(one[RANDOM]["mean"] / one["parameters"] for one in found)
    pairs = [(one[TRUE]["mean"], one[RANDOM]["mean"]) for one in found]
    larger = sum(true > random for true, random in pairs)
    came_out = most < 1 and larger == len(found)
    sentences.append(
        "Shwartz-Ziv et al. (2024): training fits far fewer examples than a network has parameters, and more "
        f"with true labels than with random ones. Ours: at most {most:.3f} randomly labelled examples for each "
        f"parameter, and more true labels at {larger} of {len(found)} widths. "
        + ("It came out." if came_out else "It did not come out.")
    )
    return sentences


def _interval(found: dict[str, Any]) -> str:
    ends = "" if found["low"] is None else f" [{found['low']:.3g}, {found['high']:.3g}]"
    return f"{found['mean']:.3g}{ends}"


def draw(figure: Any, summary: dict[str, Any]) -> None:
    """Draws examples fitted against parameters on an empty figure of matplotlib's."""
    axes, found = figure.subplots(), summary["widths"]
    parameters = [one["parameters"] for one in found]
    for kind, colour in ((RANDOM, "tab:red"), (TRUE, "tab:blue")):
        means = [one[kind]["mean"] for one in found]
        axes.plot(parameters, means, "o-", color=colour, label=_WORDS[kind], markersize=4)
        counts = [one[kind]["fitted"] for one in found]
        draws = list(zip(*counts, strict=True))
        for counted in draws:
            axes.plot(parameters, counted, ".", color=colour, alpha=0.4)
    for name, label, colour in (
        ("theorem1", "Theorem 1", "tab:purple"),
        ("baum", "Baum", "tab:orange"),
        ("yun", "Yun et al.", "tab:green"),
    ):
        built = [(p, one[name]) for p, one in zip(parameters, found, strict=True) if one[name]]
        if built:
            axes.plot(*zip(*built, strict=True), "--", color=colour, lw=1, label=label)
    axes.plot(parameters, parameters, ":", color="tab:gray", label="one for each parameter")
    axes.axhline(summary["examples"], color="tab:gray", lw=0.5)
    axes.set(xlabel="parameters", ylabel="examples", xscale="log", yscale="log")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
