"""What a report says, in order, and the files it becomes."""

from collections import Counter
from typing import Any, NamedTuple

from etils import epath

from rethink_jax import paper
from rethink_jax.errors import UserError
from rethink_jax.report import (
    collect,
    examples,
    experiments,
    figures,
    parameters,
    rows,
    run_tables,
    sections,
    tables,
)
from rethink_jax.report.catalog import SPECIFICATIONS, specification_of
from rethink_jax.report.pages import Block, Bullets, Heading, Text, to_html, to_markdown
from rethink_jax.report.runs import (
    LostField,
    ReportedRun,
    Sweep,
    read_sweep,
    runs_to_list,
    title,
    to_dict,
    versions,
    warn_of_made_up,
    warn_of_parts,
)
from rethink_jax.runs import files, own_files, run_directory

FOLDER = "report"

_HOW = (
    "Accuracies and errors in percent, exact over the whole set with fixed weights at the end of a run. "
    "Ours is the mean ± standard deviation over the seeds and Student's 95 % interval of the mean in "
    "brackets; one seed has only its value. The difference is ours less the paper's. "
)
_FINISHED = (
    "Numbers are taken from finished runs only, and a dash stands for what was not measured or not "
    "printed."
)
_DASH = "A dash stands for what was not measured or not printed."
_LINES = (
    "A row has one line for each data set, number of training examples, planned epochs and kind of device. "
    "Nothing is averaged over these, and no seed is counted twice. A run that stopped has a line of its own, "
    "with the numbers of its last evaluation and how far it came; they are not held against the paper's."
)
_ROWS = (
    "A run belongs to a row by its config, whatever its directory is called, and one run may belong to "
    "several rows. Data, epochs, seeds and how often it was evaluated and saved make no difference. Every "
    "other change in the recipe does: such runs are in a table of their own."
)
_OTHERS = (
    "Each run beside the row of the paper that it differs least from, and what differs. They are counted in "
    "no row."
)


class Report(NamedTuple):
    """A report before it is written.

    Attributes:
      title: of the HTML page.
      blocks: the page.
      texts: name → content of its other text files.
      content: of the JSON file.
    """

    title: str
    blocks: list[Block]
    texts: dict[str, str]
    content: dict[str, Any]


def write(
    *workdirs: epath.PathLike,
    out: epath.PathLike | None = None,
    published: epath.PathLike | None = None,
) -> epath.Path:
    """Writes the report on the runs in some directories, and returns where it is.

    Args:
      *workdirs: a sweep's directory, a run's, or ones with runs in them; or a report's `report.json`.
      out: the directory to write to; by default `report` in the only `workdir`, or in the current directory.
      published: a file of C-scores, for the page on single examples.

    Raises:
      UserError: there is nothing to report in a directory, it is damaged, or of a kind that has no report; or
        `out` holds what is no report's.

    Example:
      >>> folder = write("runs/mine")
      >>> sorted(file.name for file in folder.iterdir() if file.suffix in (".html", ".json"))
      ['report.html', 'report.json']
    """
    for workdir in workdirs:
        if not epath.Path(workdir).expanduser().exists():
            raise UserError(f"--workdir is {workdir}; there is no such directory")
    try:
        report = _report(workdirs)
    except LostField as error:
        where = ", ".join(map(str, workdirs))
        reason = f"is damaged, or was made by an older version (KeyError: {error})"
        raise UserError(f"a run in {where} {reason}") from error
    of_examples = _on_examples(workdirs, published)
    whole = [*report.blocks, *of_examples]
    pictures = [block for block in whole if isinstance(block, figures.Picture)]
    texts = {f"{picture.name}.svg": picture.svg for picture in pictures} | report.texts
    pages = {"report": report.blocks, **({"examples": of_examples} if of_examples else {})}
    for name, blocks in pages.items():
        texts[f"{name}.md"] = to_markdown(blocks)
        texts[f"{name}.html"] = to_html(report.title, blocks)
    first = epath.Path(workdirs[0]).expanduser()
    if out is None:
        alone = len(workdirs) == 1 and first.is_dir()
        out = first / FOLDER if alone else FOLDER
    folder = epath.Path(out).expanduser()
    names = [*texts, "report.json", *(f"{picture.name}.png" for picture in pictures)]
    _begin(folder, report.content | {"files": sorted(names)})
    for picture in pictures:
        (folder / f"{picture.name}.png").write_bytes(picture.png)
    for name, text in texts.items():
        files.write_text(folder / name, text)
    return folder


