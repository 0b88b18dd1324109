import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from etils import epath
from hypothesis import given, strategies as st
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from rethink_jax.runs import writers
from rethink_jax.training import loop, metrics


def record(epoch, train_loss=1.0, train_accuracy=0.5, test_accuracy=0.25, **more):
    return {
        "epoch": epoch,
        "step": round(10 * epoch),
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "test_loss": 2.0,
        "test_accuracy": test_accuracy,
        **more,
        "seconds": 1.5 * epoch,
        "images_per_second": 1234.4,
        "learning_rate": 0.01,
    }


HISTORY = [
    record(1.0, 0.5, 0.9, 0.30),
    record(2.0, 0.05, 0.998, 0.45),
    record(3.0, 0.049, 0.9989, 0.45),
    record(4.0, 0.01, 0.999, 0.40),
    record(5.0, 0.06, 0.998, 0.10),
]


# Sums.


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
)
def test_from_sums_against_numpy(sizes, per_dispatch, true_labels, counts_top5):
    """Batches of unequal sizes count by their examples."""
    rng = np.random.default_rng(sum(sizes))
    n = sum(sizes)
    losses = rng.integers(0, 100, (2, n)).astype(np.float32) / 8
    counted = {"correct": rng.integers(0, 2, (2, n))}
    if counts_top5:
        counted["top5"] = rng.integers(0, 2, (2, n))
    batches = np.split(np.arange(n), np.cumsum(sizes)[:-1])
    sums = []
    for start in range(0, len(batches), per_dispatch):
        part = batches[start : start + per_dispatch]
        names = ("", "_true")
        sums.append(
            {"count": np.int32([len(ids) for ids in part])}
            | {
                f"loss{name}": np.float32([losses[i, b].sum() for b in part])
                for i, name in enumerate(names)
            }
            | {
                f"{kind}{name}": np.int32([hits[i, b].sum() for b in part])
                for kind, hits in counted.items()
                for i, name in enumerate(names)
            }
        )
    row = int(true_labels)
    expected = {"loss": losses[row].astype(np.float64).mean()}
    expected["accuracy"] = counted["correct"][row].mean()
    if counts_top5:
        expected["top5"] = counted["top5"][row].mean()
    assert metrics.from_sums(sums, true_labels) == pytest.approx(expected, rel=1e-12)


@given(st.integers(1, 40), st.integers(1, 3), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 99))
def test_kept_and_replaced_against_numpy(n, classes, share, seed):
    rng = np.random.default_rng(seed)
    true, answers = rng.integers(0, classes, (2, n))
    labels = np.where(rng.random(n) < share, rng.integers(0, classes, n), true)
    replaced = labels != true
    values = {
        "count": np.ones(n, np.int32),
        "replaced": replaced,
        "correct": answers == labels,
        "correct_replaced": replaced & (answers == labels),
        "correct_true": answers == true,
    }
    halves = [
        {name: np.int32([part.sum()]) for name, part in zip(values, parts, strict=True)}
        for parts in zip(*(np.array_split(column, 2) for column in values.values()), strict=True)
    ]
    expected = {}
    if replaced.any():
        expected = {
            "accuracy_replaced": np.mean((answers == labels)[replaced]),
            "accuracy_replaced_true": np.mean((answers == true)[replaced]),
        }
        if not replaced.all():
            expected["accuracy_kept"] = np.mean((answers == labels)[~replaced])
    assert metrics.from_replaced(halves) == expected


def test_sums_are_exact_beyond_float32_and_int32():
    big = 2**24
    part = {
        "count": np.int32([2**31 - 1, 2**31 - 1, 2]),
        "loss": np.float32([big, 1, 1]),
        "correct": np.int32([2**31 - 1, 1, 0]),
    }
    found = metrics.from_sums([part, part])
    assert found == {"loss": 2 * (big + 2) / 2**33, "accuracy": 0.25 * 2}
    assert all(type(value) is float for value in found.values())


