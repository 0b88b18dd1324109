"""Per-device train and evaluation steps, written against the mapped axis `parallel.AXIS`.

Sums and counts over the examples of all devices are added up and divided once, so that nothing depends on
the number of devices, on padding, or on how full a device's part of the batch is. A member of an ensemble has
one device's part alone, and no axis to sum over.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from rethink_jax.distributed.parallel import AXIS
from rethink_jax.pipeline.inputs import gather
from rethink_jax.pipeline.preprocess import center_crop, whiten
from rethink_jax.training.train_state import TrainState

Sums = dict[str, jax.Array]
Gather = Callable[[Any, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
Augment = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
DropoutKeys = Callable[[jax.Array, jax.Array], jax.Array]

# Of the auxiliary classifier's loss beside the main one's: TF-slim's; Szegedy et al. 2015 print none.
AUXILIARY_WEIGHT = 0.4
# In place of the mapped axis where one device has the whole batch.
NO_AXIS = ()
# Of so few classes five answers tell little.
_MOST_CLASSES_WITHOUT_TOP5 = 10


def make_train_steps(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    augment: Augment | None = None,
    dropout_keys: DropoutKeys | None = None,
    gather: Gather = gather,
    label_smoothing: float = 0.0,
    axis: str | tuple[()] = AXIS,
    per_example: bool = False,
) -> Callable[[TrainState, Any, jax.Array, jax.Array], tuple[TrainState, Sums]]:
    """Returns a function that takes several optimizer steps on one device of the axis.

    Args:
      model: `(images, mask, train, keys) -> logits`; of logits that it sows as `auxiliary_logits` into the
        `intermediates` the cross-entropy is added to the loss, `AUXILIARY_WEIGHT` times.
      optimizer: as `optimizer.make_optimizer` returns it.
      augment: function `(step, ids, images) -> images`; `None` for no augmentation.
      dropout_keys: function `(step, ids[n]) -> keys[n]`, one PRNG key per example; `None` disables dropout.
      gather: function `(examples, ids) -> (images, labels, true_labels)`; by default of a split in memory.
      label_smoothing: ε, the weight of the uniform distribution in the targets.
      axis: over which the devices of a batch are mapped, or `NO_AXIS`.
      per_example: whether to return what `of_examples` does, too, [k, batch] each.

    Returns:
      A function of
        - the train state,
        - the examples, in which `gather` finds those of the ids,
        - ids int32 [k, batch per device], padding below 0,
        - the number of steps to take, at most k (with k = 1, that one step is taken);
      to the new state and, for each of the k steps, the batch's mean loss (`loss`, float32 [k]), all of what
      is differentiated, and its correct answers (`correct`, int32 [k]), before the step; 0 for those not taken.
    """
    loss_and_updates = _make_loss(
        model, augment, dropout_keys, gather, label_smoothing, axis, per_example
    )

    def train_step(state: TrainState, examples: Any, ids: jax.Array) -> tuple[TrainState, Sums]:
        grad = jax.value_and_grad(loss_and_updates, has_aux=True)
        (loss, (batch_stats, correct, each)), grads = grad(state.params, state, examples, ids)
        loss, correct, grads = lax.psum((loss, correct, grads), axis)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return state, {"loss": loss, "correct": correct, **each}

    return _repeat(train_step)


def _make_loss(
    model: nn.Module,
    augment: Augment | None,
    dropout_keys: DropoutKeys | None,
    gather: Gather,
    label_smoothing: float,
    axis: str | tuple[()],
    per_example: bool,
) -> Callable[[Any, TrainState, Any, jax.Array], tuple[jax.Array, tuple[Any, jax.Array, Sums]]]:
    """Returns a function of (params, state, examples, ids) to a device's share of the batch's mean loss.

    Beside the loss it returns BatchNorm's new statistics, the device's correct answers and, if asked for, what
    `of_examples` does.
    """

    def loss_and_updates(
        params: Any, state: TrainState, examples: Any, ids: jax.Array
    ) -> tuple[jax.Array, tuple[Any, jax.Array, Sums]]:
        mask = ids >= 0
        images, labels, _ = gather(examples, ids)
        if augment is not None:
            images = augment(state.step, ids, images)
        keys: Any = {} if dropout_keys is None else {"keys": dropout_keys(state.step, ids)}
        logits, updates = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            whiten(images),
            mask,
            train=True,
            mutable=["batch_stats", "intermediates"],
            **keys,
        )
        correct = jnp.sum(mask & (_answers(logits) == labels), dtype=jnp.int32)
        count = lax.psum(jnp.sum(mask, dtype=logits.dtype), axis)

        def mean_loss(logits: jax.Array) -> jax.Array:
            losses = _cross_entropy(logits, labels, label_smoothing)
            return jnp.sum(jnp.where(mask, losses, 0)) / count

        loss = mean_loss(logits)
        for auxiliary_logits in updates.get("intermediates", {}).get("auxiliary_logits", ()):
            loss += AUXILIARY_WEIGHT * mean_loss(auxiliary_logits)
        each = of_examples(logits, labels, ids, axis) if per_example else {}
        return loss, (updates.get("batch_stats", {}), correct, each)

    return loss_and_updates


def _repeat(
    step: Callable[[TrainState, Any, jax.Array], tuple[TrainState, Sums]],
) -> Callable[[TrainState, Any, jax.Array, jax.Array], tuple[TrainState, Sums]]:
    """Returns a function that takes a step for each of the first `num_steps` rows of its ids."""

    def take_steps(
        state: TrainState, examples: Any, ids: jax.Array, num_steps: jax.Array
    ) -> tuple[TrainState, Sums]:
        if ids.shape[0] == 1:
            state, sums = step(state, examples, ids[0])
            return state, jax.tree.map(lambda x: x[None], sums)

        def body(i: jax.Array, carry: tuple[TrainState, Sums]) -> tuple[TrainState, Sums]:
            state, history = carry
            state, sums = step(state, examples, ids[i])
            return state, jax.tree.map(lambda h, x: h.at[i].set(x), history, sums)

        _, shapes = jax.eval_shape(step, state, examples, ids[0])
        history = {
            name: jnp.full((ids.shape[0], *one.shape), -1 if name == "ids" else 0, one.dtype)
            for name, one in shapes.items()
        }
        return lax.fori_loop(0, num_steps, body, (state, history))

    return take_steps


def of_examples(
    logits: jax.Array, labels: jax.Array, ids: jax.Array, axis: str | tuple[()]
) -> Sums:
    """Returns what a batch's logits say of each example, of all devices.

    Args:
      logits: float [n, classes].
      labels: int32 [n].
      ids: int32 [n], padding below 0.
      axis: as for `make_train_steps`.

    Returns:
      `ids` and `answers`, int32 [devices · n], −1 for no answer; `margins`, the label's logit less the greatest
      other one, and `losses`, both float32 [devices · n].
    """
    # Behind the barrier, so that the program of the sums is the same with and without.
    logits = lax.optimization_barrier(lax.stop_gradient(logits).astype(jnp.float32))
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    is_own = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    values = {
        "ids": ids,
        "answers": _answers(logits),
        "margins": own - jnp.where(is_own, -jnp.inf, logits).max(axis=-1),
        "losses": _cross_entropy(logits, labels, smoothing=0.0),
    }
    return lax.all_gather(values, axis, tiled=True) if axis else values


def _of_both(logits: jax.Array, labels: jax.Array, true_labels: jax.Array, ids: jax.Array) -> Sums:
    """Returns what `of_examples` does by the split's labels, `margins_true`, `losses_true` and `error_norms`.

    The last is the norm of the vector of probabilities less the one-hot label, float32 [n].
    """
    logits = lax.optimization_barrier(logits.astype(jnp.float32))  # as in `of_examples`
    of_true = of_examples(logits, true_labels, ids, NO_AXIS)
    truly = {f"{name}_true": of_true[name] for name in ("margins", "losses")}
    errors = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1])
    norms = {"error_norms": jnp.linalg.norm(errors, axis=-1)}
    return of_examples(logits, labels, ids, NO_AXIS) | truly | norms


def _cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """Returns each example's loss [n]; targets are (1 − ε)·one-hot + ε/K (Szegedy et al. 2015, section 7)."""
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))


