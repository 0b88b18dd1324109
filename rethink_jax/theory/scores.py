"""The scores of single examples from the members' records: the numbers of `summary.json`, and the CSV files."""

from typing import Any, NamedTuple

import numpy as np
from etils import epath

from rethink_jax.pipeline import inputs
from rethink_jax.runs import display
from rethink_jax.theory import removal, subsets
from rethink_jax.theory.member_records import Records

_EDGES = np.linspace(-1, 1, 41)


class Scores(NamedTuple):
    """What the members say of the examples.

    Attributes:
      memorization, c_score: float64 [n], NaN where they have no value.
      pairs: as `subsets.find_pairs` returns them.
      summary: the numbers of `summary.json` that follow from them.
    """

    memorization: np.ndarray
    c_score: np.ndarray
    pairs: subsets.Pairs
    summary: dict[str, Any]


def score(records: Records, prepared: inputs.Inputs, exact: np.ndarray | None = None) -> Scores:
    """Scores every training example.

    Args:
      records: of all members.
      prepared: the splits that they saw.
      exact: the memorization in closed form, float64 [n].
    """
    train, test = prepared.train, prepared.test
    kept = records.is_member, records.train_correct, records.fraction
    memorization, c_score = subsets.memorization(*kept), subsets.c_scores(*kept)
    pairs = subsets.find_pairs(
        records.is_member,
        records.test_correct,
        memorization,
        train.labels,
        test.true_labels,
        records.fraction,
    )
    is_wrong = train.labels != train.true_labels
    is_scored, has_c_score = np.isfinite(memorization), np.isfinite(c_score)
    right, wrong = (memorization[is_scored & own] for own in (~is_wrong, is_wrong))
    summary = {
        "members": len(records.member),
        "fractions": np.unique(records.fraction).tolist(),
        "examples": len(train.labels),
        "wrong_labels": int(is_wrong.sum()),
        "memorization": {
            "scored": int(is_scored.sum()),
            "mean": _mean(memorization[is_scored]),
            "mean_right": _mean(right),
            "mean_wrong": _mean(wrong),
            "memorized": int(_is_memorized(memorization).sum()),
            "auc": subsets.area_under_curve(memorization[is_scored], is_wrong[is_scored]),
        },
        "c_score": {
            "scored": int(has_c_score.sum()),
            "mean": _mean(c_score[has_c_score]),
            "auc": subsets.area_under_curve(-c_score[has_c_score], is_wrong[has_c_score]),
        },
        "halves": _halves(records),
        "pairs": _count(pairs),
        "accuracy": _accuracies(records),
        "spread": _spread(records),
        "exact": None if exact is None else _compare(memorization, exact),
        "histogram": {
            "edges": _EDGES.round(3).tolist(),
            "right": np.histogram(right, _EDGES)[0].tolist(),
            "wrong": np.histogram(wrong, _EDGES)[0].tolist(),
        },
    }
    return Scores(memorization, c_score, pairs, summary)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _is_memorized(memorization: np.ndarray) -> np.ndarray:
    return memorization >= subsets.LEAST_MEMORIZATION


def _halves(records: Records) -> dict[str, Any]:
    """Returns how far every second member agrees with the others."""
    left, right = (
        subsets.memorization(
            records.is_member[own::2], records.train_correct[own::2], records.fraction[own::2]
        )
        for own in (0, 1)
    )
    return {
        "rank_correlation": subsets.rank_correlation(left, right),
        "overlap": subsets.overlap(_is_memorized(left), _is_memorized(right)),
    }


def _count(pairs: subsets.Pairs) -> dict[str, int]:
    test_ids, counts = np.unique(pairs.test_ids, return_counts=True)
    return {
        "count": len(pairs.test_ids),
        "train_examples": len(np.unique(pairs.train_ids)),
        "test_points": len(test_ids),
        "single": int((counts == 1).sum()),
    }


def _spread(records: Records) -> dict[str, Any] | None:
    """Returns how the members that were trained on all examples differ on them; None where there is none."""
    correct = records.train_correct[records.fraction == 1]
    return subsets.spread(correct) if len(correct) else None


def _accuracies(records: Records) -> dict[str, float | None]:
    is_member, correct = records.is_member, records.train_correct
    return {
        "own": _mean(correct[is_member]),
        "held_out": _mean(correct[~is_member]),
        "test": float(records.test_correct.mean()),
    }


