"""The report of what is no sweep: kernels beside Table 3, and the theory's experiments."""

import csv
import io
from collections.abc import Callable
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from rethink_jax import paper
from rethink_jax.config import SYNTHETIC
from rethink_jax.kernels import interpolation, noise, summary
from rethink_jax.report import bounds
from rethink_jax.report.figures import Picture, draw
from rethink_jax.report.pages import Block, Heading, Text
from rethink_jax.report.runs import ReportedRun, hardware_of
from rethink_jax.report.tables import NOTHING, Table, describe_data, number
from rethink_jax.runs import display
from rethink_jax.theory import (
    capacity_report,
    certificate,
    double_descent,
    expressivity,
    fine_grained,
    judged_report,
    minimum_norm,
    pac_bayes,
    rademacher,
    scores,
    stability,
    two_layer,
)

SUBJECT = "kernels and theory"

_TABLE3 = (
    "Test error of the interpolation of least norm, exact over the whole test set, which is looked at once. "
    "The norm is that of the function, √ Σ αᵀKα over the classes, for one-hot targets and for targets of "
    "±1; the paper does not say which it means, and gives its numbers as “about”. The residual is that of "
    f"{interpolation.EXACT_ROWS} equations in float64."
)
_NORMS = "Test error against the norm with one-hot targets. Hollow: the paper's, whichever norm it means."
_NOISE = (
    "A kernel machine that fits corrupted labels without an error is still right on new points, although its "
    "norm grows (Belkin et al. 2018, arXiv 1802.01396). A classifier that is right on every true test label "
    "would have, against corrupted ones, an error of the share of these that are wrong."
)
_NOISE_DRAWN = (
    "Errors, and the norm of the interpolation, against the probability that a label is replaced."
)
_SGD = (
    "SGD from zero and from a random start as long as the solution of least norm. Every gradient lies in "
    "the span of the examples: what a start has outside of it stays."
)
_MEMORIZATION = (
    "How many training examples have which memorization: the share of members trained on the example that are "
    "right on it, less the share of the others (Feldman and Zhang 2020)."
)
_MEASURE = (
    "Above: √(2 yᵀ(H∞)⁻¹y / n) of true and of random labels. Below: the test error of the interpolation with "
    "H∞ against it, with a share p of the labels drawn again as fair signs."
)
_CERTIFICATE = (
    "A network trained on labelled and on randomly labelled examples that is right on the first and no better "
    "than chance on the others has a low test error, at most the certificate (Garg et al. 2021). It rises as "
    "the random labels are fitted. Assumption: wrong labels trained on are fitted at least as well as new ones."
)
_CAPACITY = (
    "The largest number of examples that training fits without an error, by bisection, which takes smaller "
    "numbers to be fitted, too (Nakkiran et al. 2020; Shwartz-Ziv et al. 2024, arXiv 2406.11463). Beside it, "
    "what constructions of the same width fit: Theorem 1, one example a unit; Baum 1988; Yun et al. 2019 "
    "(1810.07770), two hidden layers of this width and one output; Vardi et al. 2022 (2110.03187), as many "
    "parameters in any shape, up to logarithms."
)
_CAPACITY_DRAWN = (
    "Examples that are fitted against parameters; dots are draws. Thin: all examples there are."
)
_DESCENT = (
    "The test error of least squares, of least norm where there are several solutions, peaks where features "
    "are as many as examples, and with more of them falls below the best with fewer (Belkin et al. 2019, arXiv "
    "1812.11118). It came out where the largest test error is at N = n and at least three times the best of "
    "either side, and the last one is below the best with N < n."
)
_DESCENT_DRAWN = (
    "Errors, squared loss and norms against N / n, N real features and n examples; dotted: the threshold "
    "N = n. Training labels are replaced with probability p; test labels are true."
)
_JUDGED = (
    "Generalization gap, test error less training error, of the networks on true labels against each measure. "
    "Ψ is 1 where the measure orders them as the gap does whenever one hyper-parameter changes, and −1 where "
    "it does so the wrong way round."
)
_SPEED = "Gradient descent on two-layer networks, and what the eigenvalues of H∞ predict."


def blocks(runs: list[ReportedRun]) -> list[Block]:
    """Returns what the report says of finished runs of these experiments: kernels' together, first."""
    solved = [run for run in runs if run.config["experiment"] == "kernel"]
    others = [[run] for run in runs if run.config["experiment"] != "kernel"]
    groups = [solved, *others] if solved else others
    page = [block for group in groups for block in EXPERIMENTS[_experiment_of(group)](group)]
    return page + bounds.blocks(runs)


def _experiment_of(runs: list[ReportedRun]) -> str:
    return str(runs[0].config["experiment"])