def _answers(logits: jax.Array) -> jax.Array:
    """Returns the class of the greatest logit, int32 [n]; −1 where one is no number, which is no answer."""
    is_number = ~jnp.isnan(logits).any(axis=-1)
    return jnp.where(is_number, logits.argmax(axis=-1).astype(jnp.int32), -1)


def _is_in_top5(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns whether fewer than five classes come before the label, bool [n].

    Of equal logits the lower class comes first, as in `argmax`. Where one is no number it is not.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    is_lower = jnp.arange(logits.shape[-1], dtype=labels.dtype)[None] < labels[:, None]
    is_number = ~jnp.isnan(logits).any(axis=-1)
    return is_number & (jnp.sum((logits > own) | ((logits == own) & is_lower), axis=-1) < 5)


def _evaluate(model: nn.Module, size: int | None, state: TrainState, images: jax.Array) -> Any:
    """Returns the logits of fixed weights on images, of which the model sees the central square."""
    if size is not None:
        images = center_crop(images, size)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return model.apply(variables, whiten(images))


def make_eval_steps(
    model: nn.Module,
    size: int | None = None,
    gather: Gather = gather,
    axis: str | tuple[()] = AXIS,
    per_example: bool = False,
) -> Callable[[TrainState, Any, jax.Array], Sums]:
    """Returns a function that evaluates fixed weights on several batches, on one device of the axis.

    Args:
      model: `(images, mask, train, keys) -> logits`.
      size: side of the central square that the model sees; None for whole images.
      gather, axis, per_example: as for `make_train_steps`; `margins_true` and `losses_true` are by true
        labels, `error_norms` the norms of probabilities less one-hot labels.

    Returns:
      A function of the train state, what the examples come from, and ids int32 [k, batch per device], padding
      below 0, to sums over the examples of all devices: for each of the k batches the loss by the split's
      labels and by its true labels (`loss`, `loss_true`, float32 [k]), the correct answers likewise (`correct`,
      `correct_true`, int32 [k]), the examples (`count`), those whose label is not the true one (`replaced`),
      and the correct answers on these by the split's labels (`correct_replaced`). Of more than ten classes also
      the labels among the model's first five answers (`top5`, `top5_true`).
    """

    def eval_batch(state: TrainState, examples: Any, ids: jax.Array) -> tuple[TrainState, Sums]:
        mask = ids >= 0
        images, labels, true_labels = gather(examples, ids)
        logits = _evaluate(model, size, state, images)
        answers = _answers(logits)

        def total(values: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(mask, values, 0))

        def sums(labels: jax.Array, suffix: str = "") -> Sums:
            values_of = {
                f"loss{suffix}": _cross_entropy(logits, labels, smoothing=0.0),
                f"correct{suffix}": (answers == labels).astype(jnp.int32),
            }
            if logits.shape[-1] > _MOST_CLASSES_WITHOUT_TOP5:
                values_of[f"top5{suffix}"] = _is_in_top5(logits, labels).astype(jnp.int32)
            return {name: total(values) for name, values in values_of.items()}

        replaced = labels != true_labels
        fitted = replaced & (answers == labels)
        counts = {"count": mask, "replaced": replaced, "correct_replaced": fitted}
        return state, {
            **sums(labels),
            **sums(true_labels, "_true"),
            **{name: total(values.astype(jnp.int32)) for name, values in counts.items()},
            **(_of_both(logits, labels, true_labels, ids) if per_example else {}),
        }

    def eval_steps(state: TrainState, examples: Any, ids: jax.Array) -> Sums:
        # Rows of padding alone come last, and are skipped.
        count = jnp.sum((ids >= 0).any(axis=1), dtype=jnp.int32)
        _, sums = _repeat(eval_batch)(state, examples, ids, count)
        # Devices wait for each other here and not within the loop, which may be shorter on the last one.
        return _of_all_devices(sums, axis)

    return eval_steps


def _of_all_devices(sums: Sums, axis: str | tuple[()]) -> Sums:
    """Returns sums [k] over all devices, and what is of each example [k, n] joined to [k, devices · n]."""
    if not axis:
        return sums
    return {
        name: lax.psum(x, axis) if x.ndim == 1 else lax.all_gather(x, axis, axis=1, tiled=True)
        for name, x in sums.items()
    }


def make_answer_steps(
    model: nn.Module, size: int | None = None, gather: Gather = gather
) -> Callable[[TrainState, Any, jax.Array], jax.Array]:
    """Returns a function that answers several batches with fixed weights, on one device.

    Args:
      model, size, gather: as for `make_eval_steps`.

    Returns:
      A function of the train state, what the examples come from, and ids int32 [k, batch] to classes int32
      [k, batch]; of padding some class, and −1 where a logit is no number.
    """

    def answer_batch(state: TrainState, examples: Any, ids: jax.Array) -> jax.Array:
        images, _, _ = gather(examples, ids)
        return _answers(_evaluate(model, size, state, images))

    def answer_steps(state: TrainState, examples: Any, ids: jax.Array) -> jax.Array:
        return lax.map(lambda batch: answer_batch(state, examples, batch), ids)

    return answer_steps