def _compare(memorization: np.ndarray, exact: np.ndarray) -> dict[str, Any]:
    is_scored = np.isfinite(memorization)
    return {
        "mean": float(exact.mean()),
        "rank_correlation": subsets.rank_correlation(memorization, exact),
        "mean_squared_difference": _mean(np.square(memorization - exact)[is_scored]),
    }


def pairs_csv(scores: Scores) -> str:
    """Returns `pairs.csv`: a line for each memorized pair, by test point."""
    lines, pairs = ["train_id,test_id,memorization,influence"], scores.pairs
    for train_id, test_id, influence in zip(
        pairs.train_ids.tolist(), pairs.test_ids.tolist(), pairs.influence.tolist(), strict=True
    ):
        memorization = float(scores.memorization[train_id])
        lines.append(f"{train_id},{test_id},{_number(memorization)},{_number(influence)}")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"


def save_influence(scores: Scores, file: epath.Path) -> None:
    """Writes each test point's most influential training examples: int32 and float32 [m, k]."""
    with file.open("wb") as stream:
        pairs = scores.pairs
        np.savez(stream, train_ids=pairs.strongest, influence=pairs.strongest_influence)


def table(summary: dict[str, Any]) -> display.Rows:
    """Returns the headline numbers in words."""
    percent, nothing = display.percent, "—"

    def number(value: float | None) -> str:
        return nothing if value is None else f"{value:.3f}"

    def share(value: float | None) -> str:
        return nothing if value is None else percent(value)

    memorization, halves, pairs = (summary[name] for name in ("memorization", "halves", "pairs"))
    rate = summary["members_per_minute"]
    rows = [
        ("wrong labels", f"{summary['wrong_labels']:,}"),
        ("memorization, mean", number(memorization["mean"])),
        ("of right labels", number(memorization["mean_right"])),
        ("of wrong labels", number(memorization["mean_wrong"])),
        (f"examples of {subsets.LEAST_MEMORIZATION} or more", f"{memorization['memorized']:,}"),
        ("area under the curve for wrong labels", number(memorization["auc"])),
        ("C-score, mean", number(summary["c_score"]["mean"])),
        ("area under the curve of 1 − C-score", number(summary["c_score"]["auc"])),
        ("rank correlation of two halves of the members", number(halves["rank_correlation"])),
        ("overlap of what they memorize", number(halves["overlap"])),
        ("memorized pairs", f"{pairs['count']:,}"),
        ("test points in them", f"{pairs['test_points']:,}"),
        ("with a single training example", f"{pairs['single']:,}"),
        ("accuracy on a member's own examples", share(summary["accuracy"]["own"])),
        ("on the other training examples", share(summary["accuracy"]["held_out"])),
        ("on the test set", percent(summary["accuracy"]["test"])),
    ]
    if summary["exact"] is not None:
        exact = summary["exact"]
        rows += [
            ("memorization in closed form, mean", number(exact["mean"])),
            ("rank correlation with it", number(exact["rank_correlation"])),
            ("mean squared difference from it", f"{exact['mean_squared_difference']:.1e}"),
        ]
    if summary["spread"] is not None:
        spread = summary["spread"]
        rows += [
            ("share of members that are wrong on an example, mean", number(spread["mean"])),
            ("standard deviation over examples", number(spread["deviation"])),
            ("the same, were all examples equally hard", number(spread["binomial_deviation"])),
            ("examples on which no member is wrong", percent(spread["never_wrong"])),
            ("on which all are", percent(spread["always_wrong"])),
        ]
    if summary["removal"] is not None:
        rows += removal.rows(summary["removal"])
    rows = [row for row in rows if row[1] != nothing]
    rows.append(("members a minute", nothing if rate is None else f"{rate:.1f}"))
    title = "Memorization: {members:,} members ({learner}) on subsets of {examples:,} examples"
    return title.format(**summary), ("", "value"), rows


def draw(figure: Any, histogram: dict[str, list[float]]) -> None:
    """Draws how many examples have which memorization on an empty figure of matplotlib's."""
    axes = figure.subplots()
    for kind, colour in (("right", "tab:blue"), ("wrong", "tab:orange")):
        counts = np.asarray(histogram[kind])
        if counts.sum():
            axes.stairs(counts, histogram["edges"], color=colour, label=f"{kind} labels", lw=1.5)
    axes.set(xlabel="memorization", ylabel="training examples", yscale="log", ylim=(0.7, None))
    axes.legend()
    axes.grid(alpha=0.3)
