"""What the report says of one table or figure: its runs in a table, drawn, and in sentences."""

import re

from rethink_jax import paper
from rethink_jax.report import figures, measures, tables
from rethink_jax.report.measures import SECTIONS, Censored, Section
from rethink_jax.report.pages import Block, Bullets, Heading, Text
from rethink_jax.report.rows import CIFAR10, ON_IMAGENET
from rethink_jax.report.runs import ReportedRun, Sweep, circumstances, data_of
from rethink_jax.sweeps.estimates import rank_correlation
from rethink_jax.training import metrics

_BEST = (
    "The best test accuracy is that of the epoch with the highest one: it is chosen on the test set, "
    "here as in the paper, and so flatters."
)
_RECIPE = (
    "The paper prints no recipe for ImageNet, nor the coefficient of weight decay or the rate of dropout; "
    "these are ours (rethink_jax/config.py)."
)
_PARENTHESES = (
    "In parentheses is the best during training, top-1 and top-5 each at an epoch of its own; the paper gives "
    "it for two rows. For reference it has AlexNet of 2012, with a test top-5 of "
    f"{tables.number(paper.value((paper.ALEXNET_2012,), 'alexnet_2012', 'test_top5'), 'percent')} %."
)
_SLIDES = (
    "On random labels a training top-5 of "
    f"{tables.number(paper.value(paper.TABLE2, 'random-decay', 'train_top5'), 'percent')} % is with weight "
    "decay alone in the paper's table, and with dropout alone in the authors' slides."
)
_THEIR_STEPS = (
    "The paper's best came at steps "
    + " and ".join(
        f"{row.values['best_test_step']:,} ({row.label})"
        for row in paper.FIGURE2A
        if "best_test_step" in row.values
    )
    + ", of batches whose size it does not print: they are not held against ours."
)
_ONLINE = (
    "With random crop or augmentation the paper's number is the mean over an epoch of the accuracy on "
    "the freshly augmented images, which is the online one here; the other one is exact, on the images "
    "as they are. All labels are random."
)
_FITTED = (
    f"Fitted is the first epoch whose loss over the whole training set is below {metrics.FITTED_LOSS:g}; "
    f"by accuracy, the first with a training accuracy of at least {100 * metrics.FITTED_ACCURACY:g} %. "
    "The first definition is inferred from the paper's figure. A run that never fits is censored at its "
    "last epoch and given no number. As in the paper Inception's epochs are relative to those at p = 0, "
    f"which were {paper.INCEPTION_EPOCHS_AT_0} there."
)
_TEST_LABELS = (
    "Figure 1c's errors are held against both kinds of test labels. The paper does not say which it took; "
    "its points agree with labels corrupted like the training labels: with a share p of the test labels "
    "drawn anew, a network that is right on a share a of the true ones is right on (1 − p) a + p / 10 of "
    "them. That is inferred, from MLP 1×512 on cifar10_jpeg. Against true labels the errors are lower in "
    "between."
)
# For each section of a table's report.
TEXTS = {
    "table2": [[_RECIPE, _PARENTHESES, _BEST, _SLIDES]],
    "table4": [[_ONLINE]],
    "figure1bc": [[_FITTED], [_TEST_LABELS]],
    "figure2a": [[_RECIPE, _BEST, _THEIR_STEPS]],
    "figure2b": [[_BEST]],
}


def of_sweep(sweep: Sweep) -> list[Block]:
    """Returns the tables and figures of a sweep, in order."""
    said: list[Block] = []
    pictures = figures.of_sweep(sweep)
    for i, section in enumerate(SECTIONS[sweep.name]):
        said += [Heading(section.title), tables.results(sweep, section), *pictures[i : i + 1]]
    sentences = _sentences(sweep)
    return [*said, Bullets(sentences)] if sentences else said


def of_collected(sweep: Sweep) -> list[Block]:
    """Returns the same of collected runs of one table, and its texts; each data set has its own figures."""
    parts = _by_data(sweep)
    pictures = [figures.of_sweep(part, *_apart(part, parts)) for part in parts if _is_drawn(part)]
    said: list[Block] = []
    texts = TEXTS.get(sweep.name, [])
    for i, section in enumerate(SECTIONS[sweep.name]):
        table, alike = tables.without_alike(tables.results(sweep, section), ("data", "devices"))
        missing = tables.not_run(sweep, section)
        told = [*(texts[i] if texts else []), alike and f"All of ours: {alike}."]
        said += [Heading(section.title), *map(Text, filter(None, told)), table]
        said += [Text(f"Not run: {missing}.")] if missing else []
        said += [picture for drawn in pictures for picture in drawn[i : i + 1]]
    for part in parts:
        where = tables.describe_data(part.runs[0])
        if sentences := _sentences(part):
            said += [Text(f"On {where}:")] if len(parts) > 1 else []
            said.append(Bullets(sentences))
    return said


