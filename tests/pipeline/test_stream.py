import dataclasses
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
from ml_collections import ConfigDict

from rethink_jax import data
from rethink_jax.config import base
from rethink_jax.data import fake, synthetic_imagenet
from rethink_jax.data.source import decode_image
from rethink_jax.errors import UserError
from rethink_jax.pipeline import batching, crops, stream
from tests.pipeline.test_crops import resized

N, BATCH = 23, 8


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    synthetic_imagenet.prepare(root, N, 5, height=40, width=60)
    config = base().data
    config.update(name="imagenet2012", data_dir=str(root))
    return data.open_source(config)


def batches_of(source, **fields):
    given = {
        "split": source.train,
        "info": source.info,
        "batch_size": BATCH,
        "rows": np.arange(BATCH),
        "size": 16,
        "seed": 0,
        "count": 9,
        "random_crop": True,
        "is_inception": False,
    }
    return stream.Batches(**{**given, **fields})


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_epoch_has_every_example_once_and_its_own_order(source):
    batches = batches_of(source)
    orders = []
    for epoch in range(3):
        ids = np.concatenate([batches[3 * epoch + i].ids for i in range(3)])
        assert ids.dtype == np.int32
        np.testing.assert_array_equal(ids[N:], [batching.PADDING])
        assert sorted(ids[:N]) == list(range(N))
        orders.append(tuple(ids))
    assert len(set(orders)) == 3
    other_seed = batches_of(source, seed=1)
    assert tuple(other_seed[0].ids) not in {order[:BATCH] for order in orders}


def test_the_order_is_pinned(source):
    """As of grain 0.2.18's index shuffle: another order is another run."""
    assert batches_of(source)[0].ids.tolist() == ORDER


ORDER = [18, 8, 16, 7, 20, 13, 1, 0]


def test_nothing_has_the_size_of_the_set():
    source = fake.open_source("digits")
    endless = dataclasses.replace(source.train, count=10**9)
    batches = batches_of(source, split=endless, info=source.info, size=8, count=10**8)
    tracemalloc.start()
    ids = batches[10**7].ids
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(ids.tolist())) == BATCH
    assert ids.max() > 10**7
    assert peak < 10**6


def test_images_and_labels_are_those_of_the_ids(source):
    batches = batches_of(source, seed=None, count=3)
    for number in range(3):
        images, labels, ids = batches[number]
        for image, label, example_id in zip(images, labels, ids, strict=True):
            if example_id == batching.PADDING:
                assert not image.any()
                continue
            (record,) = source.train.fetch([int(example_id)])
            encoded, true_label = source.train.parse(record)
            pixels = decode_image(encoded, 3)
            assert pixels.shape[:2] in ((40, 60), (60, 40))
            box = crops.central_box(*pixels.shape[:2], square=True)
            # Pillow's decoder and OpenCV's differ by a rounding.
            assert np.abs(image - resized(pixels, box, 16).astype(int)).max() <= 2
            assert label == true_label
    assert ids[-1] == batching.PADDING


def test_rows_of_several_processes_are_those_of_one(source):
    whole = batches_of(source)
    halves = [batches_of(source, rows=np.arange(BATCH)[part::2]) for part in range(2)]
    for number in range(4):
        for part, half in enumerate(halves):
            assert_same(half[number], [array[part::2] for array in whole[number]])


def test_crops_depend_on_seed_epoch_and_id_alone(source):
    one, other = batches_of(source), batches_of(source, batch_size=N, rows=np.arange(N), count=3)
    by_id = dict(zip(other[0].ids.tolist(), other[0].images, strict=True))
    for number in range(3):
        for example_id, image in zip(one[number].ids.tolist(), one[number].images, strict=True):
            if example_id != batching.PADDING:
                np.testing.assert_array_equal(image, by_id[example_id])
    again = dict(zip(other[1].ids.tolist(), other[1].images, strict=True))
    differ = [not np.array_equal(again[example_id], by_id[example_id]) for example_id in by_id]
    assert np.mean(differ) > 0.9


def test_the_inceptions_evaluate_on_all_of_the_width(source):
    fields = {"seed": None, "count": 3}
    square, whole = batches_of(source, **fields), batches_of(source, **fields, is_inception=True)
    assert (square[0].images != whole[0].images).any()


@pytest.mark.parametrize("workers", [0, 2])
def test_iterating_is_in_order_from_any_number_on(workers, source):
    batches = batches_of(source)
    found = list(stream.iterate([batches], 4, workers))
    assert len(found) == 5
    for number, batch in enumerate(found, start=4):
        assert_same(batch, batches[number])


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_stay_what_they_are_however_many_are_held(workers, source):
    first, second = batches_of(source, count=2 * stream.AHEAD), batches_of(source, seed=None)
    found = list(stream.iterate([first, second], 0, workers))
    expected = [batches[i] for batches in (first, second) for i in range(len(batches))]
    for batch, other in zip(found, expected, strict=True):
        assert_same(batch, other)


