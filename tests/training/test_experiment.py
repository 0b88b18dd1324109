"""Runs whose programs are equal share them: nothing is traced or compiled again."""

import pytest

from rethink_jax import config as config_lib
from rethink_jax.runs.resolve import resolve
from rethink_jax.training.experiment import build
from tests.conftest import use_devices


def build_with(toy, **fields):
    config = config_lib.train("toy", "random_labels")
    config.update_from_flattened_dict({"model.name": "mlp", "model.width": 4, **fields})
    return build(resolve(config, toy)[0], toy)


def share(one, other):
    return one.train_steps is other.train_steps and one.eval_steps is other.eval_steps


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1},
        {"corruption.seed": 1},
        {"corruption.name": "gaussian"},
        {"checkpoint.every_epochs": 3},
        {"evaluate.every_epochs": 3},
    ],
    ids=str,
)
def test_what_the_programs_do_not_read_shares_them(fields, toy):
    assert share(build_with(toy), build_with(toy, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"model.depth": 2},
        {"model.dropout": 0.5},
        {"optimizer.learning_rate": 0.2},
        {"optimizer.weight_decay": 0.1},
        {"augment.flip": True},
        {"data.size": 8},
        {"batch_size": 64},
        {"epochs": 7},
        {"label_smoothing": 0.1},
        {"dtype": "bfloat16"},
    ],
    ids=str,
)
def test_what_they_read_does_not(fields, toy):
    assert not share(build_with(toy), build_with(toy, **fields))


@pytest.mark.parametrize("fields", [{"augment.flip": True}, {"model.dropout": 0.5}], ids=str)
def test_draws_in_training_are_of_the_seed(fields, toy):
    assert not share(build_with(toy, **fields), build_with(toy, seed=1, **fields))


def test_other_devices_have_programs_of_their_own(toy, monkeypatch):
    one = build_with(toy)
    use_devices(monkeypatch, 1)
    assert not share(one, build_with(toy))


def test_programs_cannot_read_a_field_that_they_are_not_made_of(toy, monkeypatch):
    monkeypatch.setattr("rethink_jax.training.experiment.make_optimizer", lambda c, _: c.batch_size)
    with pytest.raises(AttributeError, match="batch_size"):
        build_with(toy, **{"model.width": 5})