def test_norms_of_weights_against_numpy():
    rng = np.random.default_rng(0)
    start = {
        "a": {"kernel": rng.normal(size=(3, 4)).astype(np.float32)},
        "b": np.zeros(5, np.float32),
    }
    params = {"a": {"kernel": 2 * start["a"]["kernel"]}, "b": np.ones(5, np.float32)}
    flat, before = (
        np.concatenate([tree["a"]["kernel"].ravel(), tree["b"]]).astype(np.float64)
        for tree in (params, start)
    )
    found = metrics.of_weights(params, start)
    assert found["weight_norm"] == pytest.approx(np.linalg.norm(flat), rel=1e-12)
    assert found["weight_distance"] == pytest.approx(np.linalg.norm(flat - before), rel=1e-12)
    assert metrics.of_weights(start, start)["weight_distance"] == 0


def test_norms_of_weights_are_exact_beyond_float32():
    huge = {"kernel": np.full((2, 2), 1e30, np.float32)}
    zero = {"kernel": np.zeros((2, 2), np.float32)}
    assert metrics.of_weights(huge, zero) == pytest.approx(
        {"weight_norm": 2e30, "weight_distance": 2e30}
    )


# Summary.


def test_summary():
    assert metrics.summarize(HISTORY, "finished", 123) == {
        "status": "finished",
        "parameters": 123,
        "epochs": 5.0,
        "steps": 50,
        "train_loss": 0.06,
        "train_accuracy": 0.998,
        "test_loss": 2.0,
        "test_accuracy": 0.10,
        "best_test_accuracy": 0.45,
        "best_test_epoch": 2.0,  # the first of two
        "epochs_to_fit": 3.0,  # 0.05 is not below 0.05
        "epochs_to_fit_accuracy": 4.0,
        "seconds": 7.5,
    }


def test_summary_of_a_run_that_never_fits():
    summary = metrics.summarize(HISTORY[:2], "stopped", 1)
    assert summary["status"] == "stopped"
    assert summary["epochs_to_fit"] is None
    assert summary["epochs_to_fit_accuracy"] is None


def test_summary_carries_the_norms_of_the_last_evaluation():
    history = [record(1.0, weight_norm=3.0), record(2.0, weight_norm=4.0, weight_distance=1.5)]
    summary = metrics.summarize(history, "finished", 1)
    assert (summary["weight_norm"], summary["weight_distance"]) == (4.0, 1.5)
    assert "weight_norm" not in metrics.summarize(HISTORY, "finished", 1)


def test_summary_carries_the_corrupted_metrics_of_the_last_evaluation():
    corrupted = {"test_loss_corrupted": 3.0, "test_accuracy_corrupted": 0.2}
    history = [
        record(1.0, **corrupted),
        record(2.0, **(corrupted | {"test_accuracy_corrupted": 0.1})),
    ]
    summary = metrics.summarize(history, "finished", 1)
    assert summary["test_loss_corrupted"] == 3.0
    assert summary["test_accuracy_corrupted"] == 0.1
    assert not any(
        name.endswith("_corrupted") for name in metrics.summarize(HISTORY, "finished", 1)
    )


def test_summary_has_the_best_top_5_and_those_of_the_last_evaluation():
    history = [
        record(1.0, test_accuracy=0.3, train_top5=0.7, test_top5=0.6, test_top5_corrupted=0.1),
        record(2.0, test_accuracy=0.2, train_top5=0.9, test_top5=0.8, test_top5_corrupted=0.2),
        record(3.0, test_accuracy=0.1, train_top5=0.8, test_top5=0.5, test_top5_corrupted=0.3),
    ]
    summary = metrics.summarize(history, "finished", 1)
    top5 = {name: value for name, value in summary.items() if "top5" in name}
    assert top5 == {
        "train_top5": 0.8,
        "test_top5": 0.5,
        "test_top5_corrupted": 0.3,
        "best_test_top5": 0.8,  # of another evaluation than the best accuracy
    }
    assert (summary["best_test_accuracy"], summary["best_test_epoch"]) == (0.3, 1.0)


