import hashlib
import math

import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st

from rethink_jax import config as config_lib, corruptions
from rethink_jax.config import base
from rethink_jax.corruptions import pixels
from rethink_jax.errors import UserError
from rethink_jax.pipeline import inputs, preprocess
from tests.data_helpers import of_size

IDS = np.arange(40, dtype=np.int32)
RNG = np.random.default_rng(1)
IMAGES = RNG.integers(0, 256, (40, 5, 4, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 10, 40).astype(np.int32)
MOMENTS = corruptions.pixel_moments(IMAGES)
EXTRA = {
    "true_labels": {},
    "partially_corrupted_labels": {"probability": 0.4, "num_classes": 10},
    "random_labels": {"num_classes": 10},
    "shuffled_pixels": {},
    "random_pixels": {},
    "gaussian": {"moments": MOMENTS},
    "symmetric_labels": {"probability": 0.4, "num_classes": 10},
    "pair_flip_labels": {"probability": 0.4, "num_classes": 10},
    "asymmetric_labels": {
        "probability": 0.4,
        "targets": corruptions.ASYMMETRIC_TARGETS["cifar10"],
    },
    "transition_labels": {"matrix": np.eye(10) / 2 + 0.05},
    "instance_dependent_labels": {
        "probability": 0.4,
        "num_classes": 10,
        "weights_key": corruptions.corruption_key(0),
    },
    "human_labels": {"given": RNG.integers(0, 10, 40)},
}
ALL = pytest.mark.parametrize("name", corruptions.CORRUPTIONS)


def apply(name, ids=IDS, images=IMAGES, labels=LABELS, seed=0, split="train", **extra):
    key = corruptions.corruption_key(seed, None if name == "shuffled_pixels" else split)
    function = corruptions.CORRUPTIONS[name]
    return jax.device_get(function(key, ids, images, labels, **(extra or EXTRA[name])))


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# Golden values: made once, equal on every supported JAX and on every back end.

GOLDEN = {
    "random_labels": [3, 7, 7, 2, 7, 6, 8],
    "random_labels_test": [0, 6, 5, 7, 9, 0, 3],
    "partially_corrupted_labels": [3, 7, 7, 2, 7, 99, 99],
    "shuffled_pixels": [
        [0, 1, 8, 5, 6, 4, 3, 10, 2, 7, 11, 9],
        [0, 1, 8, 5, 6, 4, 3, 10, 2, 7, 11, 9],
    ],
    "random_pixels": [
        [0, 10, 8, 4, 5, 11, 6, 9, 1, 7, 2, 3],
        [0, 2, 11, 7, 9, 6, 5, 10, 1, 3, 8, 4],
    ],
    "gaussian": [
        89.07038879394531,
        60.400390625,
        108.91041564941406,
        60.71484375,
        63.56178283691406,
        59.6474609375,
        247.2976837158203,
        59.900390625,
    ],
    "thresholds": "7302e3c0df6602c8",
}


def test_golden_labels():
    ids = np.array([0, 1, 2, 3, 7, 1000, 49_999], np.int32)
    labels = np.full(7, 99, np.int32)
    images = np.zeros((7, 1, 1, 1), np.uint8)
    _, drawn = apply("random_labels", ids, images, labels)
    assert drawn.tolist() == GOLDEN["random_labels"]
    _, drawn = apply(
        "partially_corrupted_labels", ids, images, labels, probability=0.5, num_classes=10
    )
    assert drawn.tolist() == GOLDEN["partially_corrupted_labels"]
    _, drawn = apply("random_labels", ids, images, labels, split="test")
    assert drawn.tolist() == GOLDEN["random_labels_test"]


@pytest.mark.parametrize("name", ["shuffled_pixels", "random_pixels"])
def test_golden_permutations(name):
    images = np.broadcast_to(np.arange(12).reshape(3, 4, 1), (2, 3, 4, 1)).astype(np.uint8)
    permuted, _ = apply(name, np.array([0, 5], np.int32), images, np.zeros(2, np.int32))
    assert permuted.reshape(2, 12).tolist() == GOLDEN[name]


def test_golden_gaussian():
    moments = corruptions.Moments(np.float32([125.3, 60.0]), np.float32([63.1, 0.5]))
    ids = np.array([0, 49_999], np.int32)
    images = np.zeros((2, 1, 2, 2), np.uint8)
    noise, _ = apply("gaussian", ids, images, np.zeros(2, np.int32), moments=moments)
    assert noise.dtype == np.float32
    assert [float(x) for x in noise.ravel()] == GOLDEN["gaussian"]


def test_golden_thresholds():
    thresholds = pixels._normal_thresholds()
    assert hashlib.sha256(thresholds.tobytes()).hexdigest()[:16] == GOLDEN["thresholds"]
    assert np.all(np.diff(thresholds.astype(np.int64)) >= 0)


# An example's fate depends on its id alone.


@ALL
@given(order=st.permutations(range(40)), size=st.sampled_from([1, 7, 40]))
def test_same_in_any_order_and_batch(name, order, size):
    whole = apply(name)
    order = np.array(order)[:size]
    part = apply(name, IDS[order], IMAGES[order], LABELS[order])
    assert_same(part, [column[order] for column in whole])


@ALL
def test_same_under_jit_vmap_pmap_and_fusion(name):
    key = corruptions.corruption_key(0, None if name == "shuffled_pixels" else "train")

    def corrupt(ids, images, labels):
        return corruptions.CORRUPTIONS[name](key, ids, images, labels, **EXTRA[name])

    whole = apply(name)
    assert_same(jax.device_get(jax.jit(corrupt)(IDS, IMAGES, LABELS)), whole)
    groups = [column.reshape(8, 5, *column.shape[1:]) for column in (IDS, IMAGES, LABELS)]
    mapped = jax.device_get(jax.jit(jax.vmap(corrupt))(*groups))
    assert_same([column.reshape(40, *column.shape[2:]) for column in mapped], whole)

    quarters = [column.reshape(4, 10, *column.shape[1:]) for column in (IDS, IMAGES, LABELS)]
    spread = jax.device_get(jax.pmap(corrupt)(*quarters))
    assert_same([column.reshape(40, *column.shape[2:]) for column in spread], whole)

    def with_more(ids, images, labels):
        images, labels = corrupt(ids, images, labels)
        return images, labels, preprocess.whiten(images)

    assert_same(jax.device_get(jax.jit(with_more)(IDS, IMAGES, LABELS)[:2]), whole)


@ALL
def test_same_with_the_other_global_generator_setting(name):
    whole = apply(name)
    with jax.threefry_partitionable(False):
        assert_same(apply(name), whole)


@ALL
def test_seeds_differ(name):
    images, labels = apply(name, seed=1)
    differs = any((a != b).any() for a, b in zip((images, labels), apply(name), strict=True))
    assert differs == (name not in ("true_labels", "human_labels"))


# Labels.


@given(p=st.floats(0, 1), q=st.floats(0, 1))
def test_partial_corruption_is_nested(p, q):
    low, high = sorted((p, q))
    marks = np.full(40, -1, np.int32)
    extra = {"num_classes": 10}
    some = apply("partially_corrupted_labels", labels=marks, probability=low, **extra)[1]
    more = apply("partially_corrupted_labels", labels=marks, probability=high, **extra)[1]
    np.testing.assert_array_equal(some[some >= 0], more[some >= 0])
    every = apply("partially_corrupted_labels", labels=marks, probability=1.0, **extra)[1]
    np.testing.assert_array_equal(every, apply("random_labels", labels=marks)[1])
    assert every.min() >= 0


@given(p=st.floats(0, 1), k=st.sampled_from([2, 10, 17]), seed=st.integers(0, 2**32 - 1))
def test_fraction_of_changed_labels(p, k, seed):
    n = 4000
    labels = np.arange(n, dtype=np.int32) % k
    images = np.zeros((n, 1, 1, 1), np.uint8)
    ids = np.arange(n, dtype=np.int32)
    _, corrupted = apply(
        "partially_corrupted_labels", ids, images, labels, seed=seed, probability=p, num_classes=k
    )
    expected = p * (k - 1) / k
    # Bernstein's bound on a binomial at a chance of 1e-9.
    slack = math.sqrt(2 * n * expected * (1 - expected) * 21.5) + 2 * 21.5 / 3
    assert abs(np.sum(corrupted != labels) - n * expected) <= slack


def test_random_labels_are_uniform():
    n = 20_000
    ids = np.arange(n, dtype=np.int32)
    _, labels = apply("random_labels", ids, np.zeros((n, 1, 1, 1), np.uint8), np.zeros(n, np.int32))
    counts = np.bincount(labels, minlength=10)
    assert len(counts) == 10
    chi_square = np.sum((counts - n / 10) ** 2 / (n / 10))
    assert chi_square < 45  # nine degrees of freedom: a chance of 1e-6


@pytest.mark.parametrize("name", corruptions.LABEL_CORRUPTIONS)
def test_label_corruptions_leave_images(name):
    images, labels = apply(name)
    assert_same([images], [IMAGES])
    assert (labels != LABELS).any()


# Pixels.


@pytest.mark.parametrize("name", ["shuffled_pixels", "random_pixels"])
@given(
    shape=st.sampled_from([(1, 1, 1), (1, 6, 2), (5, 1, 3), (4, 3, 4), (6, 6, 1)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_pixels_are_permuted_and_channels_move_together(name, shape, seed):
    n, (height, width, channels) = 4, shape
    pixels = np.arange(n * height * width, dtype=np.int32).reshape(n, height, width, 1)
    images = np.concatenate([pixels + 1000 * c for c in range(channels)], axis=-1)
    labels = np.arange(n, dtype=np.int32)
    permuted, same_labels = apply(name, np.arange(n, dtype=np.int32), images, labels, seed=seed)
    assert_same([same_labels], [labels])
    for c in range(channels):
        np.testing.assert_array_equal(permuted[..., c], permuted[..., 0] + 1000 * c)
    flat = permuted[..., 0].reshape(n, -1)
    np.testing.assert_array_equal(np.sort(flat), pixels.reshape(n, -1))
    orders = flat - flat.min(axis=1, keepdims=True)
    if name == "shuffled_pixels":
        assert (orders == orders[0]).all()


def test_random_pixels_has_a_permutation_for_each_image():
    images = np.broadcast_to(IMAGES[:1], IMAGES.shape)
    permuted, _ = apply("random_pixels", images=images)
    assert len({image.tobytes() for image in permuted}) == len(permuted)


def test_train_and_test_are_keyed_apart_but_share_the_shuffle():
    for name in ("random_labels", "random_pixels", "gaussian"):
        train, test = apply(name), apply(name, split="test")
        assert any((a != b).any() for a, b in zip(train, test, strict=True))
    config = base().corruption
    config.name = "shuffled_pixels"
    train, test = (
        inputs.from_config(config, of_size().info, MOMENTS)(
            inputs.split_key(config, split), IDS, IMAGES, LABELS
        )
        for split in corruptions.SPLITS
    )
    assert_same(jax.device_get(train), jax.device_get(test))


# Noise.


def test_gaussian_has_the_moments_of_each_channel():
    n, side = 500, 20
    moments = corruptions.Moments(np.float32([20, 120, 200]), np.float32([5, 60, 75]))
    images = np.zeros((n, side, side, 3), np.uint8)
    ids = np.arange(n, dtype=np.int32)
    noise, labels = apply("gaussian", ids, images, ids, moments=moments)
    assert_same([labels], [ids])
    z = (noise.astype(np.float64) - moments.mean) / moments.std
    count = n * side * side
    for c in range(3):
        # Five standard errors of each moment of a normal.
        assert abs(z[..., c].mean()) < 5 / math.sqrt(count)
        assert abs(z[..., c].var() - 1) < 5 * math.sqrt(2 / count)
        assert abs((z[..., c] ** 3).mean()) < 5 * math.sqrt(15 / count)
        assert abs((z[..., c] ** 4).mean() - 3) < 5 * math.sqrt(96 / count)
    assert abs(np.corrcoef(z.reshape(-1, 3).T)[np.triu_indices(3, 1)]).max() < 5 / math.sqrt(count)
    assert noise.min() < 0
    assert noise.max() > 255


def test_moments_against_numpy():
    expected = IMAGES.astype(np.float64)
    np.testing.assert_allclose(MOMENTS.mean, expected.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(MOMENTS.std, expected.std(axis=(0, 1, 2)), rtol=1e-6)
    together = corruptions.pixel_moments(IMAGES, per_channel=False)
    np.testing.assert_allclose(together.mean, np.full(3, expected.mean()), rtol=1e-6)
    np.testing.assert_allclose(together.std, np.full(3, expected.std()), rtol=1e-6)


# Errors.


@ALL
def test_wrong_shapes(name):
    with pytest.raises(
        ValueError, match=r"must be \[n\], \[n, height, width, channels\] and \[n\]"
    ):
        apply(name, ids=IDS[:-1])
    with pytest.raises(ValueError, match=r"must be \[n\]"):
        apply(name, images=IMAGES[..., 0])


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"probability is 1.5; it must be in \[0, 1\]"):
        apply("partially_corrupted_labels", probability=1.5, num_classes=10)
    with pytest.raises(ValueError, match="one value for each of 3 channels"):
        apply("gaussian", moments=corruptions.Moments(np.zeros(1), np.ones(1)))
    with pytest.raises(ValueError, match="not in"):
        corruptions.corruption_key(0, "validation")


@pytest.mark.parametrize("probability", [-0.1, 1.5, math.nan])
def test_check_refuses_probability(probability):
    config = base()
    config.corruption.probability = probability
    with pytest.raises(
        UserError, match=r"config.corruption.probability is .*; it must be in \[0, 1\]"
    ):
        config_lib.check(config)


INTEGERS = pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64])


@ALL
@INTEGERS
def test_ids_of_any_integers(name, dtype):
    assert_same(apply(name, ids=IDS.astype(dtype)), apply(name))
    assert_same(apply(name, ids=IDS.tolist()), apply(name))


@ALL
@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (
            np.arange(40) + 2**32 - 39,
            r"ids go from 4294967257 to 4294967296; they must be in \[0, ",
        ),
        (np.arange(40) - 1, r"ids go from -1 to 38; they must be in \[0, 4294967295\]"),
        (IDS.astype(np.float32), "ids are float32; they must be integers"),
        (IDS > 3, "ids are bool; they must be integers"),
    ],
)
def test_ids_that_do_not_fit_are_refused(name, ids, message):
    with pytest.raises(ValueError, match=message):
        apply(name, ids=ids)


