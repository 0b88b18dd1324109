import gc
import pickle
import sys

import jax
import numpy as np
import pytest

from rethink_jax.pipeline.shared_buffers import Slots

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs memfd_create")
SHAPE = (4, 24, 24, 3)


@pytest.fixture
def slots():
    made = Slots(2, 3, SHAPE)
    yield made
    made.close()


def test_each_worker_takes_its_own_and_no_more_than_it_has(slots):
    assert [slots.take(1) for _ in range(4)] == [3, 4, 5, None]
    assert [slots.take(0) for _ in range(4)] == [0, 1, 2, None]


def test_a_copy_has_the_same_memory(slots):
    copy = pickle.loads(pickle.dumps(slots))
    for place in (copy.take(0), copy.take(1)):
        copy.array(place)[...] = place + 1
    assert slots.take(0) == 1
    for place in (0, 3):
        np.testing.assert_array_equal(slots.array(place), np.full(SHAPE, place + 1, np.uint8))


def test_a_place_is_free_when_the_last_view_is_gone(slots):
    place = slots.take(0)
    array = slots.array(place, lent=True)
    view = array.reshape(2, -1)[:, :5][1:]
    del array
    assert slots.take(0) == 1
    view[...] = 7
    assert slots.array(place).sum() == 7 * view.size
    del view
    assert slots.take(0) == place


def test_what_a_device_has_is_not_written_over(slots):
    slots.array(slots.take(0))[...] = 3
    on_device = jax.device_put(slots.array(0, lent=True)[1:])
    for _ in range(3):
        gc.collect()
        place = slots.take(0)
        if place is not None:
            slots.array(place)[...] = 9
    np.testing.assert_array_equal(on_device, np.full((3, *SHAPE[1:]), 3, np.uint8))


def test_arrays_outlive_the_slots():
    slots = Slots(1, 1, SHAPE)
    array = slots.array(slots.take(0), lent=True)
    slots.close()
    del slots
    array[...] = 5
    assert array.sum() == 5 * array.size
