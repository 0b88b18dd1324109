"""Nearest neighbour and kernel ridge beside brute force, and estimates beside what is known exactly."""

import itertools
import math

import numpy as np
import pytest
from scipy.linalg import cho_factor, cho_solve

from rethink_jax.pipeline.inputs import Split
from rethink_jax.theory import exact_learners, subsets


def make_splits(n=60, m=20, side=3, classes=3, seed=0, noise=0.2):
    rng = np.random.default_rng(seed)

    def split(count):
        true = rng.integers(0, classes, count).astype(np.int32)
        images = rng.integers(0, 90, (count, side, side, 1)) + 55 * true[:, None, None, None]
        labels = np.where(rng.random(count) < noise, rng.integers(0, classes, count), true)
        return Split(images.astype(np.uint8), labels.astype(np.int32), true)

    return split(n), split(m)


def nearest_by_loops(image, images, subset):
    far = [
        (int(np.square(image.astype(np.int64) - images[i].astype(np.int64)).sum()), i)
        for i in subset
    ]
    return min(far)[1]


@pytest.mark.parametrize("kept", [256, 2])  # with 2, most subsets are searched whole
def test_nearest_neighbours_are_exact(kept, monkeypatch):
    monkeypatch.setattr(exact_learners, "_NEAREST", kept)
    monkeypatch.setattr(exact_learners, "_ROWS", 7)
    train, test = make_splits(n=30, m=11, side=1)  # with equal images and equal distances
    assert len(np.unique(train.images)) < 30
    is_member = subsets.membership(0, range(6), 30, 9)
    on_train, on_test = exact_learners.nearest_neighbour(train, test)(is_member)
    for row, *answers in zip(is_member, on_train, on_test, strict=True):
        for split, own in zip((train, test), answers, strict=True):
            ids = [nearest_by_loops(x, train.images, np.nonzero(row)[0]) for x in split.images]
            assert own.tolist() == train.labels[ids].tolist()


def test_the_exact_memorization_is_the_mean_over_all_subsets():
    train, test = make_splits(n=8, m=1, side=1, seed=3)
    learner = exact_learners.nearest_neighbour(train, test)
    for size in (1, 3, 7):
        is_member = np.zeros((math.comb(8, size), 8), bool)
        for row, ids in zip(is_member, itertools.combinations(range(8), size), strict=True):
            row[list(ids)] = True
        correct = learner(is_member)[0] == train.labels[None]
        exact = exact_learners.nearest_neighbour_memorization(train.images, train.labels, size)
        np.testing.assert_allclose(exact, subsets.memorization(is_member, correct), atol=1e-12)
    assert len({*exact.tolist()}) > 1


def lemma(p, t):
    """The bound on the mean squared error of t members (Feldman and Zhang 2020, lemma 2.1)."""
    p = min(p, 1 - p)
    return 1 / (p * t) + 1 / ((1 - p) * t) + math.exp(-p * t / 16) / 2


def errors_of(learner, labels, exact, size, counts):
    is_member = subsets.membership(1, range(max(counts)), len(labels), size)
    correct = learner(is_member)[0] == labels[None]
    return [
        np.mean(np.square(subsets.memorization(is_member[:t], correct[:t]) - exact)) for t in counts
    ]


def test_the_estimate_is_within_the_bound_of_the_exact_memorization():
    train, test = make_splits(n=200, m=1)
    size = subsets.subset_size(0.7, 200)
    exact = exact_learners.nearest_neighbour_memorization(train.images, train.labels, size)
    assert exact.std() > 0.2
    learner = exact_learners.nearest_neighbour(train, test)
    counts = (50, 200, 800)
    errors = errors_of(learner, train.labels, exact, size, counts)
    for error, t in zip(errors, counts, strict=True):
        assert error <= lemma(0.7, t)
    # Each fourfold number of members divides the error by about four.
    assert errors[0] / 8 < errors[1] < errors[0] / 2
    assert errors[1] / 8 < errors[2] < errors[1] / 2


def test_kernel_ridge_is_within_the_bound_of_a_large_reference():
    train, test = make_splits(n=60, m=1)
    matrices = exact_learners.gaussian_matrices(train, test)
    learner = exact_learners.kernel_ridge(matrices, train.labels)
    is_member = subsets.membership(99, range(4000), 60, 42)
    reference = subsets.memorization(is_member, learner(is_member)[0] == train.labels[None])
    counts = (50, 200)
    errors = errors_of(learner, train.labels, reference, 42, counts)
    for error, t in zip(errors, counts, strict=True):
        assert 0 < error <= lemma(0.7, t)


def test_kernel_ridge_is_a_solve_on_each_subset():
    train, test = make_splits()
    matrices = exact_learners.gaussian_matrices(train, test)
    x, z = (split.images.reshape(len(split.labels), -1) / 1.0 for split in (train, test))
    far = np.square(x[:, None] - x[None]).sum(axis=2)
    np.testing.assert_allclose(matrices.train, np.exp(-far / far.mean()), rtol=1e-12)
    to_test = np.square(z[:, None] - x[None]).sum(axis=2)
    np.testing.assert_allclose(matrices.test, np.exp(-to_test / far.mean()), rtol=1e-12)
    is_member = subsets.membership(0, range(4), 60, 30)
    answers = exact_learners.kernel_ridge(matrices, train.labels, ridge=0.5)(is_member)
    for number, row in enumerate(is_member):
        inner = matrices.train[row][:, row] + 0.5 * np.eye(30)
        weights = cho_solve(cho_factor(inner), np.eye(3)[train.labels[row]])
        for matrix, own in zip(matrices, answers, strict=True):
            assert own[number].tolist() == (matrix[:, row] @ weights).argmax(axis=1).tolist()


def test_leave_one_out_is_leaving_out():
    train, test = make_splits()
    matrices = exact_learners.gaussian_matrices(train, test)
    n, ridge = 60, 1e-2
    learner = exact_learners.kernel_ridge(matrices, train.labels, ridge)
    everything = learner(np.ones((1, n), bool))[0][0] == train.labels
    without = np.diag(learner(~np.eye(n, dtype=bool))[0]) == train.labels
    expected = everything.astype(float) - without
    np.testing.assert_array_equal(
        exact_learners.leave_one_out(matrices.train, train.labels, ridge), expected
    )
    assert 5 < expected.sum() < n


def test_distances_are_exact():
    rng = np.random.default_rng(0)
    left, right = (rng.integers(0, 256, (k, 28, 28, 3)).astype(np.uint8) for k in (4, 5))
    expected = np.square(left[:, None].astype(np.int64) - right[None].astype(np.int64))
    found = exact_learners.squared_distances(left, right)
    np.testing.assert_array_equal(found, expected.sum(axis=(2, 3, 4)))