def _sentences(sweep: Sweep) -> list[str]:
    if sweep.name == "figure1a":
        return _orders(sweep, SECTIONS[sweep.name][0])
    return _fits(sweep) if sweep.name == "figure1bc" else []


def _is_drawn(sweep: Sweep) -> bool:
    """Returns whether there is something to draw: of runs in an earlier report only numbers are left."""
    return sweep.name == "figure1bc" or any(run.history for run in sweep.runs)


def _by_data(sweep: Sweep) -> list[Sweep]:
    """Returns collected runs apart by data set and number of examples."""
    runs: dict[tuple[str, int], list[ReportedRun]] = {}
    for run in sweep.runs:
        runs.setdefault(data_of(run), []).append(run)
    return [
        sweep._replace(runs=tuple(of_data), size=_size(sweep.name, examples))
        for (_, examples), of_data in sorted(runs.items(), key=lambda item: -item[0][1])
    ]


def _size(name: str, examples: int) -> str:
    _, count, _ = _IMAGENET if name in ON_IMAGENET else _CIFAR10
    return "full" if examples >= count else "small"


def _apart(part: Sweep, parts: list[Sweep]) -> tuple[str, str]:
    """Returns what tells a part's figures from the others': the end of their files' names, and a sentence."""
    name, examples = data_of(part.runs[0])
    suffix = re.sub(r"[^\w.-]", "_", f"-{name}-{examples}") if len(parts) > 1 else ""
    return suffix, f" Ours: {tables.describe_data(part.runs[0])}."


def other_data(sweep: Sweep) -> list[str]:
    """Returns a warning where runs are not on the paper's data set."""
    runs = [run for run in sweep.runs if run.state == "finished" or run.place]
    names = {data_of(run)[0] for run in runs}
    original, count, like_it = _IMAGENET if sweep.name in ON_IMAGENET else _CIFAR10
    texts = []
    if any(data_of(run) not in [(name, count) for name in like_it] for run in runs):
        texts.append(
            f"The paper's numbers are on all {count:,} training images of {original}, some "
            "of ours on other or on fewer ones: there a difference is mostly one of the data."
        )
    if "cifar10_jpeg" in names:
        texts.append(
            "cifar10_jpeg is CIFAR-10 with every image encoded again as a lossy JPEG of quality 75."
        )
    return texts


# The paper's data sets, their training images, and what is taken for them.
_CIFAR10 = ("CIFAR-10", paper.CIFAR10_TRAIN, CIFAR10)
_IMAGENET = ("ImageNet", paper.IMAGENET_TRAIN, ("imagenet2012",))


def _orders(sweep: Sweep, section: Section) -> list[str]:
    """Returns in which order the corruptions come down to each loss, ours and the paper's."""
    sentences = []
    for quantity in measures.LOSSES:
        found = [
            section.measure(sweep, row.key, quantity, line)
            for row in section.rows
            for line in sweep.lines(row.key)
            if tables.finished(line)
        ]
        ours = [
            (m.row, m.estimate.mean if m.estimate else float("inf")) for m in found if m.readings
        ]
        theirs = [
            (row.key, epoch)
            for row in section.rows
            if (epoch := row.values[quantity.key]) is not None
        ]
        sentences.append(
            f"{quantity.title}, ours: {_order(ours) or 'not run'}. The paper's: {_order(theirs)}."
        )
    return [*sentences, "never: in some seed, so that there is no mean and the row comes last."]


def _order(epochs: list[tuple[str, float]]) -> str:
    ordered = sorted(epochs, key=lambda item: item[1])
    return ", ".join(
        f"{paper.label(key)} ({tables.number(epoch, 'epochs') if epoch < float('inf') else 'never'})"
        for key, epoch in ordered
    )


def _fits(sweep: Sweep) -> list[str]:
    """Returns for each model how many runs never fitted, and the rank correlation with p."""
    models: dict[tuple[object, ...], list[tuple[float, ReportedRun]]] = {}
    for run in sweep.runs:
        level = figures.level_of(run)
        if run.state == "finished" and level:
            same = circumstances(run) if sweep.collected else None
            models.setdefault((level[0], same), []).append((level[1], run))
    sentences = []
    for (model, _), runs in models.items():
        if sweep.collected and len(runs) < 3:
            continue
        readings = [measures.epochs_to_fit(run, sweep) for _, run in runs]
        epochs = [float("inf") if isinstance(r, Censored) else r for r in readings]
        correlation = rank_correlation([p for p, _ in runs], epochs)
        sentences.append(
            f"{paper.label(str(model))}: {epochs.count(float('inf'))} of {len(runs)} runs never fitted. "
            "Spearman's correlation of epochs to fit with p, runs that never fitted last: "
            + (tables.NOTHING if correlation is None else f"{correlation:.3f}".replace("-", "−"))
            + "."
        )
    return sentences or ([] if sweep.collected else ["No run is finished."])
