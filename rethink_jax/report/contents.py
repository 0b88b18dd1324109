"""What a report says, in order, and the files it becomes."""

from typing import Any

from etils import epath

from rethink_jax import metrics, paper, run_directory
from rethink_jax.config import UserError
from rethink_jax.report import experiments, figures, measures, parameters, tables
from rethink_jax.report.measures import SECTIONS, Censored, Section
from rethink_jax.report.pages import Block, Bullets, Heading, Text, to_html, to_markdown
from rethink_jax.report.runs import (
    Run,
    Sweep,
    data_of,
    read_sweep,
    runs_to_list,
    title,
    to_dict,
    versions,
    warn_of_made_up,
)
from rethink_jax.statistics import rank_correlation

FOLDER = "report"

_HOW = (
    "Accuracies and errors in percent, exact over the whole set with fixed weights at the end of a run. "
    "Ours is the mean ± standard deviation over the seeds and Student's 95 % interval of the mean in "
    "brackets; one seed has only its value. The difference is ours less the paper's. Numbers are taken "
    "from finished runs only, and a dash stands for what was not measured or not printed."
)
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
_TEXTS = {
    "table2": [_RECIPE, _PARENTHESES, _BEST, _SLIDES],
    "table4": [_ONLINE],
    "figure1bc": [_FITTED, _TEST_LABELS],
    "figure2a": [_RECIPE, _BEST, _THEIR_STEPS],
    "figure2b": [_BEST],
}


def write(workdir: epath.PathLike) -> epath.Path:
    """Writes the report of a sweep, or of kernels and theory, into its directory, and returns where.

    Raises:
      UserError: there is nothing to report in that directory, it is damaged, or of a kind that has no report.
    """
    path = epath.Path(workdir).expanduser()
    if not path.is_dir():
        raise UserError(f"--workdir is {workdir}; there is no such directory")
    try:
        name, blocks, table, content = (_of_sweep if _is_sweep(path) else _of_experiments)(workdir)
    except (KeyError, TypeError, AttributeError) as error:
        told = f"{type(error).__name__}: {error}"
        raise UserError(
            f"a run in {workdir} is damaged, or was made by an older version ({told})"
        ) from error
    folder = path / FOLDER
    folder.mkdir(exist_ok=True)
    for block in blocks:
        if isinstance(block, figures.Picture):
            run_directory.write_text(folder / f"{block.name}.svg", block.svg)
            (folder / f"{block.name}.png").write_bytes(block.png)
    run_directory.write_text(folder / "report.csv", table)
    run_directory.write_json(folder / "report.json", content)
    run_directory.write_text(folder / "report.md", to_markdown(blocks))
    run_directory.write_text(folder / "report.html", to_html(name, blocks))
    return folder


# A title, the page, the CSV file and the JSON file.
_Report = tuple[str, list[Block], str, dict[str, Any]]


def _is_sweep(path: epath.Path) -> bool:
    return (path / run_directory.SWEEP).exists()


def _of_sweep(workdir: epath.PathLike) -> _Report:
    sweep = read_sweep(workdir)
    if sweep.name not in SECTIONS:
        raise UserError(
            f"{epath.Path(workdir) / run_directory.SWEEP} is of {sweep.name!r}; "
            f"there is a report of {', '.join(SECTIONS)}"
        )
    table = tables.to_csv(sweep, SECTIONS[sweep.name])
    return _title(sweep), report(sweep), table, to_dict(sweep)


def _of_experiments(workdir: epath.PathLike) -> _Report:
    runs = experiments.read(workdir)
    blocks = experiments.report(runs)
    name, table = title(experiments.SUBJECT, runs), experiments.to_csv(blocks)
    return name, blocks, table, {"runs": runs_to_list(runs)}


