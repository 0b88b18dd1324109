import json

import jax
import numpy as np
import pytest

from rethink_jax import config as config_lib, models
from rethink_jax.distributed import preemption
from rethink_jax.sweeps.estimates import estimate
from rethink_jax.theory import baum, capacity, capacity_report, fitting
from tests.config.test_config import load
from tests.conftest import use_devices
from tests.entry_point import ROOT
from tests.stopping import stop_when_shown
from tests.test_bad_input import assert_refused_at_once


def toy_config(**fields):
    config = config_lib.experiment("capacity", "toy")
    config.capacity.update({"widths": (1, 2, 4, 8), "draws": 2, "precision": 0.05, **fields})
    return config


@pytest.fixture
def planted(monkeypatch):
    """Has networks fit 5 random labels or 40 true ones a unit, draws apart; lists what was tried."""
    tried = []

    def fit(self, config, tasks, show):
        show(0.5)
        width, found = config.model.width, []
        for task in tasks:
            is_random = (task.labels != TRUE[0]).any()
            most = (5 if is_random else 40) * width + task.order[0] % 3
            found.append(fitting.Fit(max(0, task.size - int(most)), 10))
            tried.append((width, task.size))
        return found

    monkeypatch.setattr(fitting.Trainer, "fit", fit)
    return tried


TRUE = []


@pytest.fixture(autouse=True)
def true_labels(toy):
    TRUE[:] = [toy.train.labels]