def test_summary_of_no_evaluation():
    summary = metrics.summarize([], "stopped", 5)
    assert summary["epochs"] == summary["steps"] == summary["seconds"] == 0
    assert summary["train_accuracy"] is None
    assert summary["best_test_accuracy"] is None
    assert json.loads(json.dumps(summary)) == summary


# Writer.


def read_events(folder):
    """Every scalar of a folder's event files, as (name, step) -> values."""
    found = {}
    for file in folder.iterdir():
        content, position = file.read_bytes(), 0
        while position < len(content):
            # TFRecord: length, its checksum, the event, its checksum.
            (length,) = struct.unpack_from("<Q", content, position)
            event = Event.FromString(content[position + 12 : position + 12 + length])
            position += length + 16
            for value in event.summary.value:
                found.setdefault((value.tag, event.step), []).append(value.simple_value)
    return found


def expected_events(records):
    return {
        (name, line["step"]): [pytest.approx(value, rel=1e-6)]
        for line in records
        for name, value in line.items()
        if name not in ("epoch", "step")
    }


def read_lines(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_writer(tmp_path):
    path = epath.Path(tmp_path)
    writer = writers.MetricsWriter(path, [])
    assert read_lines(path) == []
    for i, line in enumerate(HISTORY):
        writer.write(line)
        # Readable at once, not only when the run ends.
        assert read_lines(path) == HISTORY[: i + 1]
        assert (path / "metrics.jsonl").read_text().endswith("}\n")
    writer.close()
    assert read_events(path / "tensorboard") == expected_events(HISTORY)


def test_a_resumed_run_is_written_once(tmp_path):
    """The checkpoint stands for two evaluations; the third and fourth come a second time."""
    path = epath.Path(tmp_path)
    writer = writers.MetricsWriter(path, [])
    for line in HISTORY[:4]:
        writer.write(line)
    writer.close()
    # Event files are named by the second: within one, the second writer would overwrite the first's.
    (events,) = (path / "tensorboard").iterdir()
    events.rename(events.with_name(events.name + ".before"))
    writer = writers.MetricsWriter(path, HISTORY[:2])
    assert read_lines(path) == HISTORY[:2]
    for line in HISTORY[2:]:
        writer.write(line)
    writer.close()
    assert read_lines(path) == HISTORY
    assert read_events(path / "tensorboard") == expected_events(HISTORY)
    assert sorted(file.name for file in path.iterdir()) == ["metrics.jsonl", "tensorboard"]


def test_event_files_need_no_torch(tmp_path):
    """tensorboardX imports PyTorch where it is installed, which takes seconds; others may still import it."""
    (tmp_path / "torch.py").write_text("print('imported')")
    program = "import rethink_jax.runs.writers; print('then'); import torch"
    search_path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": search_path},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["then", "imported"]


# Curves.


def colours(file):
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return {
        tuple(map(int, colour)): int(n)
        for colour, n in zip(*np.unique(pixels, axis=0, return_counts=True), strict=True)
    }


def test_curves(curves, tmp_path):
    file = epath.Path(tmp_path) / "curves.png"
    writers.draw_curves(HISTORY, 10, file)
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert 800 <= image.width <= 2000
        assert 300 <= image.height <= 1000
    blue, orange = (0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)
    found = colours(file)
    # Lines of some length, not only the legend's.
    assert found[blue] > 500
    assert found[orange] > 500
    writers.draw_curves(HISTORY, 2, epath.Path(tmp_path) / "other.png")
    assert (tmp_path / "other.png").read_bytes() != file.read_bytes()  # chance lies elsewhere


def test_curves_of_one_evaluation_and_of_none(curves, tmp_path):
    for history in (HISTORY[:1], []):
        file = epath.Path(tmp_path) / f"{len(history)}.png"
        writers.draw_curves(history, 10, file)
        with Image.open(file) as image:
            assert image.format == "PNG"


def test_stopwatch_counts_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    stopwatch = loop.Stopwatch(before=20.0)
    assert stopwatch.seconds() == 20
    now[0] += 2.5
    assert stopwatch.seconds() == 22.5
    assert loop.Stopwatch().seconds() == 0
