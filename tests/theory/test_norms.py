"""Norms of an MLP against NumPy written anew, and what must leave them alone."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from rethink_jax.theory import norms

WIDTHS = (7, 5, 4, 3)


def network(seed, biases=True):
    rng = np.random.default_rng(seed)
    return {
        f"Dense_{i}": {
            "kernel": rng.normal(size=shape).astype(np.float32),
            "bias": rng.normal(size=shape[1]).astype(np.float32) * biases,
        }
        for i, shape in enumerate(itertools.pairwise(WIDTHS))
    }


def test_against_numpy():
    params, start, gamma, n = network(0), network(1), 0.7, 50
    w = [params[f"Dense_{i}"]["kernel"].astype(float).T for i in range(3)]
    w0 = [start[f"Dense_{i}"]["kernel"].astype(float).T for i in range(3)]
    s = [math.sqrt(np.linalg.eigvalsh(a @ a.T)[-1]) for a in w]
    product = s[0] ** 2 * s[1] ** 2 * s[2] ** 2
    ratio = sum(((a - b) ** 2).sum() / c**2 for a, b, c in zip(w, w0, s, strict=True))
    # ‖Aᵀ‖₂,₁ of A [outputs, inputs]: the norms of its rows.
    rows = [sum(math.sqrt((row**2).sum()) for row in a - b) for a, b in zip(w, w0, strict=True)]
    group = sum((r / c) ** (2 / 3) for r, c in zip(rows, s, strict=True)) ** 3
    flat, flat0 = (
        np.concatenate([np.ravel(x) for layer in tree.values() for x in layer.values()])
        for tree in (params, start)
    )
    b = [params[f"Dense_{i}"]["bias"].astype(float) for i in range(3)]
    paths = np.ones(7)
    for a, c in zip(w, b, strict=True):
        paths = a**2 @ paths + c**2
    expected = {
        "parameters": 35 + 5 + 20 + 4 + 12 + 3,
        "inverse_margin": 1 / gamma**2,
        "spectral": product / gamma**2,
        "spectral_distance": product * ratio / gamma**2,
        "bartlett": product * group / gamma**2,
        "path_norm": paths.sum() / gamma**2,
        "distance": ((flat.astype(float) - flat0) ** 2).sum(),
    }
    found = norms.measure(params, start, gamma, n)
    assert found == pytest.approx({k: math.sqrt(v / n) for k, v in expected.items()}, rel=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2), st.integers(0, 1), st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_scaling_two_layers_against_each_other(seed, layer, scale):
    params, start = network(seed, biases=False), network(seed + 9, biases=False)
    scaled = {name: dict(parts) for name, parts in params.items()}
    scaled[f"Dense_{layer}"]["kernel"] = params[f"Dense_{layer}"]["kernel"] * np.float32(scale)
    following = f"Dense_{layer + 1}"
    scaled[following]["kernel"] = params[following]["kernel"] / np.float32(scale)
    before, after = (norms.measure(tree, start, 0.5, 10) for tree in (params, scaled))
    for name in ("parameters", "inverse_margin", "spectral", "path_norm"):
        assert after[name] == pytest.approx(before[name], rel=1e-6)
    assert after["distance"] != pytest.approx(before["distance"], rel=1e-3)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.permutations(range(5)))
def test_permuting_hidden_units(seed, order):
    def permuted(tree):
        first, second, third = (tree[f"Dense_{i}"] for i in range(3))
        return {
            "Dense_0": {"kernel": first["kernel"][:, order], "bias": first["bias"][list(order)]},
            "Dense_1": {"kernel": second["kernel"][list(order)], "bias": second["bias"]},
            "Dense_2": third,
        }

    params, start = network(seed), network(seed + 1)
    before = norms.measure(params, start, 0.5, 10)
    after = norms.measure(permuted(params), permuted(start), 0.5, 10)
    assert after == pytest.approx(before, rel=1e-6)


def test_margins_that_are_not_positive():
    found = norms.measure(network(0), network(1), 0.0, 10)
    infinite = {name for name, value in found.items() if math.isinf(value)}
    assert infinite == {"inverse_margin", "spectral", "spectral_distance", "bartlett", "path_norm"}


def test_margin():
    logits = np.array([[i / 10, 0.0, -1.0] for i in range(11)], np.float32)
    assert norms.margin(logits, np.zeros(11, int)) == pytest.approx(0.1)
    assert norms.margin(logits, np.full(11, 2)) == pytest.approx(-1.9)


def test_weights_that_did_not_move():
    params = network(0)
    found = norms.measure(params, params, 1.0, 4)
    assert [found[x] for x in ("distance", "bartlett", "spectral_distance")] == [0, 0, 0]
    assert found["spectral"] > 0
