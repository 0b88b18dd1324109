import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st

from rethink_jax import config as config_lib, corruptions, data
from rethink_jax.pipeline import batching, inputs

SIZE = 8  # of the toy's 12


KEPT = {}  # most of these tests' time would go into compiling the same again


def resolved(dataset, name="true_labels", size=SIZE, **corruption):
    config = config_lib.train(dataset.info.name, name, **corruption)
    config.data.size = size
    return config_lib.fill_in(config, dataset.info.num_train, min(dataset.info.image_shape[:2]))


def prepare(dataset, *args, **corruption):
    call = (id(dataset), args, tuple(sorted(corruption.items())))
    if call not in KEPT:
        # The data set is kept too, so that no other one can get its id.
        KEPT[call] = dataset, inputs.prepare(resolved(dataset, *args, **corruption), dataset)
    return KEPT[call][1]


def crop(images, size=SIZE):
    top, left = (images.shape[1] - size) // 2, (images.shape[2] - size) // 2
    return images[:, top : top + size, left : left + size]


def changed(dataset, split, column, index, value):
    """The data set with one entry of one array changed."""
    examples = getattr(dataset, split)
    array = getattr(examples, column).copy()
    array[index] = value
    return dataclasses.replace(dataset, **{split: examples._replace(**{column: array})})


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# Batches.


def test_golden_epochs():
    assert batching.epoch_batches(0, 0, 7, 3).tolist() == [[0, 2, 4], [1, 5, 3], [6, -1, -1]]
    assert batching.epoch_batches(0, 1, 7, 3).tolist() == [[0, 3, 5], [1, 4, 6], [2, -1, -1]]
    assert batching.epoch_batches(1, 0, 7, 3).tolist() == [[6, 1, 2], [4, 3, 0], [5, -1, -1]]


# JAX sorts up to 1,625 values once, and more twice.
@pytest.mark.parametrize("n", [1, 2, 3, 100, 1625, 1626, 50_000])
def test_an_order_is_the_permutation_of_jax(n):
    for seed, epoch in ((0, 0), (7, 3)):
        key = jax.random.fold_in(corruptions.key_of(seed), epoch)
        order = batching.epoch_batches(seed, epoch, n, n)[0]
        np.testing.assert_array_equal(order, jax.random.permutation(key, n))


def test_orders_of_several_seeds_are_those_of_each():
    several = batching.epoch_batches_of([3, 0, 3], 2, 50, 8)
    for orders, seed in zip(several, (3, 0, 3), strict=True):
        np.testing.assert_array_equal(orders, batching.epoch_batches(seed, 2, 50, 8))


@given(
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 10_000),
    n=st.sampled_from([1, 7, 32, 50]),
    batch_size=st.integers(1, 60),
)
def test_an_epoch_is_a_permutation_cut_into_batches(seed, epoch, n, batch_size):
    batches = batching.epoch_batches(seed, epoch, n, batch_size)
    assert batches.dtype == np.int32
    assert batches.shape == (-(-n // batch_size), batch_size)
    flat = batches.ravel()
    assert (flat[n:] == batching.PADDING).all()
    np.testing.assert_array_equal(np.sort(flat[:n]), np.arange(n))


@given(st.integers(1, 60), st.integers(1, 60))
def test_the_order_of_an_epoch_does_not_depend_on_the_batch_size(one, other):
    orders = [batching.epoch_batches(3, 4, 50, size).ravel()[:50] for size in (one, other)]
    np.testing.assert_array_equal(*orders)


def test_orders_differ_between_epochs_and_seeds_and_come_again():
    orders = [
        batching.epoch_batches(seed, epoch, 50, 50).tobytes()
        for seed in (0, 1, 2**32 - 1)
        for epoch in range(4)
    ]
    assert len(set(orders)) == 12
    jax.random.permutation(jax.random.key(9), 50)  # draws in between change nothing
    assert batching.epoch_batches(1, 2, 50, 50).tobytes() == orders[4 + 2]


def test_every_place_in_an_epoch_is_equally_likely():
    first = [int(batching.epoch_batches(0, epoch, 5, 5)[0, 0]) for epoch in range(500)]
    counts = np.bincount(first, minlength=5)
    assert np.sum((counts - 100) ** 2 / 100) < 33  # four degrees of freedom: a chance of 1e-6


def test_ids_in_batches():
    ids = np.array([4, 0, 9, 1], np.int64)
    whole = batching.in_batches(ids, 2)
    assert whole.dtype == np.int32
    assert whole.tolist() == [[4, 0], [9, 1]]
    assert batching.in_batches(ids, 3).tolist() == [[4, 0, 9], [1, -1, -1]]
    assert batching.in_batches(ids, 6).tolist() == [[4, 0, 9, 1, -1, -1]]
    assert batching.pad_steps(whole, 4).tolist() == [
        *whole.tolist(),
        *[[-1, -1]] * (4 - len(whole)),
    ]
    np.testing.assert_array_equal(
        batching.pad_steps(whole[None], 4)[0], batching.pad_steps(whole, 4)
    )


# Preparing.


def test_true_labels_are_the_cropped_data(toy):
    prepared = prepare(toy)
    for split, examples in ((prepared.train, toy.train), (prepared.test, toy.test)):
        assert_same(split, (crop(examples.images), examples.labels, examples.labels))
        assert split.images.dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "before_crop"),
    [
        ("true_labels", False),
        ("random_labels", False),
        ("shuffled_pixels", False),
        ("shuffled_pixels", True),
        ("gaussian", False),
    ],
)
def test_crop_then_corrupt_or_corrupt_then_crop(toy, name, before_crop):
    extra = {"before_crop": True} if before_crop else {}
    extra |= {"per_channel": False} if name == "gaussian" else {}
    prepared = prepare(toy, name, **extra)
    # The same from the pieces; the moments are of the whole training images, for both splits.
    moments = corruptions.pixel_moments(toy.train.images, per_channel=False)
    extra = {
        "random_labels": {"num_classes": 5},
        "gaussian": {"moments": moments},
    }.get(name, {})
    for split in corruptions.SPLITS:
        key = corruptions.corruption_key(0, None if name == "shuffled_pixels" else split)
        images, true_labels, _ = getattr(toy, split)
        ids = np.arange(len(images), dtype=np.int32)
        seen = images if before_crop else crop(images)
        seen, labels = corruptions.CORRUPTIONS[name](key, ids, seen, true_labels, **extra)
        expected = (crop(np.asarray(seen)), np.asarray(labels), true_labels)
        assert_same(getattr(prepared, split), expected)
        assert expected[0].dtype == (np.float32 if name == "gaussian" else np.uint8)