def _of_kernels(runs: list[ReportedRun]) -> list[Block]:
    noisy = [run for run in runs if "noise" in run.summary]
    others = [run for run in runs if "noise" not in run.summary]
    page: list[Block] = []
    if others:
        page += [Heading("Table 3"), Text(_TABLE3), table3(others), norms(others)]
    return page + (_of_noise(noisy) if noisy else [])


def _of_noise(runs: list[ReportedRun]) -> list[Block]:
    page: list[Block] = [Heading("Kernels on corrupted labels"), Text(_NOISE)]
    for run in runs:
        for solution in summary.solutions(run.summary):
            _, columns, rows = noise.table(solution)
            page += [Text(_how(run)), Table(list(columns), [list(row) for row in rows])]
            page.append(Text(noise.conclude(solution)))
    fill = partial(noise.draw, runs={run.row: run.summary for run in runs})
    return [*page, draw("kernel-noise", _NOISE_DRAWN, fill, 5.6)]


def _of_theory(
    runs: list[ReportedRun], read: Callable[[dict[str, Any]], display.Rows]
) -> list[Block]:
    """Returns each run's own table, which `read` makes of its summary."""
    page: list[Block] = []
    for run in runs:
        caption, columns, rows = read(run.summary)
        table = Table(list(columns), [list(row) for row in rows])
        page += [Heading(caption), Text(_how(run)), table]
    return page


def _of_minimum_norm(runs: list[ReportedRun]) -> list[Block]:
    page = _of_theory(runs, minimum_norm.table)
    for run in runs:
        fill = partial(minimum_norm.draw, paths=run.summary["paths"])
        page.append(draw(f"{run.row}-paths", _SGD, fill, 5.6))
    return page


def _of_memorization(runs: list[ReportedRun]) -> list[Block]:
    page = _of_theory(runs, scores.table)
    for run in runs:
        fill = partial(scores.draw, histogram=run.summary["histogram"])
        page.append(draw(f"{run.row}-memorization", _MEMORIZATION, fill, 5.6))
    return page


def _of_fine_grained(runs: list[ReportedRun]) -> list[Block]:
    page = _of_theory(runs, fine_grained.table)
    for run in runs:
        fill = partial(fine_grained.draw_measure, summary=run.summary)
        page.append(draw(f"{run.row}-measure", _MEASURE, fill, 5.6))
        page += _of_rows(fine_grained.spectrum_table(run.summary))
        training = run.summary["training"]
        if training is not None:
            page += _of_rows(two_layer.table(training))
            fill = partial(two_layer.draw, training=training)
            page.append(draw(f"{run.row}-speed", _SPEED, fill))
    return page


def _of_pac_bayes(runs: list[ReportedRun]) -> list[Block]:
    page: list[Block] = []
    for run in runs:
        page += [*_of_theory([run], pac_bayes.table), Text(pac_bayes.verdict(run.summary))]
    return page


def _of_certificate(runs: list[ReportedRun]) -> list[Block]:
    page = _of_theory(runs, certificate.table)
    for run in runs:
        fill = partial(certificate.draw, summary=run.summary)
        page.append(draw(f"{run.row}-certificate", _CERTIFICATE, fill, 5.6))
    return page


def _of_capacity(runs: list[ReportedRun]) -> list[Block]:
    page = _of_theory(runs, capacity_report.table)
    for run in runs:
        fill = partial(capacity_report.draw, summary=run.summary)
        page += map(Text, [_CAPACITY, *capacity_report.verdict(run.summary)])
        page.append(draw(f"{run.row}-capacity", _CAPACITY_DRAWN, fill, 5.6))
    return page


def _of_double_descent(runs: list[ReportedRun]) -> list[Block]:
    page = _of_theory(runs, double_descent.table)
    for run in runs:
        fill = partial(double_descent.draw, summary=run.summary)
        page += map(Text, [_DESCENT, *double_descent.conclude(run.summary)])
        page.append(draw(f"{run.row}-double-descent", _DESCENT_DRAWN, fill, 7.2))
    return page


def _of_measures(runs: list[ReportedRun]) -> list[Block]:
    page = _of_theory(runs, judged_report.table)
    for run in runs:
        page += _of_rows(judged_report.ranks_table(run.summary))
        fill = partial(judged_report.draw, summary=run.summary)
        page += map(Text, judged_report.conclude(run.summary))
        page.append(draw(f"{run.row}-measures", _JUDGED, fill, 7.2))
    return page


def _of_rows(read: display.Rows) -> list[Block]:
    caption, columns, rows = read
    return [Heading(caption), Table(list(columns), [list(row) for row in rows])] if rows else []


