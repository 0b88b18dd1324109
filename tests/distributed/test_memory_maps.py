import gc

import jax
import numpy as np
import pytest

from rethink_jax.distributed import memory_maps
from rethink_jax.training import load, train
from tests.training.test_train import assert_same_run, mlp_config

pytestmark = pytest.mark.skipif(
    not memory_maps._MOST.exists(), reason="only Linux counts a process's memory maps"
)


def test_programs_of_many_recipes_are_dropped(toy, tmp_path, monkeypatch):
    """Each width is a program of its own; the first one's run can be resumed after its program is gone."""
    jax.clear_caches()  # other tests' programs, which the first drop would take with it
    gc.collect()
    train.run(mlp_config(epochs=4), tmp_path / "whole", toy)
    train.run(mlp_config(epochs=2), tmp_path / "parts", toy)
    most = tmp_path / "most"
    monkeypatch.setattr(memory_maps, "_MOST", most)
    most.write_text(f"{2 * memory_maps._count()}\n")
    counts = []
    for width in range(40, 52):
        config = mlp_config(epochs=1)
        config.model.width = width
        train.run(config, tmp_path / str(width), toy)
        counts.append(memory_maps._count())
    assert np.diff(counts).min() < 0
    assert max(counts) < 2 * counts[0]
    train.run(mlp_config(epochs=4), tmp_path / "parts", toy)
    assert_same_run(load.load_run(tmp_path / "whole"), load.load_run(tmp_path / "parts"))


@pytest.mark.parametrize(
    ("processes", "most", "drops"), [(1, 10, False), (2, 0, False), (1, 0, True)]
)
def test_when_programs_are_dropped(processes, most, drops, tmp_path, monkeypatch):
    """Not where there are few, and not among several processes, which must compile alike."""
    dropped = []
    monkeypatch.setattr(jax, "clear_caches", lambda: dropped.append(True))
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    monkeypatch.setattr(memory_maps, "_MOST", tmp_path / "most")
    (tmp_path / "most").write_text(f"{most * memory_maps._count() + 1}\n")
    memory_maps.drop_if_many()
    assert bool(dropped) == drops
