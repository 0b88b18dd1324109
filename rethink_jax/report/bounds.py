"""Every bound on a test error that a report has, in one table: true labels beside random ones."""

from collections.abc import Callable
from typing import Any, NamedTuple

from rethink_jax.report.pages import Block, Heading, Text
from rethink_jax.report.runs import ReportedRun
from rethink_jax.report.tables import Table, describe_data
from rethink_jax.runs import display
from rethink_jax.theory.rademacher import RANDOM, TRUE

_TEXT = (
    "What is known of the test error in two classes without a test set, on true labels and on random ones, for "
    "which it is one half. A bound says something where it is below one half. The paper shows that those of "
    "the theory of its time do not (section 2.2); the others came later."
)
_HALF = 0.5


class Bound(NamedTuple):
    """A bound on the test error of one kind of labels.

    Attributes:
      name: of the bound, and whose it is.
      labels: `TRUE` or `RANDOM`.
      examples: the training set's.
      value: of the bound, as a share.
      test_error: measured, as a share.
      holds: when it holds.
    """

    name: str
    labels: str
    examples: int
    value: float
    test_error: float
    holds: str


def _of_rademacher(summary: dict[str, Any]) -> list[Bound]:
    return [
        Bound(
            "Rademacher complexity (Mohri et al. 2018, theorem 3.5), at least",
            *(kind, summary["points"], network["bound"], network["test_error"]["mean"]),
            "probability 0.95",
        )
        for kind, network in summary["networks"].items()
    ]


def _of_stability(summary: dict[str, Any]) -> list[Bound]:
    found = _of_rademacher(summary)
    for kind, network in summary["networks"].items():
        error = network["test_error"]["mean"]
        of_stability = "uniform stability (Mohri et al. 2018, theorem 14.2), at least"
        examples, bound = summary["points"], summary["stability_bound"]
        found.append(Bound(of_stability, kind, examples, bound, error, "probability 0.95"))
        measured = network.get("fine_grained")
        if measured:
            found.append(_of_measure(kind, examples, **measured))
    return found


def _of_measure(kind: str, examples: int, measure: float, test_error: float) -> Bound:
    name = "√(2 yᵀ(H∞)⁻¹y / n) (Arora et al. 2019), of the interpolation with H∞"
    return Bound(name, kind, examples, measure, test_error, "terms that vanish with n left out")


def _of_fine_grained(summary: dict[str, Any]) -> list[Bound]:
    largest = summary["subsets"][-1]
    errors = {TRUE: largest["levels"][0]["test_error"], RANDOM: largest["random_test_error"]}
    return [
        _of_measure(kind, largest["examples"], largest[kind], error)
        for kind, error in errors.items()
    ]


def _of_pac_bayes(summary: dict[str, Any]) -> list[Bound]:
    sure, one = 1 - summary["delta"] - summary["sampling_delta"], summary["optimized"]
    name = "PAC-Bayes (Dziugaite and Roy 2017), of random weights"
    numbers = (summary["labels"], summary["examples"], one["bound"], one["test_error"])
    return [Bound(name, *numbers, f"probability {sure:g}")]


def _of_certificate(summary: dict[str, Any]) -> list[Bound]:
    chosen, assumption = summary["chosen"], summary["assumption"]
    kept = f"kept at {assumption['kept']} of {summary['evaluations']} evaluations"
    examples = summary["labelled_examples"] + summary["random_examples"]
    return [
        Bound(
            f"certificate from random labels (Garg et al. 2021), mean of {summary['draws']} draws",
            *(summary["labels"], examples, chosen["certificate"]["mean"], chosen["test"]["mean"]),
            f"probability {1 - summary['delta']:g}, if wrong labels trained on are fitted at least as well as "
            f"new ones: {kept}",
        )
    ]


_READ: dict[str, Callable[[dict[str, Any]], list[Bound]]] = {
    "rademacher": _of_rademacher,
    "stability": _of_stability,
    "fine_grained": _of_fine_grained,
    "pac_bayes": _of_pac_bayes,
    "certificate": _of_certificate,
}


def blocks(runs: list[ReportedRun]) -> list[Block]:
    """Returns the table of all bounds of finished runs; nothing where there is no run that has one."""
    found = [
        (bound, run)
        for run in runs
        for bound in _READ.get(run.config["experiment"], lambda summary: [])(run.summary)
    ]
    if not found:
        return []
    columns = ["bound", "labels", "examples", "bound (%)", "test error (%)", "says something"]
    columns += ["holds with", "data", "run"]
    rows = [
        [
            *(bound.name, bound.labels.replace("_", " "), f"{bound.examples:,}"),
            *(f"{100 * value:,.2f}" for value in (bound.value, bound.test_error)),
            "yes" if bound.value < _HALF else "no",
            *(bound.holds, describe_data(run), run.row),
        ]
        for kind in (TRUE, RANDOM)
        for bound, run in found
        if bound.labels == kind
    ]
    page: list[Block] = [Heading("Bounds on the test error"), Text(_TEXT), Table(columns, rows)]
    return [*page, Text(_conclude([bound for bound, _ in found]))]


def _conclude(found: list[Bound]) -> str:
    counts = []
    for kind in (TRUE, RANDOM):
        own = [bound for bound in found if bound.labels == kind]
        say = sum(bound.value < _HALF for bound in own)
        counts.append(f"{say} of {len(own)} with {kind.replace('_', ' ')}")
    below = [bound for bound in found if bound.value < bound.test_error]
    least = min(found, key=lambda bound: bound.value - bound.test_error)
    margin = display.percent(least.value - least.test_error)
    words = f"{len(below) or 'None'} below the test error"
    return f"Say something: {', '.join(counts)}. {words}; the smallest margin is {margin}."
