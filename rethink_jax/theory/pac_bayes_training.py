"""How the PAC-Bayes bound of a network with random weights is lowered, resumed and computed."""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict

from rethink_jax.distributed import preemption
from rethink_jax.errors import Diverged
from rethink_jax.pipeline import batching
from rethink_jax.runs import files
from rethink_jax.runs.own_files import SECONDS
from rethink_jax.runs.run_in_parts import Show
from rethink_jax.runs.writers import MetricsWriter
from rethink_jax.theory import pac_bayes_bounds as bounds, posterior as lib
from rethink_jax.training.checkpoints import Checkpoints, Saved

logger = logging.getLogger(__name__)

_EVALUATE_EVERY, _SAVE_SECONDS = 10, 30
_TRAIN, _TEST = 0, 1


class Session(NamedTuple):
    """A run underway.

    Attributes:
      config: resolved.
      path: the run's directory.
      train, test: the examples in two classes, with the labels that the config asks for.
      prior_means: the weights that SGD starts from.
      show: is told what is done and how much of it; raises `Stopped` after a signal.
    """

    config: ConfigDict
    path: epath.Path
    train: lib.Data
    test: lib.Data
    prior_means: lib.Weights
    show: Show

    def batches(self, epoch: int, size: int) -> np.ndarray:
        """Returns the ids of an epoch's whole batches, int32 [batches, size]."""
        n = len(self.train.labels)
        ids = batching.epoch_batches(self.config.seed, epoch, n, min(size, n))
        return ids[: n // min(size, n)]

    def error(
        self,
        weights: lib.Weights | lib.Posterior,
        split: int,
        numbers: Sequence[int],
        show: Callable[[float], None] = lambda fraction: None,
    ) -> float:
        """Returns the share of wrong answers in the passes of these numbers over a split."""
        examples, wrong = (self.train, self.test)[split], 0
        for done, number in enumerate(numbers):
            show(done / len(numbers))
            key = lib.pass_key(self.config.seed, split, number)
            wrong += lib.count_wrong(weights, examples, key)
        return wrong / (len(numbers) * len(examples.labels))

    def prior(self, posterior: lib.Posterior) -> bounds.Prior:
        """Returns the prior that suits a posterior best."""
        return bounds.choose_prior(
            _flat(posterior.means),
            _flat(posterior.log_variances),
            _flat(self.prior_means),
            len(self.train.labels),
            self.config.pac_bayes.delta,
        )


def _flat(weights: lib.Weights) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in jax.device_get(weights)])


def train(
    session: Session, fingerprint: str, started: float
) -> tuple[lib.Posterior, list[dict[str, Any]]]:
    """Runs SGD and then lowers the bound, from the newest checkpoint on.

    Args:
      session: of the run.
      fingerprint: of its data.
      started: `time.monotonic()` at the start, less what the run took before.

    Returns:
      The last posterior, and what `metrics.jsonl` has.
    """
    fields, path = session.config.pac_bayes, session.path
    total, batches = fields.sgd_epochs + fields.epochs, session.batches(0, fields.batch_size)
    rate = lib.falling_rate(fields.learning_rate, fields.epochs, len(batches))
    state = lib.initial_state(session.prior_means, rate)
    with contextlib.closing(Checkpoints(path)) as checkpoints:
        saved = checkpoints.restore_newest(cast(Any, jax.device_get(state)))
        history = [] if saved is None else saved.history
        if saved is not None:
            state = jax.tree.map(jnp.asarray, saved.state)
            logger.info("resuming after epoch %d of %d", int(state.step), total)
        saved_at = time.monotonic()

        def save() -> None:
            checkpoints.save(Saved(jax.device_get(state), fingerprint, history))
            files.write_json(path / SECONDS, {"seconds": time.monotonic() - started})

        with contextlib.closing(MetricsWriter(path, history)) as writer:
            while (epoch := int(state.step)) < total:
                try:
                    session.show("epochs", epoch / total)
                except preemption.Stopped:
                    save()
                    raise
                state, objective = _run_epoch(session, state, rate)
                if record := _evaluate(session, state, objective, started):
                    history.append(record)
                    writer.write(record)
                if time.monotonic() > saved_at + _SAVE_SECONDS or epoch + 1 == total:
                    save()
                    saved_at = time.monotonic()
    return state.posterior, history


