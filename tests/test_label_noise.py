"""Label noise of later work; what holds for every corruption is in `test_corruptions.py`."""

import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st

from rethink_jax import corruptions
from rethink_jax.corruptions import noise
from rethink_jax.corruptions.pixels import normals

N, K = 50_000, 10
IDS = np.arange(N, dtype=np.int32)
LABELS = IDS * 7 % K
NO_IMAGES = np.zeros((N, 1, 1, 1), np.uint8)
CIFAR10 = corruptions.ASYMMETRIC_TARGETS["cifar10"]
EYE = np.eye(K)


def apply(name, ids=IDS, images=NO_IMAGES, labels=LABELS, seed=0, **extra):
    key = corruptions.corruption_key(seed, "train")
    _, drawn = corruptions.CORRUPTIONS[name](key, ids, images, labels, **extra)
    return np.asarray(drawn)


def to(targets):
    return EYE[np.asarray(targets)]


def random_matrix(seed=0):
    rows = np.random.default_rng(seed).dirichlet(np.full(K, 0.5), K)
    rows[3] = EYE[4]  # probabilities of 0 and 1
    return rows / rows.sum(axis=1, keepdims=True)


P = 0.3
KINDS = {
    "symmetric_labels": (
        {"probability": P, "num_classes": K},
        (1 - P) * EYE + P / (K - 1) * (1 - EYE),
    ),
    "pair_flip_labels": (
        {"probability": P, "num_classes": K},
        (1 - P) * EYE + P * to((np.arange(K) + 1) % K),
    ),
    "asymmetric_labels": (
        {"probability": P, "targets": CIFAR10},
        (1 - P) * EYE + P * to(CIFAR10),
    ),
    "transition_labels": ({"matrix": random_matrix()}, random_matrix()),
    "partially_corrupted_labels": (
        {"probability": P, "num_classes": K},
        (1 - P) * EYE + P / K,
    ),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", KINDS)
def test_transition_matrix_cell_by_cell(name, seed):
    extra, expected = KINDS[name]
    drawn = apply(name, seed=seed, **extra)
    for c in range(K):
        of_class = drawn[c == LABELS]
        shares = np.bincount(of_class, minlength=K) / len(of_class)
        slack = 4 * np.sqrt(expected[c] * (1 - expected[c]) / len(of_class))
        assert (abs(shares - expected[c]) <= slack + 1e-12).all()


@pytest.mark.parametrize("name", ["symmetric_labels", "pair_flip_labels", "asymmetric_labels"])
@given(p=st.floats(0, 1), q=st.floats(0, 1))
def test_nested_in_the_probability(name, p, q):
    extra = {key: value for key, value in KINDS[name][0].items() if key != "probability"}
    some, more, every = (
        apply(name, IDS[:200], NO_IMAGES[:200], LABELS[:200], probability=chance, **extra)
        for chance in (*sorted((p, q)), 1.0)
    )
    changed = some != LABELS[:200]
    np.testing.assert_array_equal(some[changed], more[changed])
    np.testing.assert_array_equal(more[more != LABELS[:200]], every[more != LABELS[:200]])


def test_same_examples_as_partially_corrupted_labels():
    marks = np.full(N, K - 1)
    replaced = apply("partially_corrupted_labels", labels=marks, probability=P, num_classes=K - 1)
    pairs = apply("pair_flip_labels", labels=marks, probability=P, num_classes=K)
    np.testing.assert_array_equal(pairs != marks, replaced != marks)


# Made once, equal on every supported JAX and on every back end.
GOLDEN = {
    "symmetric_labels": [3, 0, 5, 3, 4, 5, 6, 1],
    "pair_flip_labels": [1, 2, 3, 3, 4, 5, 6, 8],
    "asymmetric_labels": [0, 1, 0, 3, 4, 5, 6, 7],
    "transition_labels": [0, 1, 2, 3, 7, 7, 4, 2],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_labels(name):
    extra = {"matrix": EYE / 2 + 0.05} if name == "transition_labels" else KINDS[name][0]
    drawn = apply(name, IDS[:8], NO_IMAGES[:8], IDS[:8], **extra)
    assert drawn.tolist() == GOLDEN[name]


def test_golden_labels_by_image():
    images = np.arange(96, dtype=np.uint8).reshape(8, 2, 2, 3)
    assert by_image(IDS[:8], images, IDS[:8]).tolist() == [9, 1, 7, 3, 4, 3, 7, 1]


@pytest.mark.parametrize(
    "matrix",
    [np.ones(3), np.ones((2, 3)) / 3, [[1, 1], [0, 1]], [[1.5, -0.5], [0, 1]], [[np.nan, 1]] * 2],
)
def test_matrices_that_are_refused(matrix):
    with pytest.raises(ValueError, match="it must be square, with rows of probabilities"):
        apply("transition_labels", IDS[:1], NO_IMAGES[:1], np.zeros(1, np.int32), matrix=matrix)


@pytest.mark.parametrize("name", [*KINDS, "instance_dependent_labels"])
def test_labels_of_other_classes_are_refused(name):
    if name == "partially_corrupted_labels":
        pytest.skip("it replaces any label")
    extra = KINDS.get(name, ({"probability": P, "num_classes": K, "weights_key": None}, None))[0]
    for labels in (np.array([K]), np.array([-1])):
        with pytest.raises(ValueError, match=r"they must be in \[0, 10\)"):
            apply(name, IDS[:1], NO_IMAGES[:1], labels, **extra)


def test_given_labels_must_be_there():
    with pytest.raises(ValueError, match="ids go up to 7; there are 7 given labels"):
        apply("human_labels", IDS[:8], NO_IMAGES[:8], LABELS[:8], given=LABELS[:7])


# Noise that depends on the image.


def by_image(ids, images, labels, probability=0.4):
    return apply(
        *("instance_dependent_labels", ids, images, labels),
        probability=probability,
        num_classes=K,
        weights_key=corruptions.corruption_key(0),
    )


def test_instance_dependent_labels_against_numpy():
    rng = np.random.default_rng(0)
    n, probability = 60, 0.5
    images = rng.integers(0, 256, (n, 4, 3, 2)).astype(np.uint8)
    labels, ids = rng.integers(0, K, n), rng.permutation(1000)[:n]
    with jax.threefry_partitionable(True):
        steps = np.asarray(normals(corruptions.corruption_key(0), (K, 24, K)))
        weights = steps // 16
        expected = []
        for one_id, image, label in zip(ids, images, labels, strict=True):
            key = jax.random.fold_in(corruptions.corruption_key(0, "train"), one_id)
            of_rate, of_chance, of_label = jax.random.split(key, 3)
            rate = np.sum(noise._rates(probability) <= np.asarray(jax.random.bits(of_rate)))
            chance = int(jax.random.bits(of_chance)) // 2**22
            products = (image.reshape(-1).astype(int) - 128) @ weights[label]
            bits = np.asarray(jax.random.bits(of_label, (K,)))
            gumbel = (noise._gumbels()[:, np.newaxis] <= bits).sum(axis=0)
            scores = products / 2048 + gumbel / 64
            scores[label] = -np.inf
            expected.append(np.argmax(scores) if chance < rate else label)
    np.testing.assert_array_equal(by_image(ids, images, labels, probability), expected)


def test_instance_dependent_rates_and_classes():
    rng = np.random.default_rng(1)
    n = 20_000
    one = rng.integers(0, 256, (1, 2, 2, 1)).astype(np.uint8)
    images = np.broadcast_to(one, (n, 2, 2, 1))
    labels = np.full(n, 3)
    drawn = by_image(IDS[:n], images, labels, 0.4)
    # The cut normal's mean is 0.4 but for 3e-6.
    assert abs(np.mean(drawn != 3) - 0.4) < 4 * np.sqrt(0.24 / n)
    with jax.threefry_partitionable(True):
        steps = np.asarray(normals(corruptions.corruption_key(0), (K, 4, K)))
    products = (one.reshape(-1) / 64 - 2) @ (steps[3] // 16) / 32
    chances = np.exp(products - products.max())
    chances[3] = 0
    chances /= chances.sum()
    wrong = drawn[drawn != 3]
    shares = np.bincount(wrong, minlength=K) / len(wrong)
    # Gumbel noise in 1/64 moves a chance by less than one part in 64.
    slack = 4 * np.sqrt(chances * (1 - chances) / len(wrong)) + chances / 64
    assert (abs(shares - chances) <= slack).all()


@pytest.mark.parametrize("shape", [(1, 257, 256, 1), (1, 2, 2, 1)])
def test_instance_dependent_noise_refuses_images(shape):
    dtype = np.uint8 if shape[1] == 257 else np.float32
    with pytest.raises(ValueError, match="they must be uint8 of at most 65536 values"):
        by_image(IDS[:1], np.zeros(shape, dtype), LABELS[:1])