@pytest.mark.parametrize("name", [name for name in EXTRA if name != "human_labels"])
def test_large_ids_differ(name):
    ids = np.arange(40) + 2**31
    assert_same(apply(name, ids=ids), apply(name, ids=ids.astype(np.uint32)))


@ALL
@INTEGERS
def test_labels_of_any_integers(name, dtype):
    images, labels = apply(name, labels=LABELS.astype(dtype))
    expected_images, expected_labels = apply(name)
    np.testing.assert_array_equal(images, expected_images)
    np.testing.assert_array_equal(labels, expected_labels)


@pytest.mark.parametrize("name", [name for name in EXTRA if "num_classes" in EXTRA[name]])
@pytest.mark.parametrize(
    ("labels", "num_classes", "message"),
    [
        (LABELS.astype(np.int64) + 2**31, 10, "labels go from 2147483648 to "),
        (LABELS.astype(np.uint8), 257, "num_classes is 257; .* labels of uint8 go up to 255"),
        (LABELS.astype(np.int8), 1000, "num_classes is 1000; .* labels of int8 go up to 127"),
        (LABELS, 0, "num_classes is 0"),
        (LABELS, 2**31, "num_classes is 2147483648"),
        (LABELS / 2, 10, "labels are float64; they must be integers"),
    ],
)
def test_labels_that_would_wrap_are_refused(name, labels, num_classes, message):
    extra = EXTRA[name] | {"num_classes": num_classes}
    with pytest.raises(ValueError, match=message):
        apply(name, labels=labels, **extra)
