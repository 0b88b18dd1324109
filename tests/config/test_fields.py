"""The descriptions of fields, and the page that is written from them."""

import pytest

from rethink_jax.config import EXPERIMENTS, default_config_for
from rethink_jax.config.__main__ import page
from rethink_jax.config.fields import OURS, PAPER
from tests.entry_point import ROOT

FIELDS = [
    pytest.param(field, id=f"{kind} {name}")
    for kind, one in EXPERIMENTS.items()
    for name, field in one.fields.items()
]


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_described(field):
    assert field.meaning.endswith(".")
    assert field.origin in (PAPER, OURS)
    assert (field.default is None) == bool(field.unset) == (field.kind is not None)
    assert field.default is None or all(rule.holds(field.default) for rule in field.allowed)


def test_the_page_is_of_these_fields():
    assert (ROOT / "docs" / "configuration.md").read_text() == page(), (
        "run: python -m rethink_jax.config > docs/configuration.md"
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_found_and_has_its_own_config(name):
    assert callable(EXPERIMENTS[name].load())
    config = default_config_for({EXPERIMENTS[name].group: {}})
    assert config.experiment == ("train" if name == "evaluate" else name)
