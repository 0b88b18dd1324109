"""The experiment that judges measures: what is trained, what is measured of it, and that it resumes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rethink_jax import config as config_lib, data, models
from rethink_jax.distributed import preemption
from rethink_jax.errors import RunFailed, UserError
from rethink_jax.pipeline import inputs
from rethink_jax.theory import judged, judged_report, measures, ranking
from rethink_jax.training import load, train
from tests.conftest import use_devices
from tests.stopping import stop_when_shown
from tests.test_bad_input import assert_refused_at_once

LEFT_OUT = "width32-depth1-rate0.0001-decay0"


def small_config(**fields):
    config = config_lib.experiment("measures", "digits")
    config.data.examples = 128
    config.measures.update(
        widths=(32, 64), depths=(1, 2), learning_rates=(0.0001, 0.05), weight_decays=(0.0,), seeds=1
    )
    quick = {"stop_at_loss": 0.06, "epochs": 150, "batch_size": 32, "evaluate.every_epochs": 5}
    config.update_from_flattened_dict({**quick, **fields})
    return config


@pytest.fixture(scope="module")
def digits():
    return data.load(small_config().data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of an undisturbed run."""
    path = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 2)
        judged.run(small_config(), path)
    return path


@pytest.fixture(scope="module")
def summary(whole):
    return json.loads((whole / "summary.json").read_text())


def test_networks_are_trained_to_one_loss_or_left_out(whole, summary):
    fitted = {point["name"] for point in summary["points"]}
    assert len(fitted) + len(summary["left_out"]) == summary["networks"] == 16
    assert f"{LEFT_OUT}-random_labels-seed0" in summary["left_out"]
    assert all("rate0.0001" in name for name in summary["left_out"])
    assert summary["fitted"] == {"true_labels": 4, "random_labels": 4}
    for place in (whole / "runs").iterdir():
        if place.is_dir():
            run = load.load_run(place)
            *before, last = [record["train_loss"] for record in run.metrics]
            assert min(before) > 0.06
            assert (last <= 0.06) is (place.name in fitted)
            assert run.config.corruption.name in place.name
            assert f"width{run.config.model.width}-depth{run.config.model.depth}-" in place.name


def test_what_is_measured_of_a_network(whole, summary, digits):
    (point,) = [p for p in summary["points"] if p["name"].startswith("width64-depth2-rate0.05")][:1]
    run = load.load_run(whole / "runs" / point["name"])
    labels = inputs.corrupt_labels(run.config.corruption, "train", digits.train.labels, digits.info)
    x = (digits.train.images / 1.0).reshape(128, -1)
    x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    for i in range(3):
        layer = run.params[f"Dense_{i}"]
        x = (np.maximum(x, 0) if i else x) @ layer["kernel"] + layer["bias"]
    margin = np.percentile(measures.margins(x, labels), 10)
    assert point["margin"] == pytest.approx(margin, rel=1e-3)
    singular = [np.linalg.svd(run.params[f"Dense_{i}"]["kernel"])[1][0] for i in range(3)]
    expected = np.prod(singular) / margin / np.sqrt(128)
    assert point["spectral"] == pytest.approx(expected, rel=1e-3)
    assert point["gap"] == run.summary["train_accuracy"] - run.summary["test_accuracy"]
    assert point["flatness"] == pytest.approx(1 / point["sigma"] / np.sqrt(128))
    assert point["alpha"] < point["sigma"]
    ratio = point["distance_over_sigma"] * 2 / point["flatness"]
    assert ratio == pytest.approx(point["distance"] * np.sqrt(128))


def test_the_start_is_that_of_training(whole, digits, tmp_path):
    """A run of one step and almost no rate ends where it began."""
    name = f"{LEFT_OUT}-true_labels-seed0"
    config = load.load_run(whole / "runs" / name).config
    config.update_from_flattened_dict({"optimizer.learning_rate": 1e-12, "steps": 1})
    train.run(config, tmp_path, digits)
    ended = load.load_run(tmp_path).params
    model = models.create(config.model, digits.info.num_classes, config.dtype)
    images = jnp.zeros((1, *digits.info.image_shape))
    start = judged._initialize(model, judged.key_of(config.seed), images)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), ended, start)


def test_ranks_are_those_of_the_points(summary):
    true = [point for point in summary["points"] if point["labels"] == "true_labels"]
    gaps = np.array([point["gap"] for point in true])
    for name in judged_report.MEASURES:
        values = np.array([point[name] for point in true])
        own = summary["measures"][name]
        assert own["tau"]["value"] == ranking.kendall_tau(values, gaps)
        assert own["levels"]["true_labels"]["mean"] == pytest.approx(values.mean())
        random = [p[name] for p in summary["points"] if p["labels"] == "random_labels"]
        assert own["ratio"] == pytest.approx(np.mean(random) / values.mean())
        assert [own["psi"][axis]["value"] is None for axis in ("learning_rates", "weight_decays")]
    environments = summary["measures"]["distance"]["environments"]
    assert {*environments} == {"widths 32 to 64", "depths 1 to 2"}
    psi = summary["measures"]["parameters"]["psi"]
    assert {axis: value["value"] is None for axis, value in psi.items()} == {
        "widths": False,
        "depths": False,
        "learning_rates": True,
        "weight_decays": True,
    }


