"""Per-device train and evaluation steps, written against the mapped axis `parallel.AXIS`.

Sums and counts over the examples of all devices are added up and divided once, so that nothing depends on
the number of devices, on padding, or on how full a device's part of the batch is.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from rethink_jax.inputs import Split
from rethink_jax.parallel import AXIS
from rethink_jax.preprocess import center_crop, whiten
from rethink_jax.train_state import TrainState

Sums = dict[str, jax.Array]


def make_train_steps(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    augment: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None,
    dropout_keys: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> Callable[[TrainState, Split, jax.Array, jax.Array], tuple[TrainState, Sums]]:
    """Returns a function that takes several optimizer steps on one device of the axis.

    Args:
      model: `(images, mask, train, keys) -> logits`.
      optimizer: what `train_state.make_optimizer` returns.
      augment: of (step, ids, images), to images; None for none.
      dropout_keys: of (step, ids), to a key an example; None without dropout.

    Returns:
      A function of
        - the train state,
        - the training split,
        - ids int32 [k, batch per device], padding below 0,
        - the number of steps to take, at most k (with k = 1, that one step is taken);
      to the new state and, for each of the k steps, the batch's mean loss (float32 [k]) and its
      correct answers (int32 [k]), before the step; 0 for those not taken.
    """

    def loss_and_updates(
        params: Any, state: TrainState, split: Split, ids: jax.Array
    ) -> tuple[jax.Array, tuple[Any, jax.Array]]:
        mask = ids >= 0
        images, labels = split.images[ids], split.labels[ids]
        if augment is not None:
            images = augment(state.step, ids, images)
        keys: Any = {} if dropout_keys is None else {"keys": dropout_keys(state.step, ids)}
        logits, updates = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            whiten(images),
            mask,
            train=True,
            mutable=["batch_stats"],
            **keys,
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        correct = jnp.sum(mask & (logits.argmax(axis=-1) == labels), dtype=jnp.int32)
        count = lax.psum(jnp.sum(mask, dtype=losses.dtype), AXIS)
        loss = jnp.sum(jnp.where(mask, losses, 0)) / count
        return loss, (updates.get("batch_stats", {}), correct)

    def train_step(state: TrainState, split: Split, ids: jax.Array) -> tuple[TrainState, Sums]:
        grad = jax.value_and_grad(loss_and_updates, has_aux=True)
        (loss, (batch_stats, correct)), grads = grad(state.params, state, split, ids)
        loss, correct, grads = lax.psum((loss, correct, grads), AXIS)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return state, {"loss": loss, "correct": correct}

    def train_steps(
        state: TrainState, split: Split, ids: jax.Array, num_steps: jax.Array
    ) -> tuple[TrainState, Sums]:
        if ids.shape[0] == 1:
            state, sums = train_step(state, split, ids[0])
            return state, jax.tree.map(lambda x: x[None], sums)

        def body(i: jax.Array, carry: tuple[TrainState, Sums]) -> tuple[TrainState, Sums]:
            state, history = carry
            state, sums = train_step(state, split, ids[i])
            return state, jax.tree.map(lambda h, x: h.at[i].set(x), history, sums)

        history = {
            "loss": jnp.zeros(ids.shape[0], jnp.float32),
            "correct": jnp.zeros(ids.shape[0], jnp.int32),
        }
        return lax.fori_loop(0, num_steps, body, (state, history))

    return train_steps


def make_eval_steps(
    model: nn.Module, size: int | None = None
) -> Callable[[TrainState, Split, jax.Array], Sums]:
    """Returns a function that evaluates fixed weights on several batches, on one device of the axis.

    Args:
      model: `(images, mask, train, keys) -> logits`.
      size: side of the central square that the model sees; None for whole images.

    Returns:
      A function of the train state, a split, and ids int32 [k, batch per device], padding below 0, to sums
      over the examples of all devices: for each of the k batches the loss by the split's labels and by its
      true labels (`loss`, `loss_true`, float32 [k]), the correct
      answers likewise (`correct`, `correct_true`, int32 [k]), and the
      examples (`count`, int32 [k]).
    """

    def eval_batch(state: TrainState, split: Split, ids: jax.Array) -> Sums:
        mask = ids >= 0
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        images = split.images[ids]
        if size is not None:
            images = center_crop(images, size)
        logits: Any = model.apply(variables, whiten(images))
        answers = logits.argmax(axis=-1)
        labels, true_labels = split.labels[ids], split.true_labels[ids]

        def total(values: jax.Array) -> jax.Array:
            return lax.psum(jnp.sum(jnp.where(mask, values, 0)), AXIS)

        def cross_entropy(labels: jax.Array) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

        return {
            "loss": total(cross_entropy(labels)),
            "loss_true": total(cross_entropy(true_labels)),
            "correct": total((answers == labels).astype(jnp.int32)),
            "correct_true": total((answers == true_labels).astype(jnp.int32)),
            "count": total(mask.astype(jnp.int32)),
        }

    def eval_steps(state: TrainState, split: Split, ids: jax.Array) -> Sums:
        if ids.shape[0] == 1:
            return jax.tree.map(lambda x: x[None], eval_batch(state, split, ids[0]))
        return lax.map(lambda batch: eval_batch(state, split, batch), ids)

    return eval_steps