@pytest.mark.skipif(sys.platform != "linux", reason="slots need memfd_create")
def test_batches_that_are_let_go_leave_their_memory_to_others(source):
    batches = batches_of(source, count=4 * stream.AHEAD)
    iterator = stream.iterate([batches], 0, 1)
    places = {batch.images.ctypes.data for batch in iterator}
    assert 1 <= len(places) <= stream.AHEAD


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(workers, source):
    split = dataclasses.replace(source.train, parse=_cut)
    with pytest.raises(UserError, match=r"record \d+ of imagenet2012's train split, in .*decode"):
        list(stream.iterate([batches_of(source, split=split)], 0, workers))


def _cut(record):
    return b"\xff\xd8 no more", 0


@pytest.mark.parametrize("label", [-1, 1000])
def test_a_label_of_no_class_is_refused(label, source):
    parse = source.train.parse
    split = dataclasses.replace(source.train, parse=lambda record: (parse(record)[0], label))
    with pytest.raises(UserError, match=rf"the label is {label}; it must be in \[0, 1000\)"):
        batches_of(source, split=split)[0]


@pytest.mark.ci
def test_workers_leave_signals_alone_and_end_with_the_iterator(source):
    iterator = stream.iterate([batches_of(source, count=500)], 0, 2)
    next(iterator)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    for _ in range(20):
        next(iterator)
    assert all(worker.is_alive() for worker in workers)
    iterator.close()
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.ci
def test_workers_that_begin_leave_signals_alone_too(source):
    begun = threading.Event()

    def pester():
        while not begun.wait(0.02):
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGTERM)

    pestering = threading.Thread(target=pester)
    iterator = stream.iterate([batches_of(source, count=500)], 0, 2)
    pestering.start()
    try:
        for _ in range(8):
            next(iterator)
    finally:
        begun.set()
        pestering.join()
        iterator.close()


@pytest.mark.ci
def test_workers_end_when_their_parent_is_killed(source):
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    parent = context.Process(target=_iterate_and_wait, args=(sender,))
    parent.start()
    worker = receiver.recv()
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    deadline = time.monotonic() + 10
    while _is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(worker)


def _iterate_and_wait(sender):
    source = fake.open_source("digits")
    iterator = stream.iterate([batches_of(source, count=500)], 0, 1)
    next(iterator)
    (worker,) = multiprocessing.active_children()
    sender.send(worker.pid)
    time.sleep(60)


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_the_default_is_a_worker_for_each_core(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    none_named = base().data
    assert stream.workers_of(none_named) == 6
    assert stream.workers_of(ConfigDict({"workers": 0})) == 0
    monkeypatch.setattr(os, "cpu_count", lambda: 240)
    assert stream.workers_of(none_named) == 64


@pytest.mark.parametrize("name", fake.INFOS)
def test_made_up_examples_have_the_data_sets_shapes(name):
    source = fake.open_source(name)
    for split, count in ((source.train, source.info.num_train), (source.test, None)):
        assert count in (None, split.count)
        for record in split.fetch([0, 7]):
            encoded, label = split.parse(record)
            image = decode_image(encoded, source.info.image_shape[-1])
            assert image.shape == source.info.image_shape
            assert 0 <= label < source.info.num_classes
            assert encoded == split.parse(record)[0]
    assert source.train.parse(0)[0] != source.test.parse(0)[0]


def test_made_up_examples_of_an_unknown_set():
    with pytest.raises(UserError, match=r"config.data.name is 'x'; it must be one of digits, .*"):
        fake.describe("x")


def test_made_up_digits_fit_in_memory():
    config = base().data
    config.update(name="digits", fake=True, examples=20)
    dataset = data.load(config)
    assert dataset.train.images.shape == (20, 8, 8, 1)
    assert data.describe(config) == dataset.info
    assert dataset.train.images.std() > 50


@pytest.mark.parametrize(
    ("name", "examples", "counts"),
    [
        ("imagenet2012", None, (1024, 256)),
        ("cifar10", None, (1024, 256)),
        ("digits", None, (1500, 297)),
        ("imagenet2012", 1_281_167, (1_281_167, 50_000)),
        ("imagenet2012", 64, (64, 64)),
    ],
)
def test_made_up_sets_are_small_unless_asked(name, examples, counts, caplog):
    config = base().data
    config.update(name=name, fake=True, examples=examples)
    info = data.describe(config)
    assert (info.num_train, info.num_test) == counts
    with caplog.at_level(logging.INFO, "rethink_jax"):
        source = data.open_source(config)
    assert source.info == info
    assert (source.train.count, source.test.count) == counts
    training, test = map("{:,}".format, counts)
    assert f"{name}: {training} training and {test} test images, made up" in caplog.text


def test_more_made_up_examples_than_the_set_has():
    with pytest.raises(UserError, match=r"config.data.examples is 1501; it must be in \[1, 1500\]"):
        fake.describe("digits", 1501)


def test_images_are_converted_to_the_channels_that_are_asked_for():
    config = base().data
    config.update(name="digits", fake=True, examples=20, channels=3)
    assert data.load(config).train.images.shape == (20, 8, 8, 3)
    assert data.describe(config).image_shape == (8, 8, 3)