def test_only_after_the_crop_are_its_pixels_kept(toy):
    """A permutation before the crop brings pixels of the margin into it."""

    def sorted_pixels(images):
        return np.sort(images.reshape(len(images), -1), axis=1)

    expected = sorted_pixels(crop(toy.train.images))
    after, before = (
        prepare(toy, "shuffled_pixels", before_crop=order).train.images for order in (False, True)
    )
    np.testing.assert_array_equal(sorted_pixels(after), expected)
    assert (sorted_pixels(before) != expected).any(axis=1).all()


def test_random_labels_keep_images_and_true_labels(toy):
    prepared = prepare(toy, "random_labels")
    for split, examples in ((prepared.train, toy.train), (prepared.test, toy.test)):
        assert_same(split[::2], (crop(examples.images), examples.labels))
        assert split.labels.dtype == np.int32
        assert 0 <= split.labels.min() <= split.labels.max() < 5
        assert 0.5 < np.mean(split.labels != examples.labels) < 0.99  # 4 in 5 expected


@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        *(("true_labels", chunk) for chunk in (7, 60, 61, 299, 300)),
        ("random_labels", 7),
        ("shuffled_pixels", 70),
    ],
)
def test_chunks_change_nothing(toy, name, chunk, monkeypatch):
    """300 and 60 examples: in chunks that do not divide them, that do, and in one."""
    whole = prepare(toy, name)
    assert inputs._CHUNK > 300
    monkeypatch.setattr(inputs, "_CHUNK", chunk)
    parts = inputs.prepare(resolved(toy, name), toy)
    assert_same(parts.train, whole.train)
    assert_same(parts.test, whole.test)
    assert parts.fingerprint == whole.fingerprint


def test_images_that_are_not_square():
    rng = np.random.default_rng(0)
    splits = [
        (rng.integers(0, 256, (n, 6, 9, 1)).astype(np.uint8), np.arange(n) % 2) for n in (5, 4)
    ]
    prepared = prepare(data.from_arrays(*splits), "true_labels", 5)
    np.testing.assert_array_equal(prepared.train.images, splits[0][0][:, 0:5, 2:7])
    np.testing.assert_array_equal(prepared.test.images, splits[1][0][:, 0:5, 2:7])


# The fingerprint.


def test_fingerprint_changes_when_the_data_do(toy):
    labels, images = toy.train.labels, toy.test.images
    margin, inside = (0, 0, 0, 0), (59, 5, 5, 2)
    prints = {
        "the data": prepare(toy).fingerprint,
        "a pixel": prepare(changed(toy, "test", "images", inside, 1)).fingerprint,
        "a label": prepare(changed(toy, "train", "labels", 7, (labels[7] + 1) % 5)).fingerprint,
        "the crop": prepare(toy, "true_labels", 9).fingerprint,
        "the labels": prepare(toy, "random_labels").fingerprint,
        "their seed": prepare(toy, "random_labels", seed=1).fingerprint,
        "the pixels": prepare(toy, "shuffled_pixels").fingerprint,
        "before the crop": prepare(toy, "shuffled_pixels", before_crop=True).fingerprint,
    }
    assert images[inside] != 1
    assert len(set(prints.values())) == len(prints)
    assert all(len(bytes.fromhex(value)) == 32 for value in prints.values())
    again = [
        prepare(toy),
        prepare(toy, seed=1),  # of a corruption that draws nothing
        prepare(toy, probability=0.3),
        prepare(changed(toy, "train", "images", margin, 255 - toy.train.images[margin])),
    ]
    assert {inputs_.fingerprint for inputs_ in again} == {prints["the data"]}


def test_fingerprint_holds_the_true_labels(toy):
    """Under random labels nothing else of a run's data would tell them."""
    other = changed(toy, "train", "labels", 7, (toy.train.labels[7] + 1) % 5)
    one, two = prepare(toy, "random_labels"), prepare(other, "random_labels")
    assert_same(one.train[:2], two.train[:2])
    assert one.fingerprint != two.fingerprint


def test_fingerprint_does_not_depend_on_the_training(toy):
    config = resolved(toy, "shuffled_pixels")
    config.update(seed=5, batch_size=7, epochs=1, dtype="bfloat16")
    config.model.name = "small_alexnet"
    other = inputs.prepare(config, toy)
    assert other.fingerprint == prepare(toy, "shuffled_pixels").fingerprint