# What the report says of runs of each experiment.
EXPERIMENTS: dict[str, Callable[[list[ReportedRun]], list[Block]]] = {
    "kernel": _of_kernels,
    "expressivity": partial(_of_theory, read=expressivity.table),
    "rademacher": partial(_of_theory, read=rademacher.table),
    "stability": partial(_of_theory, read=stability.table),
    "minimum_norm": _of_minimum_norm,
    "memorization": _of_memorization,
    "fine_grained": _of_fine_grained,
    "pac_bayes": _of_pac_bayes,
    "certificate": _of_certificate,
    "capacity": _of_capacity,
    "double_descent": _of_double_descent,
    "measures": _of_measures,
}


def table3(runs: list[ReportedRun]) -> Table:
    """Returns Table 3 again, ours beside the paper's; rows of the paper that were not run are there, too."""
    columns = ["row", "test error (%): ours", "paper", "difference", "norm, one-hot", "norm, ±1"]
    columns += ["norm: paper", "residual", "γ", "ridge", "data", "features", "devices", "seconds"]
    printed = {row.key: row.values for row in paper.TABLE3}
    measured: dict[str, list[list[str]]] = {key: [] for key in printed}
    for run in runs:
        for solution in summary.solutions(run.summary):
            key = key_of(run, solution)
            error, norm = solution["test_error"], printed.get(key, {}).get("norm")
            theirs = printed.get(key, {}).get("test_error")
            difference = NOTHING if theirs is None else number(error - theirs, "percent", sign=True)
            cells = [paper.label(key), number(error, "percent"), _printed(theirs), difference]
            cells += [f"{solution[name]:.1f}" for name in ("norm_one_hot", "norm_signs")]
            cells += [NOTHING if norm is None else f"{norm:.0f}"]
            cells += [f"{solution['residual_float64']:.1e}", f"{solution['gamma']:g}"]
            cells += [f"{solution['ridge']:g}", describe_data(run), f"{run.summary['dimension']:,}"]
            cells += [hardware_of(run), f"{run.summary['seconds']:.0f}"]
            measured.setdefault(key, []).append(cells)
    rows = []
    for key, lines in measured.items():
        theirs = printed.get(key, {}).get("test_error")
        missing = [paper.label(key), "not run", _printed(theirs)]
        rows += lines or [missing + [NOTHING] * (len(columns) - len(missing))]
    return Table(columns, rows)


def _printed(error: float | None) -> str:
    return NOTHING if error is None else f"{100 * error:.1f}"


def key_of(run: ReportedRun, solution: dict[str, Any]) -> str:
    """Returns the key of Table 3's row that a solution is of, or of one that the paper has not."""
    config = run.config
    features = {"pixels": "", "gabor": "-gabor", "random_convolutions": "-random_filters"}
    key = config["data"]["name"].removesuffix("_jpeg") + features[config["features"]["name"]]
    if config["kernel"]["name"] != "gaussian":
        key += f"-{config['kernel']['name']}"
    return key + ("-l2" if solution["ridge"] > 0 else "")


def norms(runs: list[ReportedRun]) -> Picture:
    """Returns test errors against norms, ours and the paper's."""

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        for run in runs:
            for solution in summary.solutions(run.summary):
                label = paper.label(key_of(run, solution))
                norm, error = solution["norm_one_hot"], 100 * solution["test_error"]
                (drawn,) = axes.plot([norm], [error], "o", label=label)
                theirs = [row for row in paper.TABLE3 if row.key == key_of(run, solution)]
                for row in (row for row in theirs if "norm" in row.values):
                    norm, error = (row.values[name] or 0 for name in ("norm", "test_error"))
                    (hollow,) = axes.plot([norm], [100 * error], "o", markerfacecolor="none")
                    hollow.set_color(drawn.get_color())
        axes.set(xlabel="norm", ylabel="test error (%)", xscale="log", yscale="log")
        axes.legend()
        axes.grid(alpha=0.3)

    return draw("table3", _NORMS, fill)


def _how(run: ReportedRun) -> str:
    data = run.config["data"]["name"]
    if data != SYNTHETIC:
        data = describe_data(run)
    seconds = run.summary.get("seconds")
    took = "" if seconds is None else f", {seconds:.0f} s of training and evaluation"
    return f"{run.row}: {data}; {hardware_of(run)}{took}."


def to_csv(blocks: list[Block]) -> str:
    """Returns every table of the report, one after another, each line with the heading above it."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    title = ""
    for block in blocks:
        if isinstance(block, Heading):
            title = block.text
        if isinstance(block, Table):
            writer.writerows([title, *row] for row in (block.columns, *block.rows))
    return stream.getvalue()
