"""Which examples a learner memorizes, and which test points these decide: ensembles on random subsets.

Feldman and Zhang 2020 (arXiv 2008.03703) and, with several sizes of the subset, Jiang et al. 2021 (arXiv
2002.03206). `subsets` has the draws and the estimators.
"""

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import data, models
from rethink_jax.config.base import EXPERIMENT, TRAIN
from rethink_jax.config.fields import Allowed, Field, Fields, one_of, with_defaults, within
from rethink_jax.distributed import jax_settings, parallel, processes
from rethink_jax.errors import require
from rethink_jax.kernels.session import seconds_before
from rethink_jax.pipeline import inputs
from rethink_jax.runs import cpu_devices, display, effects, files, opening, score_table
from rethink_jax.runs.own_files import INFLUENCE, MEMBERS, PAIRS, SCORES, SECONDS
from rethink_jax.runs.resolve import resolve
from rethink_jax.runs.run_in_parts import Show, run_in_parts
from rethink_jax.theory import exact_learners, member_records, networks, removal, scores, subsets
from rethink_jax.theory.member_records import Records

_OF_MEMBERS = with_defaults(TRAIN, model__name="mlp", epochs=25, stop_when_fitted=False)
_LEARNERS = ("mlp", "nearest_neighbour", "kernel_ridge")

FIELDS: Fields = {
    **_OF_MEMBERS,
    **{name: _OF_MEMBERS[name]._replace(may_change=False) for name in ("epochs", "steps")},
    "experiment": EXPERIMENT._replace(default="memorization"),
    "memorization.learner": Field(
        "mlp",
        "What is trained on the subsets; of the fields of training `nearest_neighbour` and `kernel_ridge` need "
        "the data and their corruption alone.",
        one_of(*_LEARNERS),
    ),
    "memorization.fractions": Field(
        (0.7,),
        "Shares of the training examples that a subset has; of 1 only the spread of the answers is computed.",
        (
            Allowed(
                "one or more different numbers in (0, 1]",
                lambda values: (
                    len(values) > 0
                    and all(isinstance(x, float) and 0 < x <= 1 for x in values)
                    and len({*values}) == len(values)
                ),
            ),
        ),
    ),
    "memorization.members": Field(
        100, "Members that are trained for each fraction.", within(2, 10**6)
    ),
    "memorization.at_once": Field(
        20,
        "Members that train as one program, after which they are saved.",
        within(1, 10_000),
        in_name=False,
        may_change=True,
        in_report=False,
    ),
    "memorization.removal_networks": Field(
        0,
        "Networks that are then trained on all examples, as many without those of memorized pairs, and as many "
        "without others of the same classes; 0 for none.",
        within(0, 10_000),
    ),
}

# Fields of a training run that say what members do not do: evaluations, checkpoints, an early end.
_UNUSED = (
    "stop_when_fitted",
    "stop_at_loss",
    *(name for name in TRAIN if name.startswith(("evaluate.", "checkpoint.", "records."))),
)


class Session(NamedTuple):
    """A run underway.

    Attributes:
      config: resolved.
      path: the run's directory.
      info: sizes of the data set.
      prepared: both splits, corrupted.
      show: is told what is done and how much of it; raises `Stopped` after a signal.
    """

    config: ConfigDict
    path: epath.Path
    info: data.DatasetInfo
    prepared: inputs.Inputs
    show: Show


class _Learner(NamedTuple):
    """What is trained.

    Attributes:
      answer: a function of subsets, the members' numbers and a display to the answers on both splits.
      exact: returns the memorization in closed form, float64 [n]; None where there is none.
    """

    answer: Callable[[np.ndarray, list[int], networks.Show], tuple[np.ndarray, np.ndarray]]
    exact: Callable[[], np.ndarray | None]