def _on_examples(
    workdirs: tuple[epath.PathLike, ...], published: epath.PathLike | None
) -> list[Block]:
    """Returns the page on single examples, empty where no run has scores of them."""
    tops = [run_directory.path_of(workdir) for workdir in workdirs]
    scored = examples.find(path for top in tops if top.is_dir() for path in collect.runs_in(top))
    if scored:
        return examples.page(scored, None if published is None else epath.Path(published))
    if published is not None:
        raise UserError(f"--c_scores is {published}; no run in --workdir has a scores.csv")
    return []


def _begin(folder: epath.Path, content: dict[str, Any]) -> None:
    """Makes a report's folder and writes its JSON file, which lists its files; an earlier report is removed.

    Reports of older versions list no files; they are only written over.

    Raises:
      UserError: something else is there.
    """
    file = folder / "report.json"
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{folder} is a file; a report is written to a directory, which --out names"
        )
    earlier = files.read_json(file) if file.exists() else {}
    own = _listed_files(earlier)
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    foreign = sorted({name.removesuffix(own_files.PARTIAL) for name in there} - own)
    if foreign and ("files" in earlier or "runs" not in earlier):
        raise UserError(
            f"{folder} holds {foreign[0]}, which is no file of a report written there; name another "
            "directory, or an empty one, with --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in there & own - {*content["files"]}:
        (folder / name).unlink()
    files.write_json(file, content)


def _listed_files(content: dict[str, Any]) -> set[str]:
    """Returns the files that a report's JSON file lists; none in reports of older versions."""
    listed = content.get("files")
    return {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()


def _report(workdirs: tuple[epath.PathLike, ...]) -> Report:
    """Returns the report of one sweep, of kernels and theory alone, or of whatever else there is."""
    first = epath.Path(workdirs[0]).expanduser()
    if len(workdirs) == 1 and (first / own_files.SWEEP).exists():
        return _of_sweep(first)
    collection = collect.read(workdirs)
    if collection.trained:
        return _of_collection(collection)
    return _of_experiments(collection.computed)


def _of_sweep(path: epath.Path) -> Report:
    sweep = read_sweep(path)
    if sweep.name not in SPECIFICATIONS and not sweep.runs:
        raise UserError(
            f"{path / own_files.SWEEP} is of {sweep.name!r}, which is no table of the paper, and lists no run"
        )
    specified = specification_of(sweep.name).sections
    name = title(f"{sweep.name}, {sweep.size}", sweep.runs)
    texts = [_counts(sweep), _HOW + _FINISHED, *sections.other_data(sweep)]
    texts += [text for section in specified for text in section.texts]
    blocks: list[Block] = [
        Heading(name, 1),
        *map(Text, [*warn_of_made_up(sweep.runs), *warn_of_parts(sweep.runs), *texts]),
        *sections.of_sweep(sweep),
        Heading("How each row was measured"),
        tables.how_measured(sweep, specified[0]),
        *map(Text, versions(sweep.runs)),
        *_background(),
    ]
    table = tables.to_csv([(sweep, specified)])
    return Report(name, blocks, {"report.csv": table}, to_dict(sweep))


def _of_experiments(runs: list[ReportedRun]) -> Report:
    name = title(experiments.SUBJECT, runs)
    blocks: list[Block] = [
        Heading(name, 1),
        *map(Text, [*warn_of_made_up(runs), *warn_of_parts(runs)]),
        *experiments.blocks(runs),
        Heading("How it was measured"),
        *map(Text, versions(runs)),
    ]
    table = experiments.to_csv(blocks)
    return Report(name, blocks, {"report.csv": table}, {"runs": runs_to_list(runs)})


def _of_collection(collection: collect.Collection) -> Report:
    """Returns the report of training runs from anywhere, each in its tables, and of kernels and theory."""
    trained, computed = collection
    runs = [*trained, *computed]
    of_rows = {run.place: rows.rows_of(run) for run in trained}
    sweeps = _sweeps(trained, of_rows)
    name = title("collected runs", runs)
    experiment_blocks = experiments.blocks(computed)
    blocks: list[Block] = [
        Heading(name, 1),
        *map(Text, _introduce(collection, of_rows, sweeps)),
        *(block for sweep in sweeps for block in sections.of_collected(sweep)),
        *_other_recipes([run for run in trained if not of_rows[run.place]]),
        *experiment_blocks,
        *_all_runs(trained, of_rows),
        *map(Text, versions(runs)),
        *_background(),
    ]
    measured = [(sweep, specification_of(sweep.name).sections) for sweep in sweeps]
    texts = {"report.csv": tables.to_csv(measured)}
    if computed:
        texts["experiments.csv"] = experiments.to_csv(experiment_blocks)
    return Report(name, blocks, texts, {"runs": _entries(runs, of_rows)})


def _introduce(
    collection: collect.Collection, of_rows: dict[str, list[rows.Row]], sweeps: list[Sweep]
) -> list[str]:
    runs = [*collection.trained, *collection.computed]
    count_of_others = sum(not of_rows[run.place] for run in collection.trained)
    explanations = [_HOW + _DASH, _LINES, _ROWS]
    explanations += [text for sweep in sweeps for text in sections.other_data(sweep)]
    return [
        *(*warn_of_made_up(runs), *warn_of_parts(runs)),
        _count(collection, count_of_others),
        *dict.fromkeys(explanations),
    ]


def _other_recipes(runs: list[ReportedRun]) -> list[Block]:
    if not runs:
        return []
    compared = [(run, rows.nearest(run)) for run in runs]
    return [Heading("Other recipes"), Text(_OTHERS), run_tables.other_recipes(compared)]


def _all_runs(runs: list[ReportedRun], of_rows: dict[str, list[rows.Row]]) -> list[Block]:
    whole = run_tables.all_runs(runs, of_rows)
    table, alike = tables.without_alike(whole, run_tables.SETTINGS_OF_RUNS)
    text = [Text(f"All of them: {alike}.")] if alike else []
    return [Heading("The training runs"), *text, table]


def _entries(runs: list[ReportedRun], of_rows: dict[str, list[rows.Row]]) -> list[dict[str, Any]]:
    """Returns the runs for `report.json`, each with its place and the rows that it measures."""
    return [
        entry | {"name": run.place or run.row, "rows": [*map(list, of_rows.get(run.place, []))]}
        for run, entry in zip(runs, runs_to_list(runs), strict=True)
    ]


def _sweeps(runs: list[ReportedRun], of_rows: dict[str, list[rows.Row]]) -> list[Sweep]:
    """Returns the runs of each table or figure that any of them belongs to."""
    by_table: dict[str, list[ReportedRun]] = {name: [] for name in SPECIFICATIONS}
    for run in runs:
        for row in of_rows[run.place]:
            by_table[row.table].append(run._replace(row=row.key))
    return [Sweep(name, "full", tuple(of), collected=True) for name, of in by_table.items() if of]


def _count(collection: collect.Collection, count_of_others: int) -> str:
    """Returns how many runs there are and how they ended."""
    trained, computed = collection
    states = Counter(run.state for run in trained)
    ended = ", ".join(f"{count} {state}" for state, count in states.items())
    text = f"{_runs(len(trained), 'training run')}: {ended}."
    if count_of_others:
        text += f" {count_of_others} of them with another recipe than the paper's rows."
    if computed:
        text += f" {_runs(len(computed), 'finished run')} of kernels and theory."
    return text


def _runs(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _background() -> list[Block]:
    table, picture = parameters.compare()
    return [
        Heading("Parameters over training examples"),
        Text(parameters.TEXT),
        table,
        picture,
        Heading("Where the paper disagrees with itself"),
        Text(
            "Two numbers for one thing; a difference from ours may be a difference between these."
        ),
        Bullets(paper.disagreements()),
    ]


def _counts(sweep: Sweep) -> str:
    """Returns how the runs ended, and how many rows have none."""
    states = [run.state for run in sweep.runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    keys = specification_of(sweep.name).sections[0].row_keys(sweep)
    missing = sum(not sweep.finished(key) for key in keys)
    return (
        f"{len(states)} runs" + (f": {counts}" if counts else "") + ". "
        f"Of {len(keys)} rows {len(keys) - missing} have a finished run"
        + ("; the others show why not." if missing else ".")
    )
