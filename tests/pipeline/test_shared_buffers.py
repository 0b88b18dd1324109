import gc
import pickle
import sys

import jax
import numpy as np
import pytest

from rethink_jax.pipeline.shared_buffers import SharedBuffers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs memfd_create")
SHAPE = (4, 24, 24, 3)


@pytest.fixture
def buffers():
    made = SharedBuffers(2, 3, SHAPE)
    yield made
    made.close()


def test_each_worker_takes_its_own_and_no_more_than_it_has(buffers):
    assert [buffers.acquire(1) for _ in range(4)] == [3, 4, 5, None]
    assert [buffers.acquire(0) for _ in range(4)] == [0, 1, 2, None]


def test_a_copy_has_the_same_memory(buffers):
    copy = pickle.loads(pickle.dumps(buffers))
    for place in (copy.acquire(0), copy.acquire(1)):
        copy.view(place)[...] = place + 1
    assert buffers.acquire(0) == 1
    for place in (0, 3):
        np.testing.assert_array_equal(buffers.view(place), np.full(SHAPE, place + 1, np.uint8))


def test_a_place_is_free_when_the_last_view_is_gone(buffers):
    place = buffers.acquire(0)
    array = buffers.view(place, free_after=True)
    view = array.reshape(2, -1)[:, :5][1:]
    del array
    assert buffers.acquire(0) == 1
    view[...] = 7
    assert buffers.view(place).sum() == 7 * view.size
    del view
    assert buffers.acquire(0) == place


def test_what_a_device_has_is_not_written_over(buffers):
    buffers.view(buffers.acquire(0))[...] = 3
    on_device = jax.device_put(buffers.view(0, free_after=True)[1:])
    for _ in range(3):
        gc.collect()
        place = buffers.acquire(0)
        if place is not None:
            buffers.view(place)[...] = 9
    np.testing.assert_array_equal(on_device, np.full((3, *SHAPE[1:]), 3, np.uint8))


def test_arrays_outlive_the_slots():
    buffers = SharedBuffers(1, 1, SHAPE)
    array = buffers.view(buffers.acquire(0), free_after=True)
    buffers.close()
    del buffers
    array[...] = 5
    assert array.sum() == 5 * array.size
