"""What a specification of a table or figure of the paper consists of."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from rethink_jax import config as config_lib, paper
from rethink_jax.report.figures import Drawing
from rethink_jax.report.measures import Measure, Quantity
from rethink_jax.report.runs import ReportedRun, Sweep


class Section(NamedTuple):
    """A table of the report: the paper's rows, what is measured in each, and what is said and drawn of it.

    Attributes:
      title: the paper's place, a colon, and what is there.
      rows: the paper's.
      quantities: the columns.
      texts: paragraphs that explain it.
      drawing: the figure; None for a table.
      conclude: from the sweep and the section, sentences on what the numbers show.
    """

    title: str
    rows: tuple[paper.Row, ...]
    quantities: tuple[Quantity, ...]
    texts: tuple[str, ...] = ()
    drawing: Drawing | None = None
    conclude: Callable[[Sweep, "Section"], list[str]] | None = None

    def row_keys(self, sweep: Sweep) -> list[str]:
        """Returns the paper's rows, then those that only the sweep has."""
        return list(dict.fromkeys([row.key for row in self.rows] + [run.row for run in sweep.runs]))

    def measure(
        self, sweep: Sweep, key: str, quantity: Quantity, line: list[ReportedRun] | None = None
    ) -> Measure:
        """Returns one row's numbers, or those of one of its lines: the finished runs', or a stopped one's."""
        runs = sweep.of(key) if line is None else line
        finished = [run for run in runs if run.state == "finished"]
        stopped = [run for run in runs if run.summary] if sweep.collected else []
        readings = [quantity.read(run, sweep) for run in finished or stopped]
        if sweep.collected and None in readings:
            readings = []  # of some seeds alone there is no mean
        theirs = next((row for row in self.rows if row.key == key), None)
        known = theirs is not None and quantity.compared in theirs.values
        return Measure(
            row=key,
            quantity=quantity,
            readings=[reading for reading in readings if reading is not None],
            paper=theirs.values[quantity.compared] if theirs and known else None,
            flag=theirs.flag if theirs and known else None,
            finished=bool(finished),
        )


class PaperData(NamedTuple):
    """A data set of the paper.

    Attributes:
      title: its name in words.
      examples: of the training set.
      names: the values of `config.data.name` that are this data set.
      make_config: from a data set's name and a corruption, the default recipe.
    """

    title: str
    examples: int
    names: tuple[str, ...]
    make_config: Callable[[str, str], ConfigDict]


CIFAR10 = PaperData("CIFAR-10", paper.CIFAR10_TRAIN, ("cifar10", "cifar10_jpeg"), config_lib.train)
IMAGENET = PaperData("ImageNet", paper.IMAGENET_TRAIN, ("imagenet2012",), config_lib.imagenet)


class Specification(NamedTuple):
    """A table or figure of the paper, or two figures of the same runs.

    Attributes:
      sections: its tables in the report; the rows of the first are what a run can belong to.
      fields: from a row's key, what the row changes in the default recipe, flattened, as its config file does;
        None where the runs are rows of another table.
      data: the paper's data set.
    """

    sections: tuple[Section, ...]
    fields: Callable[[str], dict[str, Any]] | None = None
    data: PaperData = CIFAR10