@jax_settings.pin_settings()
def run(
    config: ConfigDict, workdir: epath.PathLike | None = None, name: str = "memorization"
) -> dict[str, Any]:
    """Trains members on random subsets, and scores every training example by their answers.

    Args:
      config: as `rethink_jax.config.experiment("memorization", …)` returns it, changed at will.
      workdir: the run's directory; by default `runs/<name>-<data>-<digits of the config>`.
      name: of the config file, for the default directory.

    Returns:
      The content of `summary.json`.

    Raises:
      UserError: for a config or a directory that cannot be run, and in several processes.
      RunFailed: a member's loss is not finite, or a file cannot be written.
      Stopped: when a signal came; the members that are finished are saved.
    """
    config, info = resolve(config)
    processes.check_one_process(config)
    check(config, info)
    with contextlib.ExitStack() as stack:
        stack.enter_context(cpu_devices.use(config))
        if config.cpu_devices is None:
            at_once = min(config.memorization.at_once, config.memorization.members)
            stack.enter_context(parallel.use_cpu_devices_for(at_once))
        summary = run_in_parts(
            *(config, workdir, name, functools.partial(_compute, config), "finished members are"),
            info=info,
            check=functools.partial(_refuse_unused, config=config),
        )
    display.print_rows(*scores.table(summary))
    return summary


def check(config: ConfigDict, info: data.DatasetInfo) -> None:
    """Raises `UserError` for members that cannot be trained.

    Args:
      config: resolved.
      info: of its data set.
    """
    n, fractions = info.num_train, config.memorization.fractions
    sizes = [subsets.subset_size(fraction, n) for fraction in fractions]
    allowed = f"1, or such that subsets of {n} examples have 1 to {n - 1}; they have {sizes}"
    is_proper = all(
        fraction == 1 or 1 <= size < n for fraction, size in zip(fractions, sizes, strict=True)
    )
    require(is_proper, "memorization.fractions", tuple(fractions), allowed)
    if config.memorization.learner == "mlp":
        model = config.model.name
        has_convolutions = models.MODELS[model].convolutions
        allowed = "mlp; convolutions of several members at once are slow"
        require(not has_convolutions, "model.name", model, allowed)
    if config.memorization.learner == "kernel_ridge":
        exact_learners.check_size(n)
    crops = config.augment.random_crop
    allowed = f"False for {config.memorization.learner}, which is not trained"
    is_trained = config.memorization.learner == "mlp"
    require(is_trained or not crops, "augment.random_crop", crops, allowed)


def _refuse_unused(path: epath.Path, config: ConfigDict) -> None:
    """Raises `UserError` for a new run's first setting that members ignore."""
    for name in _UNUSED:
        group, _, field = name.rpartition(".")
        value = config[group][field] if group else config[field]
        default = FIELDS[name].default
        if value != default:
            allowed = f"{default!r} or left out for memorization, which does no such thing"
            effects.refuse_one(path, effects.Ignored(name, value, allowed))


def _compute(
    config: ConfigDict, path: epath.Path, dataset: data.Dataset, show: Show
) -> dict[str, Any]:
    """Trains the members that the directory does not have yet, and writes scores and the summary."""
    prepared = inputs.prepare(config, dataset)
    session = Session(config, path, dataset.info, prepared, show)
    noted = {"num_train": dataset.info.num_train, "data_fingerprint": dataset.fingerprint}
    with opening.open_described(path, config, **noted):
        learner = _learner(session)
        records = _train(session, learner)
        show("scores", 0.0)
        found = scores.score(records, prepared, learner.exact())
        removed = _remove(session, learner, found.pairs)
        seconds = seconds_before(path)
        summary = {
            "status": "finished",
            "learner": config.memorization.learner,
            **found.summary,
            "removal": removed,
            "seconds": seconds,
            "members_per_minute": 60 * len(records.member) / seconds if seconds else None,
        }

        def write() -> None:
            by_name = {"memorization": found.memorization, "c_score": found.c_score}
            labels = prepared.train.labels, prepared.train.true_labels
            scored = score_table.ScoreTable(*labels, dataset.train.own_ids, by_name)
            files.write_text(path / SCORES, score_table.to_csv(scored))
            files.write_text(path / PAIRS, scores.pairs_csv(found))
            files.write_whole(path / INFLUENCE, functools.partial(scores.save_influence, found))
            files.write_summary(path, summary)

        processes.on_primary(write)
    return summary


