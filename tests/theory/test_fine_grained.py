import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from rethink_jax import config as config_lib, data
from rethink_jax.errors import UserError
from rethink_jax.theory import fine_grained, gram
from tests.config.test_config import load
from tests.entry_point import ROOT
from tests.test_bad_input import assert_refused_at_once

TRUE, RANDOM = fine_grained.TRUE, fine_grained.RANDOM


def small(name="toy", **fields):
    config = config_lib.experiment("fine_grained", name)
    config.fine_grained.update(
        {"sizes": (20, 60), "draws": 3, "widths": (), "classes": (3, 1), **fields}
    )
    return config


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The config file's own small run: its directory and summary."""
    path = tmp_path_factory.mktemp("fine_grained") / "run"
    config = load(ROOT / "configs" / "fine_grained.py").get_config("smoke")
    config.fine_grained.widths = (16,)
    return path, fine_grained.run(config, path)


def test_digits(digits):
    path, summary = digits
    assert json.loads((path / "summary.json").read_text()) == summary
    assert (path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [one["examples"] for one in summary["subsets"]] == [100, 200, 300]
    smallest, largest = summary["subsets"][0], summary["subsets"][-1]
    assert largest[TRUE] < smallest[TRUE]
    assert largest[RANDOM] > smallest[RANDOM]
    assert largest[RANDOM] > 5 * largest[TRUE]
    assert largest[RANDOM] == pytest.approx(largest["trace"], rel=0.05)
    assert largest["levels"][0]["test_error"] < 0.05 < largest["random_test_error"]
    assert largest["spectrum"][TRUE][1] > 0.9
    assert largest["spectrum"]["difference"] < 1e-6
    assert largest["residual"] < 1e-9
    assert [one["labels"] for one in summary["training"]["networks"]] == [TRUE, RANDOM]
    title, columns, rows = fine_grained.table(summary)
    assert title == "H∞ of classes 0 and 1: √(2 yᵀ(H∞)⁻¹y / n)"
    assert {len(columns)} == {len(row) for row in rows}


def test_examples_of_two_classes(toy):
    config = small()
    found = fine_grained._examples(config, toy)
    assert len(found.train) == 60
    labels = toy.train.labels[found.ids]
    assert {*labels.tolist()} == {1, 3}
    np.testing.assert_array_equal(found.labels[:, 0], np.where(labels == 1, 1, -1))
    expected = gram.unit_vectors(toy.train.images[found.ids], found.ids)
    np.testing.assert_array_equal(found.train, expected)
    chosen = np.isin(toy.test.labels, (1, 3))
    np.testing.assert_array_equal(found.test_labels, 2 * (toy.test.labels[chosen] == 1) - 1)
    assert found.test.shape == (chosen.sum(), 432)
    assert np.any(np.diff(found.ids) < 0)


def test_subsets_are_nested_and_so_are_levels(toy):
    large, few = (fine_grained._examples(small(sizes=(n,)), toy) for n in (100, 30))
    np.testing.assert_array_equal(large.ids[:30], few.ids)
    np.testing.assert_array_equal(large.labels[:30], few.labels)
    levels = large.labels[:, :11]
    for before, after in zip(levels.T, levels.T[1:], strict=False):
        drawn = before != levels[:, 0]
        np.testing.assert_array_equal(after[drawn], before[drawn])
    assert len({tuple(draw) for draw in large.labels[:, 10:].T}) == 1 + 3


def test_a_share_of_the_labels_is_drawn_again():
    labels, two_classes = (
        np.zeros(20_000, np.int32),
        data.DatasetInfo("two", 20_000, 1, (2, 2, 1), 2),
    )
    for level in (0.0, 0.3, 1.0):
        found = fine_grained._corrupted(labels, two_classes, "partially_corrupted_labels", level, 0)
        assert {*found.tolist()} <= {-1.0, 1.0}
        share = level / 2
        assert np.mean(found == 1) == pytest.approx(share, abs=4 * np.sqrt(share / 20_000) + 1e-9)


def test_what_a_subset_tells_by_a_plain_solve(toy, from_toy, tmp_path):
    summary = fine_grained.run(small(spectrum_up_to=20), tmp_path)
    assert summary["training"] is None
    examples = fine_grained._examples(small(), toy)
    for one, n in zip(summary["subsets"], (20, 60), strict=True):
        x, y = examples.train[:n], examples.labels[:n]
        h = gram.matrix(x, examples.ids)
        weights = np.linalg.solve(h, y)
        measure = np.sqrt(2 * np.einsum("nk,nk->k", y, weights) / n)
        assert one[TRUE] == pytest.approx(measure[0], rel=1e-6)
        assert one[RANDOM] == pytest.approx(measure[11:].mean(), rel=1e-6)
        assert one["trace"] == pytest.approx(np.sqrt(2 * np.trace(np.linalg.inv(h)) / n), rel=1e-6)
        values = gram.arc_cosine(examples.test @ x.T) @ weights
        errors = np.mean(np.sign(values) != examples.test_labels[:, None], axis=0)
        np.testing.assert_allclose([level["test_error"] for level in one["levels"]], errors[:11])
        assert one["random_test_error"] == pytest.approx(errors[11:].mean())
        assert one["spearman"] == pytest.approx(spearmanr(measure[:11], errors[:11]).statistic)
        assert ("spectrum" in one) == (n <= 20)
    assert [row[0] for row in fine_grained.spectrum_table(summary)[2]] == ["20"]


def test_test_errors_that_are_all_the_same_have_no_order():
    found = gram.Labels(np.arange(1.0, 15.0), np.zeros((5, 14)), 0.0)
    one = fine_grained.summarize_subset(found, np.full(14, 0.5), 1.0, None)
    assert one["spearman"] is None
    rows = fine_grained.table({"classes": [0, 1], "subsets": [one]})[2]
    assert rows[0][-2] == "—"


def test_equal_images_are_named_and_nothing_is_written(toy, tmp_path, monkeypatch):
    images = toy.train.images.copy()
    first, second = np.flatnonzero(toy.train.labels == 1)[:2]
    images[second] = images[first]
    twice = data.from_arrays((images, toy.train.labels), toy.test, "toy")
    monkeypatch.setattr(data, "describe", lambda _: twice.info)
    monkeypatch.setattr(data, "load", lambda _: twice)
    count = int(np.isin(toy.train.labels, (1, 3)).sum())
    with pytest.raises(UserError, match=r"are the same image but for brightness"):
        fine_grained.run(small(sizes=(count,)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "--config.fine_grained.classes=(1,1)",
            "config.fine_grained.classes is (1, 1); it must be two different classes, …",
        ),
        (
            "--config.fine_grained.classes=(0,10)",
            "config.fine_grained.classes is (0, 10); it must be two of digits's 10 classes, from 0 to 9",
        ),
        (
            "--config.fine_grained.sizes=(1,)",
            "config.fine_grained.sizes is (1,); it must be whole numbers in [2, 50000]",
        ),
        (
            "--config.fine_grained.sizes=(100,400)",
            "config.fine_grained.sizes is (100, 400); it must be at most 302, …",
        ),
        (
            "--config.fine_grained.trained_examples=400",
            "config.fine_grained.trained_examples is 400; it must be at most 302, …",
        ),
        (
            "--config.fine_grained.widths=(3,)",
            "config.fine_grained.widths is (3,); it must be even whole numbers in [2, 1000000], or ()",
        ),
        (
            "--config.fine_grained.draws=0",
            "config.fine_grained.draws is 0; it must be in [1, 1000]",
        ),
        (
            "--config.fine_grained.steps=0",
            "config.fine_grained.steps is 0; it must be in [1, 1000000]",
        ),
        (
            "--config.experiment=train",
            "config.experiment is 'train'; it must be one of fine_grained",
        ),
        ("--config.epochs=3", "config.epochs is no field; config has compilation_cache, …"),
    ],
)
def test_one_line_and_nothing_written(in_process, arguments, line, tmp_path):
    assert_refused_at_once(in_process, "fine_grained.py:smoke", arguments, line, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ratio"), [("mnist", 10), ("cifar10_jpeg", 1.6)])
def test_real_images(name, ratio, real_data, tmp_path):
    config = config_lib.experiment("fine_grained", name)
    config.data.data_dir = str(real_data)
    config.fine_grained.update(sizes=(1000, 2000, 4000), widths=(), spectrum_up_to=1000)
    subsets = fine_grained.run(config, tmp_path)["subsets"]
    assert subsets[-1][RANDOM] / subsets[-1][TRUE] >= ratio
    assert subsets[-1][TRUE] < subsets[0][TRUE]
    assert np.all(np.diff([one["random_draws"] for one in subsets], axis=0) > 0)
    for one in subsets:
        assert one[RANDOM] == pytest.approx(one["trace"], rel=0.02)
        assert one["spearman"] >= 0.98
    assert subsets[0]["spectrum"]["difference"] < 1e-6
