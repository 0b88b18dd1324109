"""The examples in the docstrings of what is public run, and print what they say."""

import contextlib
import doctest
import importlib

import pytest

PUBLIC = {
    "rethink_jax.config.base": ["train"],
    "rethink_jax.config.sweeps": ["cifar10_entry"],
    "rethink_jax.corruptions.keys": ["corruption_key"],
    "rethink_jax.corruptions.labels": [
        "partially_corrupted_labels",
        "random_labels",
        "replacement_chances",
        "true_labels",
    ],
    "rethink_jax.corruptions.noise": [
        *("asymmetric_labels", "human_labels", "instance_dependent_labels", "pair_flip_labels"),
        *("symmetric_labels", "transition_labels"),
    ],
    "rethink_jax.corruptions.pixels": ["gaussian", "random_pixels", "shuffled_pixels"],
    "rethink_jax.data.arrays": ["from_arrays"],
    "rethink_jax.kernels.features": ["pixels"],
    "rethink_jax.kernels.kernel": ["gaussian", "linear"],
    "rethink_jax.models": ["create"],
    "rethink_jax.pipeline.preprocess": ["whiten"],
    "rethink_jax.report.contents": ["write"],
    "rethink_jax.theory.baum": ["construct"],
    "rethink_jax.theory.exact_learners": [
        "squared_distances",
        "nearest_neighbour_memorization",
        "leave_one_out",
    ],
    "rethink_jax.theory.member_records": ["restore"],
    "rethink_jax.theory.subsets": [
        "subset_size",
        "membership",
        "memorization",
        "c_scores",
        "influence",
        "area_under_curve",
        "rank_correlation",
        "overlap",
    ],
    "rethink_jax.theory.flatness": ["measure"],
    "rethink_jax.theory.gram": ["arc_cosine", "matrix"],
    "rethink_jax.theory.norms": ["measure"],
    "rethink_jax.theory.pac_bayes_bounds": [
        *("binary_kl", "invert_kl", "bound_mean", "gaussian_kl", "bound_error"),
    ],
    "rethink_jax.theory.ranking": ["find_pairs", "kendall_tau"],
    "rethink_jax.theory.ratt": ["certificate", "leading_term", "simulate"],
    "rethink_jax.theory.random_features": ["features"],
    "rethink_jax.theory.theorem1": ["construct"],
    "rethink_jax.training.load": ["load_run"],
    "rethink_jax.training.train": ["run"],
}


def examples_of(module):
    """Returns the tests in a module's docstrings by name, those without an example left out."""
    found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module), module)
    return {test.name.removeprefix(f"{module}."): test for test in found if test.examples}


def run(test):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    told = []
    outcome = doctest.DocTestRunner(optionflags=flags).run(test, out=told.append)
    assert outcome.failed == 0, "".join(told)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Runs the package's example, whose run in `runs/mine` others read; returns the folder."""
    folder = tmp_path_factory.mktemp("here")
    with contextlib.chdir(folder):
        run(examples_of("rethink_jax")["rethink_jax"])
    return folder


@pytest.mark.parametrize("module", PUBLIC)
def test_examples(module, here, monkeypatch):
    monkeypatch.chdir(here)
    examples = examples_of(module)
    assert {*PUBLIC[module]} <= {*examples}
    for test in examples.values():
        run(test)
