"""The loop of runs that train together; each has its own run directory, as if it trained by itself."""

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rethink_jax import config as config_lib, data
from rethink_jax.distributed import jax_settings, parallel, preemption
from rethink_jax.errors import Diverged, RunFailed, UserError
from rethink_jax.pipeline import batching, loaders
from rethink_jax.runs import cpu_devices, display
from rethink_jax.training import ensemble as ensemble_lib, loop, metrics
from rethink_jax.training.ensemble import Ensemble, Members
from rethink_jax.training.members import Member, open_member, progress as progress_of
from rethink_jax.training.optimizer import learning_rate
from rethink_jax.training.train_state import TrainState

# Checkpoints of all members take at most this share of the time, but for the last ones.
_SHARE_FOR_SAVING = 0.1
# What the checkpoint of one member takes, in seconds, before the first ones have told.
_FIRST_GUESS = 0.05


@jax_settings.pin_settings()
def run(
    configs: Sequence[ConfigDict],
    paths: Sequence[epath.Path],
    dataset: data.Dataset,
    progress: display.ProgressDisplay | None = None,
    errors: dict[int, Exception] | None = None,
) -> dict[int, Exception]:
    """Trains runs together, or resumes those that were interrupted.

    Args:
      configs: resolved, of equal `ensemble.shared_by_members`.
      paths: of their run directories.
      dataset: of all of them.
      progress: a sweep's.
      errors: where what ends runs early is noted, also where a signal comes.

    Returns:
      `errors`: what ended runs early, by their place; the others are finished.

    Raises:
      Stopped: when a signal came; the states are saved.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(cpu_devices.use(configs[0]))
        if configs[0].cpu_devices is None:
            stack.enter_context(parallel.use_cpu_devices_for(len(configs)))
        stop_request = stack.enter_context(preemption.stop_on_signals())
        stop_request.grace_seconds = configs[0].grace_seconds
        ensemble = ensemble_lib.build(configs, dataset)
        total = config_lib.total_steps(configs[0], ensemble.dataset_info.num_train)
        stop_request.raise_if_stopped()
        stack.enter_context(stop_request.defer())
        errors = {} if errors is None else errors
        members = []
        for index, path in enumerate(paths):
            try:
                members.append(
                    open_member(stack, ensemble, index, path, total, stop_request, dataset)
                )
            except (UserError, RunFailed) as error:
                errors[index] = error
        # After a kill some may be ahead.
        members.sort(key=progress_of)
        for _, group in itertools.groupby(members, key=progress_of):
            shown = stack.enter_context(display.show_run(total, progress))
            _train(ensemble, [*group], total, stop_request, shown, errors)
            stop_request.raise_if_stopped()
    return errors


def _train(
    ensemble: Ensemble,
    members: list[Member],
    total: int,
    stop_request: preemption.StopRequest,
    shown: display.RunDisplay,
    errors: dict[int, Exception],
) -> None:
    """Trains members at one step, and notes what ended some early.

    Without the program of all of them, for which there may be no memory, none is left to be saved.
    """
    try:
        _Together(ensemble, members, total, stop_request, shown).train()
    except Exception as error:
        errors |= {member.index: error for member in members if member.is_open}
    errors |= {member.index: member.error for member in members if member.error is not None}


class _Placed(NamedTuple):
    """Members on the devices; some may have ended since.

    Attributes:
      members: in the order of the arrays.
      states, differing: as `ensemble.divide` returns them.
    """

    members: list[Member]
    states: TrainState
    differing: Members


class _Together:
    """Members at one step, and how far they are."""

    def __init__(
        self,
        ensemble: Ensemble,
        members: list[Member],
        total: int,
        stop_request: preemption.StopRequest,
        shown: display.RunDisplay,
    ):
        self._ensemble, self._total, self._shown = ensemble, total, shown
        self._config = ensemble.configs[0]
        self._n = ensemble.dataset_info.num_train
        self._per_epoch = config_lib.steps_per_epoch(self._config, self._n)
        self._stop_request = stop_request
        self._poll = loop.StopPoll(stop_request)
        self._step = int(members[0].state.step)
        self._active = members
        self._counted_at = time.perf_counter()
        self._save_at = self._counted_at + len(members) * _FIRST_GUESS / _SHARE_FOR_SAVING
        self._placed = self._place([member.state for member in members])
        self._images_per_second = 0.0
        self._rates: dict[tuple[float, int], float] = {}

    def train(self) -> None:
        """Trains the members until each is finished or has failed, or a signal comes, and saves them."""
        while self._active:
            if not self._poll.stopped:
                self._evaluate_if_due()
            if self._poll.stopped:
                break
            self._end_finished()
            if not self._active:
                break
            if loop.checkpoint_is_due(self._config, self._step, self._per_epoch):
                self._save_if_affordable()
            self._shrink()
            self._take_steps()
        self._end(self._active, "stopped")

    def _place(self, states: list[TrainState]) -> _Placed:
        indices = [member.index for member in self._active]
        differing = [Members(*(values[i] for values in self._ensemble.members)) for i in indices]
        divide = ensemble_lib.divide
        return _Placed([*self._active], divide(states), divide(differing))

    def _states(self) -> dict[int, TrainState]:
        """Returns the states of the members on the devices by their index, as NumPy arrays."""
        return self._of_members(self._placed.states)

    def _of_members(self, tree: Any) -> dict[int, Any]:
        placed = self._placed.members
        gathered = ensemble_lib.gather_members(tree, len(placed))
        return {member.index: own for member, own in zip(placed, gathered, strict=True)}

    def _shrink(self) -> None:
        """Takes ended members off the devices, once they are half of those there."""
        if 2 * len(self._active) <= len(self._placed.members):
            states = self._states()
            self._placed = self._place([states[member.index] for member in self._active])

    def _attempt(self, member: Member, function: Callable[..., Any], *arguments: Any) -> None:
        """Calls a function of a member and of the arguments; the member ends where that fails."""
        try:
            function(member, *arguments)
        except Exception as error:
            member.error = error
            self._active = [other for other in self._active if other is not member]
            with contextlib.suppress(RunFailed, OSError):
                member.recorder.summarize("failed", self._ensemble.parameters)
            with contextlib.suppress(OSError):
                member.close()

    def _count_seconds(self) -> None:
        """Divides the time since the last call among the members."""
        now = time.perf_counter()
        for member in self._active:
            member.seconds += (now - self._counted_at) / len(self._active)
        self._counted_at = now

    def _take_steps(self) -> None:
        """Takes the steps to the end of the epoch, the next checkpoint or a signal."""
        epoch, first = divmod(self._step, self._per_epoch)
        end = int(
            min(
                self._total,
                (epoch + 1) * self._per_epoch,
                loop.next_checkpoint(self._config, self._step),
            )
        )
        if first == 0:
            for member in self._active:
                member.recorder.epoch_correct = 0
        configs = [self._ensemble.configs[member.index] for member in self._placed.members]
        ids = ensemble_lib.training_ids(configs, self._n, epoch, first, first + end - self._step)
        started, before = time.perf_counter(), self._step
        while self._step < end and not self._poll.stopped:
            num_steps = min(self._poll.max_steps, end - self._step)
            taken = self._step - before
            self._dispatch(ids[:, taken : taken + num_steps])
            self._shown.step(self._step)
            self._poll.update(num_steps)
        batch_size = self._config.batch_size
        images = min(self._n, (first + self._step - before) * batch_size) - first * batch_size
        elapsed = time.perf_counter() - started
        self._images_per_second = images * len(self._placed.members) / elapsed

    def _dispatch(self, ids: np.ndarray) -> None:
        """Takes a step for each of the ids [members, steps, batch], and reads what it says of each member."""
        placed, num_steps = self._placed, ids.shape[1]
        shards = ensemble_lib.divide([*batching.pad_steps(ids, parallel.STEPS_PER_DISPATCH)])
        count = parallel.stage_count(num_steps)
        states, sums = self._ensemble.train_steps(
            placed.states, placed.differing, self._ensemble.train, shards, count
        )
        self._placed = placed._replace(states=states)
        read = ensemble_lib.gather_members(sums, len(placed.members))
        for member, own in zip(placed.members, read, strict=True):
            if member in self._active:
                self._attempt(member, self._read, own, num_steps)
        self._step += num_steps

    def _read(self, member: Member, sums: dict[str, np.ndarray], num_steps: int) -> None:
        losses = sums["loss"][:num_steps]
        for i in np.flatnonzero(~np.isfinite(losses)):
            newest = member.recorder.newest
            raise Diverged(f"the loss is {losses[i]} at step {self._step + i}; {newest}")
        member.recorder.epoch_correct += int(sums["correct"][:num_steps].sum())

    def _evaluate_if_due(self) -> None:
        """Evaluates and records all members where it is time for it."""
        history = self._active[0].recorder.history
        if not loop.evaluation_is_due(
            self._config, self._step, self._per_epoch, self._total, history
        ):
            return
        sums = self._evaluate()
        if sums is None:
            return
        self._count_seconds()
        params = self._of_members(self._placed.states.params)
        for member, (train, test) in zip(self._placed.members, sums, strict=True):
            if member in self._active:
                self._attempt(member, self._record, train, test, params[member.index])
        self._show()

    def _evaluate(self) -> list[tuple[list[Any], list[Any]]] | None:
        """Returns each member's sums of both splits; None where a request to stop came."""
        ensemble, placed = self._ensemble, self._placed
        sizes = {
            split: loaders.evaluated(self._config, ensemble.dataset_info, split)
            for split in ("train", "test")
        }
        unread: dict[str, list[Any]] = {split: [] for split in sizes}
        done, whole = 0, sum(sizes.values())
        self._poll.begin_evaluation()
        for split, examples, labels in (
            ("train", ensemble.train, placed.differing.train_labels),
            ("test", ensemble.test, placed.differing.test_labels),
        ):
            for ids in ensemble_lib.evaluation_ids(sizes[split]):
                self._shown.evaluating(done, whole)
                sums = ensemble.eval_steps(placed.states, labels, examples, ids)
                unread[split].append(ensemble_lib.gather_members(sums, len(placed.members)))
                done += ids.size
                self._poll.update_evaluation()
                if self._poll.stopped:
                    return None
        self._shown.evaluating(whole, whole)
        return [
            ([part[i] for part in unread["train"]], [part[i] for part in unread["test"]])
            for i in range(len(placed.members))
        ]

    def _record(self, member: Member, train: list[Any], test: list[Any], params: Any) -> None:
        config, info = self._ensemble.configs[member.index], self._ensemble.dataset_info
        weights = metrics.of_weights(params, self._ensemble.initial_states[member.index].params)
        record = loop.evaluation_of(self._step, config, info, train, test, weights)
        loop.check_finite(record, member.recorder)
        loop.record_evaluation(
            record,
            config,
            self._n,
            member.recorder,
            member.seconds,
            self._images_per_second,
            self._rate(config.optimizer.learning_rate, self._step - 1),
        )

    def _rate(self, initial: float, step: int) -> float:
        """Returns the learning rate of a step; members of equal rates ask for it one after the other."""
        if (initial, step) not in self._rates:
            schedule = learning_rate(self._config, self._per_epoch, self._total, initial)
            self._rates = {(initial, step): float(schedule(step))}
        return self._rates[initial, step]

    def _show(self) -> None:
        """Shows the means of the active members' newest evaluations."""
        newest = [member.recorder.history[-1] for member in self._active]
        if newest:
            means = {
                name: float(np.mean([record[name] for record in newest]))
                for name in ("train_accuracy", "train_loss", "test_accuracy")
            }
            self._shown.record(newest[0] | means, f"{len(newest)} runs, means: ")

    def _end_finished(self) -> None:
        """Saves and closes the members that are finished."""
        finished = [
            member
            for member in self._active
            if self._step >= self._total or loop.is_fitted(self._config, member.recorder.history)
        ]
        if finished:
            self._end(finished, "finished")
            self._active = [member for member in self._active if member not in finished]

    def _end(self, members: list[Member], status: str) -> None:
        self._save(members)
        for member in members:
            if member.error is None:
                self._attempt(member, self._summarize, status)

    def _summarize(self, member: Member, status: str) -> None:
        member.recorder.summarize(status, self._ensemble.parameters)
        member.close()

    def _save_if_affordable(self) -> None:
        started = time.perf_counter()
        if started >= self._save_at:
            self._save(self._active)
            now = time.perf_counter()
            self._save_at = now + (now - started) / _SHARE_FOR_SAVING

    def _save(self, members: list[Member]) -> None:
        if members:
            states = self._states()
            for member in members:
                self._attempt(member, self._save_one, states[member.index])
                saved = sum(other.saved_step == self._step for other in members)
                self._stop_request.saved = (
                    f"stopped; {saved} of {len(members)} runs are saved at step {self._step} in "
                    f"{member.path.parent}; run the same command again to go on"
                )

    def _save_one(self, member: Member, state: TrainState) -> None:
        member.recorder.save(state)
        member.saved_step = self._step
