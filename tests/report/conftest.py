"""Sweeps written by hand."""

import pytest

from tests.report.helpers import accuracies, write, write_sweep


@pytest.fixture
def table1(tmp_path):
    """Three seeds of one row, one and two of others, the rest failed, stopped, waiting or not there."""
    runs = [
        *(
            ("mlp1-random", seed, "finished", accuracies(train, 0.1, 0.11), {})
            for seed, train in enumerate((0.98, 0.99, 0.985))
        ),
        ("mlp3", 0, "finished", accuracies(1.0, 0.53), {}),
        ("mlp1", 0, "finished", accuracies(0.9994, 0.5107), {}),
        ("mlp1", 1, "failed", accuracies(0.3, 0.3), {}),
        ("alexnet", 0, "failed", None, {}),
        ("inception", 0, "stopped", accuracies(0.7, 0.6), {}),
        ("mlp3-random", 0, "not run yet", None, {}),
    ]
    return write_sweep(tmp_path / "table1", "table1", runs)


@pytest.fixture
def figure1bc(tmp_path):
    """The MLP fits later and later and not at p = 1; Inception at p = 0 and 0.5."""
    runs = []
    epochs = {"mlp1-p0.0": 20, "mlp1-p0.5": 30, "mlp1-p1.0": None}
    for row, fitted in (epochs | {"inception-p0.0": 8, "inception-p0.5": 20}).items():
        summary = accuracies(0.98, 0.25, 0.2) | {"epochs": 80.0, "epochs_to_fit_accuracy": None}
        runs.append((row, 0, "finished", summary | {"epochs_to_fit": fitted}, {}))
    return write_sweep(tmp_path / "figure", "figure1bc", runs)


@pytest.fixture
def two(tmp_path):
    """Two runs in directories of their own."""
    write(tmp_path / "a", "mlp3")
    write(tmp_path / "b", "mlp1")
    return [tmp_path / "a", tmp_path / "b"]