def test_the_largest_numbers_are_found(planted, from_toy, toy, tmp_path):
    summary = capacity.run(toy_config(), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    for one in summary["widths"]:
        for kind, each in (("random_labels", 5), ("true_labels", 40)):
            found, most = one[kind], each * one["width"]
            assert found["at_least"] == (most >= 300)
            for count in found["fitted"]:
                low = min(most, 300)
                assert count == 300 if most >= 300 else low / 1.05 <= count <= low + 2
            assert found["mean"] == np.mean(found["fitted"])
    assert summary["monotone"] == {"random_labels": True, "true_labels": True}
    assert summary["growth"]["random_labels"]["widths"] == [1, 2, 4, 8]
    assert summary["growth"]["true_labels"]["widths"] == [1, 2, 4]
    assert summary["probes"] == len(planted)
    assert {width for width, _ in planted} == {1, 2, 4, 8}
    title, columns, rows = capacity_report.short_table(summary)
    assert "fits in 10,000 steps, of 300 with 432 inputs and 5 classes" in title
    assert {len(columns)} == {len(row) for row in rows}
    assert rows[-1][3].startswith("≥ 300")
    sentences = capacity_report.verdict(summary)
    assert "more at each width" in sentences[0]
    assert sentences[2].endswith("and more true labels at 4 of 4 widths. It came out.")


@pytest.mark.parametrize("shown", [1, 2, 3, 7, 12])
def test_stopped_and_resumed(shown, planted, from_toy, tmp_path, monkeypatch):
    whole = capacity.run(toy_config(), tmp_path / "whole")
    at_once = [*planted]
    planted.clear()
    with monkeypatch.context() as patch:
        stop_when_shown(patch, shown)
        with pytest.raises(preemption.Stopped, match="SIGTERM: stopped; finished networks are"):
            capacity.run(toy_config(), tmp_path / "parts")
    resumed = capacity.run(toy_config(), tmp_path / "parts")
    assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    assert planted[-1] == at_once[-1]
    points = [
        json.loads((tmp_path / part / "points.json").read_text()) for part in ("whole", "parts")
    ]
    assert points[0]["probes"] == points[1]["probes"]


def test_toys_are_fitted(from_toy, toy, tmp_path):
    config = toy_config(widths=(1, 8), draws=1, steps=640, precision=0.5)
    config.capacity.learning_rate = 0.1
    narrow, wide = capacity.run(config, tmp_path)["widths"]
    assert 1 <= narrow["random_labels"]["mean"] < 20 < wide["random_labels"]["mean"] < 300
    assert (
        narrow["true_labels"]["mean"] < wide["random_labels"]["mean"] < wide["true_labels"]["mean"]
    )
    for one in (narrow, wide):
        config = config_lib.base()
        config.model.update(name="mlp", width=one["width"])
        params = jax.eval_shape(
            models.create(config.model, 5, "float32").init,
            jax.random.key(0),
            np.ones((1, 12, 12, 3)),
        )["params"]
        assert one["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_a_batch_that_devices_do_not_divide(planted, from_toy, tmp_path, monkeypatch):
    use_devices(monkeypatch, 4)
    summary = capacity.run(toy_config(widths=(1, 2), batch_size=7), tmp_path)
    assert summary["monotone"]["random_labels"]


def test_draws_have_examples_and_labels_of_their_own(planted, from_toy, toy, tmp_path, monkeypatch):
    tasks, original = [], fitting.Trainer.fit
    monkeypatch.setattr(
        fitting.Trainer,
        "fit",
        lambda self, config, given, show: (
            tasks.append(given) or original(self, config, given, show)
        ),
    )
    capacity.run(toy_config(widths=(2, 64)), tmp_path)
    random0, random1, true0, true1 = tasks[0]
    assert [len(task.seeds) for task in tasks[0]] == [16] * 4
    assert {len(task.seeds) for task in tasks[-1]} == {1}
    assert sorted(random0.order) == [*range(300)]
    assert (random0.order == true0.order).all()
    assert random0.seeds == true0.seeds
    assert not {*random0.seeds} & {*random1.seeds}
    assert (random0.order != random1.order).any()
    assert (random0.labels != random1.labels).any()
    assert (true0.labels == toy.train.labels).all()
    assert (true1.labels == toy.train.labels).all()
    assert 0.6 < np.mean(random0.labels != toy.train.labels) < 0.95


@pytest.mark.parametrize("width", [3, 4, 15, 16, 40])
def test_what_baum_s_construction_fits(width):
    """As many points of classes of equal size as it says, and not d more of each."""
    dimension, classes = 6, 4
    count = capacity_report.describe(width, dimension, classes, {})["baum"]
    rng = np.random.default_rng(0)
    for per_class, fits in ((count // classes, True), (count // classes + dimension, False)):
        labels = np.repeat(np.arange(classes), per_class)
        points = rng.integers(0, 256, (len(labels), dimension), np.uint8)
        units = baum.construct(points, labels).units if per_class else 0
        assert (units <= width) == fits


def entry(width, parameters, random, true, at_least=False):
    kinds = {
        kind: {"fitted": counts, "at_least": False, **estimate([*map(float, counts)])._asdict()}
        for kind, counts in (("random_labels", random), ("true_labels", true))
    }
    kinds["true_labels"]["at_least"] = at_least
    return {"width": width, "parameters": parameters, **kinds}


def test_slopes_by_numpy():
    widths = [
        entry(1, 100, [10, 14], [12, 20]),
        entry(2, 200, [25, 30], [80, 95]),
        entry(4, 400, [41, 66], [300, 300], at_least=True),
    ]
    growth = capacity_report.conclude(widths)["growth"]
    for kind, count in (("random_labels", 3), ("true_labels", 2)):
        parameters = [one["parameters"] for one in widths[:count]]
        fitted = np.array([one[kind]["fitted"] for one in widths[:count]])
        for name, x, y in (
            ("per_parameter", parameters, fitted),
            ("exponent", np.log(parameters), np.log(fitted)),
        ):
            slopes = [float(np.polyfit(x, own, 1)[0]) for own in y.T]
            expected = estimate(slopes)._asdict()
            assert growth[kind][name] == pytest.approx(expected)
        assert growth[kind]["widths"] == [one["width"] for one in widths[:count]]


def test_what_did_not_come_out():
    widths = [entry(1, 20, [10, 14], [12, 20]), entry(2, 30, [9, 12], [8, 8])]
    summary = {"widths": widths, **capacity_report.conclude(widths)}
    assert summary["monotone"] == {"random_labels": False, "true_labels": False}
    sentences = capacity_report.verdict(summary)
    assert "With random labels: not more at each width; " in sentences[0]
    assert sentences[2].endswith("more true labels at 1 of 2 widths. It did not come out.")
    alone = {"widths": widths[:1], **capacity_report.conclude(widths[:1])}
    assert capacity_report.verdict(alone)[0].endswith("too few widths for a slope.")


def test_the_config_file():
    config = load(ROOT / "configs" / "capacity.py").get_config()
    assert config.data.name == "mnist"
    assert config.data.examples is None
    assert config.capacity.widths == (1, 2, 4, 8, 16, 32, 64, 128, 256)
    smoke = load(ROOT / "configs" / "capacity.py").get_config("smoke")
    assert (smoke.data.name, smoke.capacity.draws) == ("digits", 2)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "--config.capacity.widths=(4,2)",
            "config.capacity.widths is (4, 2); it must be one or more rising whole numbers in [1, 2**20]",
        ),
        ("--config.capacity.widths=()", "config.capacity.widths is (); it must be one or more …"),
        (
            "--config.capacity.precision=0",
            "config.capacity.precision is 0.0; it must be in (0, 1]",
        ),
        ("--config.capacity.draws=0", "config.capacity.draws is 0; it must be in [1, 100]"),
        ("--config.epochs=3", "config.epochs is no field; config has capacity, …"),
    ],
)
def test_one_line_and_nothing_written(in_process, arguments, line, tmp_path):
    assert_refused_at_once(in_process, "capacity.py:smoke", arguments, line, tmp_path)
