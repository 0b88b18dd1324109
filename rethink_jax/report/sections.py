"""What the report says of one table or figure: its runs in a table, drawn, and in sentences."""

import re

from rethink_jax.report import tables
from rethink_jax.report.catalog import specification_of
from rethink_jax.report.figures import Picture
from rethink_jax.report.pages import Block, Bullets, Heading, Text
from rethink_jax.report.runs import ReportedRun, Sweep, data_of
from rethink_jax.report.specification import Section


def of_sweep(sweep: Sweep) -> list[Block]:
    """Returns the tables and figures of a sweep, in order."""
    blocks: list[Block] = []
    for section in specification_of(sweep.name).sections:
        blocks += [Heading(section.title), tables.results(sweep, section), *_drawn(section, sweep)]
    sentences = _sentences(sweep)
    return [*blocks, Bullets(sentences)] if sentences else blocks


def of_collected(sweep: Sweep) -> list[Block]:
    """Returns the same of collected runs of one table, and its texts; each data set has its own figures."""
    parts = _by_data(sweep)
    blocks: list[Block] = []
    for section in specification_of(sweep.name).sections:
        table, alike = tables.without_alike(tables.results(sweep, section), ("data", "devices"))
        missing = tables.not_run(sweep, section)
        texts = [*section.texts, alike and f"All of ours: {alike}."]
        blocks += [Heading(section.title), *map(Text, filter(None, texts)), table]
        blocks += [Text(f"Not run: {missing}.")] if missing else []
        for part in parts:
            blocks += _drawn(section, part, *_apart(part, parts))
    for part in parts:
        where = tables.describe_data(part.runs[0])
        if sentences := _sentences(part):
            blocks += [Text(f"On {where}:")] if len(parts) > 1 else []
            blocks.append(Bullets(sentences))
    return blocks


def _sentences(sweep: Sweep) -> list[str]:
    return [
        sentence
        for section in specification_of(sweep.name).sections
        if section.conclude
        for sentence in section.conclude(sweep, section)
    ]


def _drawn(section: Section, sweep: Sweep, suffix: str = "", more: str = "") -> list[Picture]:
    """Returns the section's figure: none for a table, nor for curves that an earlier report does not have."""
    drawing = section.drawing
    if drawing is None:
        return []
    if sweep.collected and drawing.needs_curves and not any(run.history for run in sweep.runs):
        return []
    return [drawing.draw(sweep, section.rows, suffix, more)]


def _by_data(sweep: Sweep) -> list[Sweep]:
    """Returns collected runs apart by data set and number of examples."""
    runs: dict[tuple[str, int], list[ReportedRun]] = {}
    for run in sweep.runs:
        runs.setdefault(data_of(run), []).append(run)
    whole = specification_of(sweep.name).data.examples
    return [
        sweep._replace(runs=tuple(of_data), size="full" if examples >= whole else "small")
        for (_, examples), of_data in sorted(runs.items(), key=lambda item: -item[0][1])
    ]


def _apart(part: Sweep, parts: list[Sweep]) -> tuple[str, str]:
    """Returns what tells a part's figures from the others': the end of their files' names, and a sentence."""
    name, examples = data_of(part.runs[0])
    suffix = re.sub(r"[^\w.-]", "_", f"-{name}-{examples}") if len(parts) > 1 else ""
    return suffix, f" Ours: {tables.describe_data(part.runs[0])}."


def other_data(sweep: Sweep) -> list[str]:
    """Returns a warning where runs are not on the paper's data set."""
    runs = [run for run in sweep.runs if run.state == "finished" or run.place]
    original = specification_of(sweep.name).data
    texts = []
    if any(
        data_of(run) not in [(name, original.examples) for name in original.names] for run in runs
    ):
        texts.append(
            f"The paper's numbers are on all {original.examples:,} training images of {original.title}, some "
            "of ours on other or on fewer ones: there a difference is mostly one of the data."
        )
    if "cifar10_jpeg" in {data_of(run)[0] for run in runs}:
        texts.append(
            "cifar10_jpeg is CIFAR-10 with every image encoded again as a lossy JPEG of quality 75."
        )
    return texts
