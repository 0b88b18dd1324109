import numpy as np
import pytest

from rethink_jax import config as config_lib, data
from rethink_jax.errors import UserError
from rethink_jax.pipeline import inputs
from rethink_jax.runs.resolve import resolve
from rethink_jax.theory import baum, expressivity, theorem1
from tests.config.test_config import load
from tests.entry_point import ROOT
from tests.test_bad_input import assert_refused_at_once

FLOAT64, FLOAT32 = np.dtype("float64"), np.dtype("float32")


def draw(n, d, classes, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 256, (n, d), dtype=np.uint8)
    return points, rng.integers(0, classes, n, dtype=np.int32)


def by_the_formula(network, points):
    """Σ_p k (σ(r + 2ε) − σ(r + ε) − σ(r − ε) + σ(r − 2ε)) / ε, one point and one plane after the other."""
    outputs = []
    for x in points.astype(np.float64):
        output = 0.0
        for w, b, v in zip(*network, strict=True):
            width = b[1] + 1
            r, height = w @ x - 1, v[0] * width
            bends = [r + 2 * width, r + width, r - width, r - 2 * width]
            first, second, third, fourth = (max(bend, 0) for bend in bends)
            output += height * (first - second - third + fourth) / width
        outputs.append(output)
    return np.array(outputs)


@pytest.mark.parametrize("classes", [2, 10])
def test_every_point_is_right(classes):
    points, labels = draw(500, 20, classes)
    network = baum.construct(points, labels)
    planes = np.ceil(np.bincount(labels)[1:] / 20).sum()
    assert (network.units, network.size) == (4 * planes, planes * (20 + 4 + 4))
    outputs = baum.run(network, points)
    assert outputs.dtype == FLOAT64
    np.testing.assert_allclose(outputs, labels, atol=1e-6)
    assert baum.run(network, points, FLOAT32).dtype == FLOAT32


def test_planes_by_a_plain_solve():
    """As many positives as dimensions, twice: each plane is the only one through its points."""
    points, labels = draw(100, 20, 2)
    labels[:] = 0
    positives = np.arange(10, 50)
    labels[positives] = 1
    network = baum.construct(points, labels)
    for w, group in zip(network.w, (positives[:20], positives[20:]), strict=True):
        solved = np.linalg.solve(points[group].astype(float), np.ones(20))
        np.testing.assert_allclose(w, solved, rtol=1e-9)


def test_fewer_points_than_dimensions_have_the_shortest_plane():
    points, labels = draw(40, 30, 2)
    labels[:] = np.arange(40) < 12
    x = points[:12].astype(float)
    shortest = x.T @ np.linalg.solve(x @ x.T, np.ones(12))
    np.testing.assert_allclose(baum.construct(points, labels).w, shortest[None], rtol=1e-9)


def test_output_is_the_formulas():
    points, labels = draw(200, 15, 4)
    network = baum.construct(points, labels)
    others = np.concatenate([points, draw(100, 15, 2, seed=1)[0]])
    np.testing.assert_allclose(
        baum.run(network, others), by_the_formula(network, others), atol=1e-6
    )


def test_a_bump_is_as_wide_as_rounding_allows():
    points, labels = draw(60, 10, 2)
    network = baum.construct(points, labels)
    residuals = np.abs(points.astype(float) @ network.w.T - 1)
    for column, b in zip(residuals.T, network.b, strict=True):
        nearest = np.sort(column[column > 1e-9])[0]
        np.testing.assert_allclose(b + 1, nearest / 3 * np.array([2, 1, -1, -2]), rtol=1e-6)


def test_runs_in_blocks(monkeypatch):
    points, labels = draw(300, 12, 3)
    network = baum.construct(points, labels)
    whole = baum.run(network, points)
    monkeypatch.setattr(baum, "_BLOCK", 1000)
    np.testing.assert_allclose(baum.run(network, points), whole, atol=1e-7)
    np.testing.assert_allclose(baum.construct(points, labels).b, network.b, rtol=1e-7)


def test_theorem_1_in_the_same_form():
    points, labels = draw(150, 8, 10)
    network = baum.of_theorem1(points, labels, seed=3)
    assert (network.units, network.size) == (150, 2 * 150 + 8)
    theirs = theorem1.run(theorem1.construct(points, labels, 3), points)
    np.testing.assert_allclose(baum.run(network, points), theirs, atol=1e-8)