def _train(session: Session, learner: _Learner) -> Records:
    """Trains the members that the run's directory does not have, some at a time, and returns all answers."""
    config, path, prepared = session.config.memorization, session.path, session.prepared
    sizes = len(prepared.train.labels), len(prepared.test.labels)
    records = member_records.restore(path / MEMBERS, *sizes)
    seconds = seconds_before(path) if len(records.member) else 0.0
    total = len(config.fractions) * config.members
    while (done := len(records.member)) < total:
        started = time.monotonic()
        place, first = divmod(done, config.members)
        fraction = config.fractions[place]
        last = min(first + config.at_once, config.members)
        # Each fraction has members of its own: answers of nested subsets would make the mean less exact.
        numbers = [place + len(config.fractions) * own for own in range(first, last)]
        size = subsets.subset_size(fraction, sizes[0])
        is_member = subsets.membership(session.config.seed, numbers, sizes[0], size)

        def show(part: float, done: int = done, count: int = last - first) -> None:
            session.show("members", (done + part * count) / total)

        show(0.0)
        on_train, on_test = learner.answer(is_member, numbers, show)
        records = member_records.add(
            records,
            numbers,
            fraction,
            is_member,
            on_train == prepared.train.labels[None],
            on_test == prepared.test.true_labels[None],
        )
        seconds += time.monotonic() - started
        processes.on_primary(functools.partial(_keep, path, records, seconds))
    return records


def _remove(session: Session, learner: _Learner, pairs: subsets.Pairs) -> dict[str, Any] | None:
    """Returns what the removal of memorized examples costs networks that are numbered after the members."""
    config, (train, test, _) = session.config.memorization, session.prepared
    count, first = config.removal_networks, len(config.fractions) * config.members
    if not count:
        return None

    def correct(condition: str, is_member: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, count, config.at_once):
            numbers = [*range(first + start, first + min(start + config.at_once, count))]

            def show(part: float, start: int = start) -> None:
                session.show(condition.replace("_", " "), (start + part) / count)

            show(0.0)
            answers = learner.answer(is_member[start : start + config.at_once], numbers, show)[1]
            parts.append(answers == test.true_labels[None])
        return np.concatenate(parts)

    numbers = [*range(first, first + count)]
    draws = subsets.draws(session.config.seed, numbers, len(train.labels))
    return removal.measure(session.path, draws, train.labels, pairs, correct)


def _keep(path: epath.Path, records: Records, seconds: float) -> None:
    files.write_json(path / SECONDS, {"seconds": seconds})
    files.write_whole(path / MEMBERS, functools.partial(member_records.save, records))


def _learner(session: Session) -> _Learner:
    config, (train, test, _) = session.config, session.prepared
    if config.memorization.learner == "nearest_neighbour":
        nearest = exact_learners.nearest_neighbour(train, test)
        fractions = config.memorization.fractions

        def exact() -> np.ndarray | None:
            if len(fractions) > 1:
                return None
            size = subsets.subset_size(fractions[0], len(train.labels))
            return exact_learners.nearest_neighbour_memorization(train.images, train.labels, size)

        return _Learner(lambda is_member, numbers, show: nearest(is_member), exact)
    if config.memorization.learner == "kernel_ridge":
        matrices = exact_learners.gaussian_matrices(train, test)
        ridge = exact_learners.kernel_ridge(matrices, train.labels)
        return _Learner(
            lambda is_member, numbers, show: ridge(is_member),
            lambda: exact_learners.leave_one_out(matrices.train, train.labels),
        )
    trainer = networks.Trainer(config, session.info, session.prepared)
    return _Learner(
        lambda is_member, numbers, show: trainer.answer(
            is_member, subsets.member_seeds(config.seed, numbers), show
        ),
        lambda: None,
    )