def test_random_labels_have_larger_measures(summary):
    own = summary["measures"]
    assert own["parameters"]["ratio"] == 1
    for name in ("distance", "spectral_distance", "distance_over_sigma"):
        assert own[name]["ratio"] > 1
    assert summary["gap"]["random_labels"]["mean"] > summary["gap"]["true_labels"]["mean"]


def test_sentences(summary):
    sentences = judged_report.conclude(summary)
    assert len(sentences) == 3
    assert LEFT_OUT in sentences[2]
    own = summary["measures"]
    level = {"mean": 1.0, "low": 0.9, "high": 1.1}
    planted = {name: {**one, "Psi": {"value": 0.1}} for name, one in own.items()}
    for name in ("spectral", "spectral_distance", "distance_over_sigma"):
        levels = {"true_labels": level, "random_labels": {"mean": 2.5, "low": 2.0, "high": 3.0}}
        planted[name] = {**planted[name], "levels": levels, "ratio": 2.5}
    for name in ("sharpness", "flatness"):
        planted[name] = {**planted[name], "Psi": {"value": 0.5}}
    told = judged_report.conclude({**summary, "measures": planted, "left_out": []})
    assert ["this came out" in sentence for sentence in told] == [True, True]
    planted["flatness"]["Psi"] = {"value": 0.05}
    planted["distance_over_sigma"]["ratio"] = 1.9
    told = judged_report.conclude({**summary, "measures": planted, "left_out": []})
    assert ["this did not come out" in sentence for sentence in told] == [True, True]


def test_the_same_command_again(whole, summary, capsys):
    assert judged.run(small_config(), whole) == summary
    assert "8 settings of mlp × 1 seeds, 128 examples" in capsys.readouterr().out
    for field, value in (("epochs", 151), ("stop_at_loss", 0.05), ("measures.seeds", 2)):
        with pytest.raises(UserError, match=rf"another config \(config.{field} .* → {value}\)"):
            judged.run(small_config(**{field: value}), whole)


def test_resumes_where_it_was_stopped(whole, summary, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_when_shown(patch, 3)
        with pytest.raises(preemption.Stopped):
            judged.run(small_config(), tmp_path)
    assert not (tmp_path / "summary.json").exists()
    saved = json.loads((tmp_path / "points.json").read_text())["networks"]
    assert len(saved) == 3
    taken = []
    measure = judged._measure
    monkeypatch.setattr(judged, "_measure", lambda *a: taken.append(a[0]) or measure(*a))
    times = {"seconds": 0, "seconds_of_measures": 0}
    assert judged.run(small_config(), tmp_path) | times == summary | times
    assert len(taken) == 5


def test_nothing_to_compare(tmp_path):
    config = small_config(epochs=1)
    config.measures.update(widths=(8,), depths=(1,))
    with pytest.raises(RunFailed, match=r"0 networks reached a loss of 0.06 on true_labels"):
        judged.run(config, tmp_path)


@pytest.mark.parametrize(
    ("field", "shown", "allowed"),
    [
        ("stop_at_loss=0.1", "0.1", "in (0, 0.06]"),
        ("measures.widths=()", "()", "whole numbers in [1, 2**20]"),
        ("measures.widths=(8,8)", "(8, 8)", "different numbers"),
        ("measures.weight_decays=(1.0,)", "(1.0,)", "numbers in [0, 1)"),
        ("measures.learning_rates=(0.0,)", "(0.0,)", "numbers above 0"),
        ("measures.seeds=0", "0", "in [1, 1000]"),
        ("model.name=small_alexnet", "'small_alexnet'", "mlp; the norms are those of its layers"),
        ("data.stream=true", "True", "False for measures"),
        ("evaluate.examples=9", "9", "left out: all examples are needed"),
        ("augment.random_crop=true", "True", "False for measures: margins are of one view"),
    ],
)
def test_one_line_and_nothing_written(field, shown, allowed, in_process, tmp_path):
    line = f"config.{field.partition('=')[0]} is {shown}; it must be {allowed}"
    assert_refused_at_once(in_process, "measures.py:smoke", f"--config.{field}", line, tmp_path)


@pytest.mark.parametrize("field", ["corruption.name=random_labels", "model.width=8"])
def test_what_the_networks_differ_in_is_not_for_all(field, in_process, tmp_path):
    line = f"run width32-depth1-rate0.03-decay0-true_labels: config.{field.partition('=')[0]} is …"
    assert_refused_at_once(in_process, "measures.py:smoke", f"--config.{field}", line, tmp_path)