def test_equal_points_of_two_labels_are_named():
    points, labels = draw(50, 10, 2)
    points[31], labels[31], labels[4] = points[4], 1, 0
    line = r"^points 4 and 31 are equal and have the labels 0 and 1; no function has two values"
    with pytest.raises(UserError, match=line):
        baum.construct(points, labels)


def test_equal_points_of_one_label_are_one_point():
    points, labels = draw(50, 10, 2)
    points[31], labels[31], labels[4] = points[4], 1, 1
    np.testing.assert_allclose(baum.run(baum.construct(points, labels), points), labels, atol=1e-6)


def test_dependent_points_get_planes_of_their_own():
    points, labels = draw(120, 10, 2)
    points[:, 3:6] = 0  # seven dimensions are left
    network = baum.construct(points, labels)
    assert network.units == 4 * np.ceil(labels.sum() / 7)
    np.testing.assert_allclose(baum.run(network, points), labels, atol=1e-6)


def test_points_that_are_in_no_general_position():
    points = np.array([[1, 3], [2, 2], [3, 1], [9, 5]], np.uint8)
    line = r"^the points are not in general position: \|w·x − 1\| of a plane is 0.0e\+00 at a point"
    with pytest.raises(UserError, match=line):
        baum.construct(points, np.array([1, 0, 1, 0]))
    with pytest.raises(UserError, match=r"^point 2 is 0 everywhere; no plane w·x = 1 has it"):
        baum.construct(np.array([[1, 3], [2, 2], [0, 0]], np.uint8), np.array([0, 0, 1]))


def test_one_class_needs_no_plane():
    points, _ = draw(20, 5, 2)
    network = baum.construct(points, np.zeros(20, np.int32))
    assert network.units == 0
    np.testing.assert_array_equal(baum.run(network, points), np.zeros(20))


# The experiment.


def test_smoke_is_the_digits(tmp_path, capsys):
    config = load(ROOT / "configs" / "baum.py").get_config("smoke")
    networks = expressivity.run(config, tmp_path)["networks"]
    assert "Baum's construction: 1,500 points in 64 dimensions" in capsys.readouterr().out
    assert [found["wrong_float64"] for found in networks.values()] == [0, 0, 0]
    assert networks["theorem1"]["units"] == 1500
    for kind in ("two_classes", "all_classes"):
        assert networks[kind]["baum_units"] <= networks[kind]["units"] < 150


def test_points_are_the_central_crop_and_labels_those_of_a_training_run(toy, from_toy, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    split = (images, rng.integers(0, 5, 30))
    large = data.from_arrays(split, split, "large")
    config = config_lib.experiment("expressivity", "toy")
    config.theorem.construction = "baum"
    points, _ = expressivity._points(config, large.info, large)
    np.testing.assert_array_equal(points, images[:, 2:30, 2:30].reshape(30, -1))
    summary = expressivity.run(config, tmp_path)
    resolved, _ = resolve(config_lib.train("toy", "random_labels"), toy)
    labels = inputs.prepare(resolved, toy).train.labels
    assert summary["networks"]["all_classes"]["labels_above_0"] == (labels > 0).sum()


def test_synthetic_points(tmp_path):
    config = config_lib.experiment("expressivity", "synthetic")
    config.synthetic.update(points=200, dimension=10, classes=3)
    config.theorem.construction = "baum"
    summary = expressivity.run(config, tmp_path)
    assert (summary["points"], summary["dimension"]) == (200, 10)
    assert summary["networks"]["two_classes"]["wrong_float64"] == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "--config.theorem.construction=cover",
            "config.theorem.construction is 'cover'; it must be one of theorem1, baum",
        ),
        (
            "--config.theorem.depth=3",
            "config.theorem.depth is 3; it must be left out for baum, it is for theorem1",
        ),
    ],
)
def test_one_line_and_nothing_written(in_process, arguments, line, tmp_path):
    assert_refused_at_once(in_process, "baum.py:digits", arguments, line, tmp_path)


@pytest.mark.slow
def test_all_images_of_cifar10(real_data, tmp_path):
    config = config_lib.experiment("expressivity", "cifar10_jpeg")
    config.data.data_dir, config.theorem.construction = str(real_data), "baum"
    networks = expressivity.run(config, tmp_path)["networks"]
    assert {found["wrong_float64"] for found in networks.values()} == {0}
    assert abs(networks["two_classes"]["units"] - 44) <= 1
    assert networks["all_classes"]["units"] == 108
