import logging

import numpy as np
import pytest

from rethink_jax import config as config_lib, data
from rethink_jax.data import subset
from rethink_jax.data.source import decode_split
from rethink_jax.pipeline import loaders
from rethink_jax.runs.resolve import resolve
from tests.data_helpers import fields, write_images


def by_class(classes, each):
    return np.repeat(np.arange(classes), each)


def shuffled(labels, seed=0):
    return np.random.default_rng(seed).permutation(labels)


ORDERS = {
    "by class": by_class(10, 100),
    "by class, backwards": by_class(10, 100)[::-1],
    "two classes, one large": np.repeat([0, 1], [950, 50]),
    "one example out of its place": np.roll(by_class(10, 100), 1),
    "one in ten anywhere": np.where(
        np.arange(3000) % 10, by_class(10, 300), shuffled(by_class(10, 300))
    ),
    "one half of the classes, then the other": np.concatenate(
        [shuffled(by_class(5, 200)), 5 + shuffled(by_class(5, 200))]
    ),
    "file after file, each by class": np.tile(by_class(10, 50), 20),
    "many small classes": by_class(1000, 20),
    "large": by_class(100, 5000),
    "twelve": by_class(2, 6),
    "three": np.array([1, 1, 0]),
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_set_that_is_sorted_by_class_is_noticed(order):
    labels = ORDERS[order]
    assert subset.is_sorted_by_class(len(labels), labels.__getitem__)


@pytest.mark.parametrize(
    "labels",
    [
        by_class(10, 100),
        by_class(10, 6000),
        by_class(1000, 20),
        by_class(2, 500),
        np.repeat([0, 1], [990, 10]),
        np.zeros(30, int),
    ],
)
def test_a_shuffled_set_is_not(labels):
    for seed in range(50):
        assert not subset.is_sorted_by_class(len(labels), shuffled(labels, seed).__getitem__)


def chosen(labels, count):
    return subset.choose_examples(len(labels), count, labels.__getitem__, "training examples")


def test_examples_of_a_sorted_set_are_of_all_classes(caplog):
    labels = by_class(10, 100)
    with caplog.at_level(logging.INFO, "rethink_jax"):
        ids = chosen(labels, 100)
    assert len(np.unique(ids)) == 100
    assert {*labels[ids].tolist()} == {*range(10)}
    assert caplog.messages == [
        "training examples: 100 of 1,000, drawn at random because the set is sorted by class"
    ]


def test_a_smaller_subset_is_the_begin_of_a_larger_one():
    labels = by_class(10, 100)
    for count in (1, 50, 999):
        np.testing.assert_array_equal(chosen(labels, 999)[:count], chosen(labels, count))
    np.testing.assert_array_equal(chosen(labels, 1000), np.arange(1000))


def test_which_examples_are_drawn_stays():
    assert chosen(by_class(10, 100), 5).tolist() == [780, 548, 286, 130, 921]


def test_examples_of_a_shuffled_set_are_the_first(caplog):
    with caplog.at_level(logging.INFO, "rethink_jax"):
        np.testing.assert_array_equal(chosen(shuffled(by_class(10, 100)), 50), np.arange(50))
    assert caplog.messages == ["training examples: the first 50 of 1,000"]


@pytest.mark.parametrize("name", ["cifar10_jpeg", "mnist", "digits"])
def test_prepared_sets_are_shuffled(real_data, name):
    source = data.open_source(fields(name, None if name == "digits" else real_data))
    for split in (source.train, source.test):

        def labels_at(positions, split=split):
            return [split.parse(record)[1] for record in split.fetch(positions.tolist())]

        assert not subset.is_sorted_by_class(split.count, labels_at)


@pytest.fixture
def folder(tmp_path):
    names = [f"{animal}/{number:02}.png" for animal in "abcde" for number in range(12)]
    write_images(tmp_path, names)
    return tmp_path


def test_examples_of_a_folder_are_of_all_classes(folder, caplog):
    whole = data.load(fields("image_folder", folder))
    with caplog.at_level(logging.INFO, "rethink_jax"):
        some = data.load(fields("image_folder", folder, examples=10))
    assert (some.info.num_train, some.info.num_test) == (10, 10)
    assert len({*some.train.labels.tolist()}) > 2
    ids = chosen(whole.train.labels, 10)
    np.testing.assert_array_equal(some.train.images, whole.train.images[ids])
    np.testing.assert_array_equal(some.train.labels, whole.train.labels[ids])
    assert caplog.messages[1:] == [
        "image_folder's training examples: 10 of 50, drawn at random because the set is sorted by class"
    ]


def test_a_stream_takes_the_same_examples_as_memory(folder):
    config = config_lib.train("image_folder", "true_labels")
    config.data.update(data_dir=str(folder), examples=20, stream=True, workers=0, size=4)
    in_memory = data.load(config.data)
    source = data.open_source(config.data)
    for split, held in (("train", in_memory.train), ("test", in_memory.test)):
        part = subset.choose_records(getattr(source, split), 20, 5, split)
        examples = decode_split(part, in_memory.info)
        np.testing.assert_array_equal(examples.images, held.images)
        np.testing.assert_array_equal(examples.labels, held.labels)
    resolved, _ = resolve(config)
    streamed = loaders.make(resolved, None)
    assert streamed.info == in_memory.info
    batches = streamed.evaluate(["train"])
    labels = [dispatch.examples.labels.ravel() for _, dispatch in batches]
    np.testing.assert_array_equal(np.concatenate(labels)[:20], in_memory.train.labels)
