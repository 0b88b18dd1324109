"""What can be measured of a run, and a row's numbers over its seeds beside the paper's."""

from collections.abc import Callable
from typing import NamedTuple

from rethink_jax import paper
from rethink_jax.report.runs import ReportedRun, Sweep, level_of
from rethink_jax.sweeps.estimates import Estimate, estimate


class Censored(NamedTuple):
    """What was waited for did not come until then."""

    until: float


Reading = float | Censored | None


class Quantity(NamedTuple):
    """A column.

    Attributes:
      key: as in the paper's rows.
      title: of the column.
      unit: "percent", "epochs", "times", "nats" or "norm".
      read: a finished run → its number.
      paper_key: of the paper's number that it is held against, where that has another key.
      in_parentheses: whether it is shown in the column before it, in parentheses.
    """

    key: str
    title: str
    unit: str
    read: Callable[[ReportedRun, Sweep], Reading]
    paper_key: str | None = None
    in_parentheses: bool = False

    @property
    def compared(self) -> str:
        """The key of the paper's number."""
        return self.paper_key or self.key


class Measure(NamedTuple):
    """A quantity of one row, over its finished runs, beside the paper's.

    Attributes:
      row: the row's key.
      quantity: which.
      readings: one for each run that has it.
      paper: the paper's number; None where there is none.
      flag: `paper.PRINTED` or `paper.READ`, where the paper has something there.
      finished: whether the runs are; no other number is held against the paper's.
    """

    row: str
    quantity: Quantity
    readings: list[float | Censored]
    paper: float | None
    flag: str | None
    finished: bool = True

    @property
    def values(self) -> list[float]:
        """The numbers, without the censored readings."""
        return [reading for reading in self.readings if not isinstance(reading, Censored)]

    @property
    def censored(self) -> int:
        """How many readings are censored."""
        return len(self.readings) - len(self.values)

    @property
    def estimate(self) -> Estimate | None:
        """The mean over the seeds; None where there is no run, or a censored one."""
        return estimate(self.values) if self.readings and not self.censored else None

    @property
    def difference(self) -> float | None:
        """Our mean less the paper's number."""
        if self.estimate is None or self.paper is None or not self.finished:
            return None
        return self.estimate.mean - self.paper


def parameters_over_targets(run: ReportedRun) -> float:
    """Returns a run's parameters over n·K, its training examples times its classes."""
    targets = run.environment["num_train"] * run.environment["num_classes"]
    return float(run.summary["parameters"] / targets)


def by_parameters(sweep: Sweep) -> list[tuple[float, list[ReportedRun]]]:
    """Returns the finished runs that may be averaged, with their p/(n·K), in rising order of that."""
    rows = dict.fromkeys(run.row for run in sweep.runs)
    lines = [line for row in rows for line in sweep.lines(row)]
    finished = [line for line in lines if line and line[0].state == "finished"]
    return sorted(
        ((parameters_over_targets(line[0]), line) for line in finished), key=lambda item: item[0]
    )


def from_summary(key: str) -> Callable[[ReportedRun, Sweep], Reading]:
    """Returns a reader of one of the summary's numbers."""
    return lambda run, sweep: run.summary.get(key)


def _online(run: ReportedRun, sweep: Sweep) -> Reading:
    return run.history[-1].get("train_accuracy_online") if run.history else None


def _test_error(run: ReportedRun, sweep: Sweep, labels: str = "") -> Reading:
    accuracy = run.summary.get("test_accuracy" + labels)
    if accuracy is None and run.config["corruption"]["name"] == "true_labels":
        accuracy = run.summary.get("test_accuracy")
    return None if accuracy is None else 1 - accuracy


def epochs_to_fit(run: ReportedRun, sweep: Sweep, key: str = "epochs_to_fit") -> float | Censored:
    """Returns when a run fitted, or for how long it did not."""
    epoch = run.summary.get(key)
    return Censored(run.summary["epochs"]) if epoch is None else epoch


def _relative_epochs(run: ReportedRun, sweep: Sweep) -> Reading:
    """Returns Inception's epochs to fit over their mean at p = 0, as Figure 1b draws them."""
    at_zero = [epochs_to_fit(other, sweep) for other in sweep.beside(run, "inception-p0.0")]
    fitted = [reading for reading in at_zero if not isinstance(reading, Censored)]
    level = level_of(run)
    if not level or level[0] != "inception" or not fitted or len(fitted) < len(at_zero):
        return None
    base = sum(fitted) / len(fitted)
    reading = epochs_to_fit(run, sweep)
    return Censored(reading.until / base) if isinstance(reading, Censored) else reading / base


def _epochs_to_loss(loss: float) -> Callable[[ReportedRun, Sweep], Reading]:
    def read(run: ReportedRun, sweep: Sweep) -> Reading:
        if not run.history:
            return None
        fitted = (record["epoch"] for record in run.history if record["train_loss"] <= loss)
        return next(fitted, Censored(run.summary["epochs"]))

    return read


def _accuracy(key: str, title: str) -> Quantity:
    return Quantity(key, title, "percent", from_summary(key))


TRAIN = _accuracy("train_accuracy", "training accuracy")
TRAIN_LOSS = Quantity("train_loss", "training loss", "nats", from_summary("train_loss"))
NORM = Quantity("weight_norm", "‖w‖", "norm", from_summary("weight_norm"))
DISTANCE = Quantity("weight_distance", "‖w − w⁰‖", "norm", from_summary("weight_distance"))
TEST = _accuracy("test_accuracy", "test accuracy, true labels")
TEST_CORRUPTED = _accuracy("test_accuracy_corrupted", "test accuracy, corrupted labels")
BEST = _accuracy("best_test_accuracy", "best test accuracy")
BEST_EPOCH = Quantity(
    "best_test_epoch", "epoch of the best", "epochs", from_summary("best_test_epoch")
)
TOP1_AND_TOP5 = (
    _accuracy("train_accuracy", "training top-1"),
    _accuracy("train_top5", "training top-5"),
    _accuracy("test_accuracy", "test top-1, true labels"),
    _accuracy("best_test_accuracy", "best test top-1")._replace(in_parentheses=True),
    _accuracy("test_top5", "test top-5, true labels"),
    _accuracy("best_test_top5", "best test top-5")._replace(in_parentheses=True),
    TEST_CORRUPTED._replace(title="test top-1, corrupted labels"),
)
ONLINE = Quantity("train_accuracy_online", "training accuracy, online", "percent", _online)
EPOCHS = Quantity("epochs_to_fit", "epochs to fit", "epochs", epochs_to_fit)
RELATIVE = Quantity("epochs_to_fit_relative", "relative to p = 0", "times", _relative_epochs)
EPOCHS_BY_ACCURACY = Quantity(
    *("epochs_to_fit_accuracy", "epochs to fit by accuracy", "epochs"),
    lambda run, sweep: epochs_to_fit(run, sweep, "epochs_to_fit_accuracy"),
)
ERROR = Quantity("test_error", "test error, true labels", "percent", _test_error)
# What the paper's Figure 1c shows, as far as can be told; `catalog` says why.
ERROR_CORRUPTED = Quantity(
    *("test_error_corrupted", "test error, corrupted labels", "percent"),
    lambda run, sweep: _test_error(run, sweep, "_corrupted"),
    "test_error",
)
LOSSES = tuple(
    Quantity(f"epochs_to_loss_{x}", f"epochs to loss {x}", "epochs", _epochs_to_loss(x))
    for x in paper.LOSSES
)
