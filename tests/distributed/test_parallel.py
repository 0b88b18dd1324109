import pytest

from rethink_jax.distributed import parallel


@pytest.mark.parametrize(
    ("started", "members", "used"),
    [(None, 1, None), (None, 6, None), (1, 1, 1), (1, 3, 3), (1, 9, 4)],
)
def test_a_device_for_each_member(started, members, used, monkeypatch):
    """Of the four that tests have; a number that the user gave stays."""
    monkeypatch.setattr(parallel, "_used", started)
    with parallel.use_cpu_devices_for(members):
        assert parallel._used == used
    assert parallel._used == started