def _run_epoch(
    session: Session, state: lib.State, rate: optax.Schedule
) -> tuple[lib.State, float | None]:
    """Returns the state after another epoch, and the mean of what it lowered, which SGD's do not know.

    Raises:
      Diverged: a weight is not finite.
    """
    fields, epoch = session.config.pac_bayes, int(state.step)
    objective, field = None, "sgd_learning_rate"
    if epoch < fields.sgd_epochs:
        ids = session.batches(epoch, lib.SGD_BATCH)
        state = lib.sgd_epoch(state, session.train, ids, fields.sgd_learning_rate)
    else:
        ids, key = (
            session.batches(epoch, fields.batch_size),
            lib.epoch_key(session.config.seed, epoch),
        )
        state, value = lib.bound_epoch(
            *(state, session.train, session.prior_means, ids, key), rate=rate, delta=fields.delta
        )
        objective, field = float(value), "learning_rate"
    if not all(bool(jnp.isfinite(part).all()) for part in jax.tree.leaves(state.posterior)):
        raise Diverged(
            f"a weight is not finite after epoch {epoch + 1}; lower config.pac_bayes.{field}"
        )
    return state, objective


def _evaluate(
    session: Session, state: lib.State, objective: float | None, started: float
) -> dict[str, Any] | None:
    """Returns a line of `metrics.jsonl` where one is due: where SGD ends, then after every tenth epoch."""
    fields = session.config.pac_bayes
    epoch = int(state.step) - fields.sgd_epochs
    if epoch < 0 or (epoch % _EVALUATE_EVERY and epoch != fields.epochs):
        return None
    batches = len(session.train.labels) // fields.batch_size
    record: dict[str, Any] = {"epoch": epoch, "step": epoch * batches}
    if objective is None:
        for name, split in (("train", _TRAIN), ("test", _TEST)):
            record[f"sgd_{name}_error"] = session.error(state.posterior.means, split, [epoch])
    else:
        record["objective"] = objective
    record |= certify(session, state.posterior, [epoch])._asdict()
    return {**record, "seconds": time.monotonic() - started}


class Certificate(NamedTuple):
    """What is known of the network with weights drawn from a posterior.

    Attributes:
      train_error, test_error: shares of wrong answers, each with weights of its own.
      draws: of weights, for the training error.
      kl: KL(Q‖P), in nats, of the prior that suits the posterior best.
      prior_variance: λ of that prior.
      limit: of kl(training error ‖ error).
      train_error_bound: the largest that the training error is likely to be.
      pinsker: the bound on the error by Pinsker's inequality.
      bound: the bound on the error.
    """

    train_error: float
    test_error: float
    draws: int
    kl: float
    prior_variance: float
    limit: float
    train_error_bound: float
    pinsker: float
    bound: float


def certify(
    session: Session,
    posterior: lib.Posterior,
    numbers: Sequence[int],
    show: Callable[[float], None] = lambda fraction: None,
) -> Certificate:
    """Bounds the error of a posterior.

    Args:
      session: of the run.
      posterior: may depend on the training examples.
      numbers: of the passes over both splits; the posterior may not depend on their draws.
      show: is told the fraction done.
    """
    prior, draws = session.prior(posterior), len(numbers) * len(session.train.labels)
    train_error = session.error(posterior, _TRAIN, numbers, show)
    delta = session.config.pac_bayes.sampling_delta
    found = bounds.bound_error(train_error, draws, prior.limit, delta)
    test_error = session.error(posterior, _TEST, numbers)
    return Certificate(
        *(train_error, test_error, draws, prior.kl, prior.variance, prior.limit), *found
    )