def report(sweep: Sweep) -> list[Block]:
    """Returns all that the report of a sweep says."""
    sections = SECTIONS[sweep.name]
    pictures = figures.of_sweep(sweep)
    blocks: list[Block] = [
        Heading(_title(sweep), 1),
        *map(Text, warn_of_made_up(sweep.runs)),
        Text(_counts(sweep)),
        Text(_HOW),
        *map(Text, [*_other_data(sweep), *_TEXTS.get(sweep.name, [])]),
    ]
    for i, section in enumerate(sections):
        blocks += [Heading(section.title), tables.results(sweep, section), *pictures[i : i + 1]]
    if sweep.name == "figure1a":
        blocks.append(Bullets(_orders(sweep, sections[0])))
    if sweep.name == "figure1bc":
        blocks.append(Bullets(_fits(sweep)))
    blocks += [Heading("How each row was measured"), tables.how_measured(sweep, sections[0])]
    blocks += map(Text, versions(sweep.runs))
    table, picture = parameters.compare()
    return [
        *blocks,
        *(Heading("Parameters over training examples"), Text(parameters.TEXT), table, picture),
        Heading("Where the paper disagrees with itself"),
        Text(
            "Two numbers for one thing; a difference from ours may be a difference between these."
        ),
        Bullets(paper.disagreements()),
    ]


def _title(sweep: Sweep) -> str:
    return title(f"{sweep.name}, {sweep.size}", sweep.runs)


def _counts(sweep: Sweep) -> str:
    """Returns how the runs ended, and how many rows have none."""
    states = [run.state for run in sweep.runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    keys = SECTIONS[sweep.name][0].row_keys(sweep)
    missing = sum(not sweep.finished(key) for key in keys)
    return (
        f"{len(states)} runs" + (f": {counts}" if counts else "") + ". "
        f"Of {len(keys)} rows {len(keys) - missing} have a finished run"
        + ("; the others show why not." if missing else ".")
    )


def _other_data(sweep: Sweep) -> list[str]:
    """Returns a warning where runs are not on the paper's data set."""
    runs = [run for run in sweep.runs if run.state == "finished"]
    names = {data_of(run)[0] for run in runs}
    original, count, like_it = _IMAGENET if sweep.name in _ON_IMAGENET else _CIFAR10
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
_CIFAR10 = ("CIFAR-10", paper.CIFAR10_TRAIN, ("cifar10", "cifar10_jpeg"))
_IMAGENET = ("ImageNet", paper.IMAGENET_TRAIN, ("imagenet2012",))
_ON_IMAGENET = ("table2", "figure2a")


def _orders(sweep: Sweep, section: Section) -> list[str]:
    """Returns in which order the corruptions come down to each loss, ours and the paper's."""
    sentences = []
    for quantity in measures.LOSSES:
        found = [section.measure(sweep, row.key, quantity) for row in section.rows]
        ours = {m.row: m.estimate.mean if m.estimate else float("inf") for m in found if m.readings}
        theirs = {m.row: m.paper for m in found if m.paper is not None}
        sentences.append(
            f"{quantity.title}, ours: {_order(ours) or 'not run'}. The paper's: {_order(theirs)}."
        )
    return [*sentences, "never: in some seed, so that there is no mean and the row comes last."]


def _order(epochs: dict[str, float]) -> str:
    ordered = sorted(epochs.items(), key=lambda item: item[1])
    return ", ".join(
        f"{paper.label(key)} ({tables.number(epoch, 'epochs') if epoch < float('inf') else 'never'})"
        for key, epoch in ordered
    )


def _fits(sweep: Sweep) -> list[str]:
    """Returns for each model how many runs never fitted, and the rank correlation with p."""
    models: dict[str, list[tuple[float, Run]]] = {}
    for run in sweep.runs:
        level = figures.level_of(run)
        if run.state == "finished" and level:
            models.setdefault(level[0], []).append((level[1], run))
    sentences = []
    for model, runs in models.items():
        readings = [measures.epochs_to_fit(run, sweep) for _, run in runs]
        epochs = [float("inf") if isinstance(r, Censored) else r for r in readings]
        correlation = rank_correlation([p for p, _ in runs], epochs)
        sentences.append(
            f"{paper.label(model)}: {epochs.count(float('inf'))} of {len(runs)} runs never fitted. "
            "Spearman's correlation of epochs to fit with p, runs that never fitted last: "
            + (tables.NOTHING if correlation is None else f"{correlation:.3f}".replace("-", "−"))
            + "."
        )
    return sentences or ["No run is finished."]
