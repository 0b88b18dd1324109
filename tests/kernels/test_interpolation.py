import json

import numpy as np
import pytest
from scipy import linalg

from rethink_jax import data
from rethink_jax.distributed import preemption
from rethink_jax.errors import RunFailed, UserError
from rethink_jax.kernels import features, interpolation, matrix, session, solve
from rethink_jax.kernels.summary import table
from tests.data_helpers import kernel_config
from tests.entry_point import make_place
from tests.stopping import stop_when_shown
from tests.test_bad_input import assert_refused_at_once


def make(gammas=(0.1,), ridges=(0.0,), **solver):
    config = kernel_config("toy", gammas, ridges)
    config.solver.update(solver)
    return config


def read(path, name="summary.json"):
    return json.loads((path / name).read_text())


def exact_solution(toy, gamma, ridge):
    points, test = (s.images.reshape(len(s.labels), -1) / 255 for s in (toy.train, toy.test))

    def kernel(x, y):
        return np.exp(-gamma * np.square(x[:, None] - y).sum(axis=-1))

    matrix = kernel(points, points)
    targets = np.eye(5)[toy.train.labels]
    signs = 2 * targets - 1
    solve = linalg.inv(matrix + ridge * np.eye(len(points)))
    errors = (kernel(test, points) @ solve @ targets).argmax(axis=1) != toy.test.labels
    norms = [np.sqrt(((solve @ y) * (matrix @ solve @ y)).sum()) for y in (targets, signs)]
    return errors.mean(), *norms


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_against_numpy(ridge, from_toy, toy, tmp_path):
    summary = interpolation.run(make(ridges=(ridge,), tolerance=1e-9), tmp_path)
    assert summary == read(tmp_path)
    error, one_hot, signs = exact_solution(toy, 0.1, ridge)
    assert summary["test_error"] == error
    assert summary["norm_one_hot"] == pytest.approx(one_hot, rel=1e-4)
    assert summary["norm_signs"] == pytest.approx(signs, rel=1e-4)
    assert summary["residual_float64"] < 1e-6
    assert summary["train_error"] == 0
    assert read(tmp_path, "run.json")["num_train"] == 300


def test_float32(from_toy, toy, tmp_path):
    summary = interpolation.run(make(dtype="float32", rank=20), tmp_path)
    assert summary["test_error"] == exact_solution(toy, 0.1, 0.0)[0]
    assert summary["residual_float64"] < 2e-3


def test_gamma_and_ridge_are_chosen_on_a_held_out_part(from_toy, toy, tmp_path):
    config = make((1e-6, 0.01), (0.0, 100.0), tolerance=1e-6)
    summary = interpolation.run(config, tmp_path)
    log = read(tmp_path, "selection.json")["log"]
    assert [(entry["gamma"], entry["ridge"]) for entry in log] == [
        *((1e-6, 0.0), (1e-6, 100.0), (0.01, 0.0), (0.01, 100.0))
    ]
    for solution, tried in ((summary, log[::2]), (summary["with_ridge"], log[1::2])):
        best = min(tried, key=lambda entry: entry["error"])
        assert (solution["gamma"], solution["ridge"]) == (best["gamma"], best["ridge"])
        error, one_hot, _ = exact_solution(toy, best["gamma"], best["ridge"])
        assert solution["test_error"] == error
        assert solution["norm_one_hot"] == pytest.approx(one_hot, rel=1e-3)
    assert {entry["held_out"] for entry in log} == {60}
    assert len({entry["error"] for entry in log}) > 1


def test_wavelets_are_chosen_too(from_toy, tmp_path):
    config = make((1.0, 2.0), tolerance=1e-5)
    config.kernel.update(gamma_scale=True, selection_examples=100)
    config.features.update(name="gabor", orientations=2, wavelengths=((3.0,), (4.0,)), pools=(4,))
    summary = interpolation.run(config, tmp_path)
    log = read(tmp_path, "selection.json")["log"]
    assert [(entry["wavelengths"], entry["gamma"]) for entry in log] == [
        *(([3.0], 1.0), ([3.0], 2.0), ([4.0], 1.0), ([4.0], 2.0))
    ]
    assert {(entry["examples"], entry["held_out"]) for entry in log} == {(100, 60)}
    best = min(log, key=lambda entry: entry["error"])
    assert (summary["wavelengths"], summary["gamma"]) == (best["wavelengths"], best["gamma"])
    assert summary["dimension"] == 3 * 2 * 6 * 6


@pytest.fixture
def starts(monkeypatch):
    """The iterations that each solve begins with."""
    first_iterations, original = [], solve.conjugate_gradients

    def recording(*args):
        first_iterations.append(0 if args[-1] is None else args[-1].iterations)
        return original(*args)

    monkeypatch.setattr(solve, "conjugate_gradients", recording)
    return first_iterations


@pytest.mark.parametrize(
    ("part", "count", "solves"),
    [
        ("candidate 2 of 2", 1, [0, 0, 0]),
        ("choosing: solve", 3, [0, 0, 0, 0]),
        ("all examples: matrix", 1, [0, 0, 0]),
        ("all examples: solve", 3, [0, 0, 0, 3]),
    ],
)
def test_stopped_and_gone_on_with(part, count, solves, from_toy, tmp_path, monkeypatch, starts):
    config = make((0.1, 0.2), rank=10, tolerance=1e-9)
    with monkeypatch.context() as patch:
        stop_when_shown(patch, count, part)
        with pytest.raises(preemption.Stopped, match="SIGTERM: stopped; what is done is saved in"):
            interpolation.run(config, tmp_path / "parts")
    before = read(tmp_path / "parts", "seconds.json")["seconds"]
    parts = interpolation.run(config, tmp_path / "parts")
    assert parts["seconds"] > before > 0
    assert starts == solves
    whole = interpolation.run(config, tmp_path / "whole")
    for field in ("gamma", "test_error"):
        assert parts[field] == whole[field]
    assert parts["norm_one_hot"] == pytest.approx(whole["norm_one_hot"], rel=1e-6)
    log = [read(tmp_path / half, "selection.json") for half in ("parts", "whole")]
    assert log[0] == log[1]


def test_a_streamed_matrix_is_gone_on_with(from_toy, tmp_path, monkeypatch):
    """Stopped in the second of three parts, of which the first one was saved."""
    monkeypatch.setattr(features, "_FILTERS_PER_PART", 4)
    monkeypatch.setattr(session, "_SAVE_PRODUCTS_SECONDS", -1)
    config = make((1.0,), tolerance=1e-6)
    config.kernel.gamma_scale = True
    config.features.update(name="random_convolutions", filters=10)
    with monkeypatch.context() as patch:
        stop_when_shown(patch, 4, "all examples: matrix")
        with pytest.raises(preemption.Stopped):
            interpolation.run(config, tmp_path / "parts")
    assert (tmp_path / "parts" / "products.npz").exists()
    computed, of = [], matrix.InnerProducts.add
    with monkeypatch.context() as patch:
        patch.setattr(
            matrix.InnerProducts, "add", lambda self, *args: computed.append(of(self, *args))
        )
        parts = interpolation.run(config, tmp_path / "parts")
    assert len(computed) == 2
    assert not (tmp_path / "parts" / "products.npz").exists()
    whole = interpolation.run(config, tmp_path / "whole")
    assert whole["dimension"] == 80
    assert whole["residual_float64"] < 1e-5
    for field in ("test_error", "dimension"):
        assert parts[field] == whole[field]
    assert parts["norm_one_hot"] == pytest.approx(whole["norm_one_hot"], rel=1e-6)


def test_goes_on_with_more_iterations(from_toy, tmp_path, starts):
    config = make(rank=10, tolerance=1e-6, max_iterations=3)
    with pytest.raises(RunFailed, match=r"^the residual is \d.\de-\d\d after 3 iterations; set a"):
        interpolation.run(config, tmp_path)
    assert not (tmp_path / "summary.json").exists()
    config.solver.max_iterations = 2000
    summary = interpolation.run(config, tmp_path)
    assert starts == [0, 3]
    assert summary["iterations"] > 3
    config.solver.tolerance = 1e-9
    better = interpolation.run(config, tmp_path)
    assert starts == [0, 3, summary["iterations"]]
    assert better["residual"] <= 1e-9
    assert better["seconds"] > summary["seconds"]


@pytest.mark.parametrize(
    "damage", [lambda b: b"PK", lambda b: b[:-30], lambda b: b[:99] + b"x" + b[100:]]
)
def test_a_damaged_iterate_is_passed_over(damage, from_toy, tmp_path, starts):
    config = make(tolerance=1e-6)
    interpolation.run(config, tmp_path)
    (tmp_path / "summary.json").unlink()
    file = tmp_path / "solution.npz"
    file.write_bytes(damage(file.read_bytes()))
    interpolation.run(config, tmp_path)
    assert starts == [0, 0]


def test_a_candidate_that_cannot_be_solved_is_passed_over(from_toy, tmp_path):
    config = make((1e-9, 0.1), dtype="float32", rank=1, tolerance=1e-5, max_iterations=60)
    summary = interpolation.run(config, tmp_path)
    failed, good = read(tmp_path, "selection.json")["log"]
    assert failed["error"] is None
    assert "after 60 iterations" in failed["why"] or "not positive definite" in failed["why"]
    assert (summary["gamma"], good["error"] is not None) == (0.1, True)
    config = make((1e-9, 2e-9), dtype="float32", rank=1, tolerance=1e-5, max_iterations=60)
    with pytest.raises(RunFailed, match="none of 2 candidates could be solved; "):
        interpolation.run(config, tmp_path / "other")


def test_a_run_with_the_old_names_of_fields_tries_no_failed_candidate_again(from_toy, tmp_path):
    config = make((1e-9, 0.1), dtype="float32", rank=1, tolerance=1e-5, max_iterations=60)
    summary = interpolation.run(config, tmp_path)
    for name in ("config.json", "selection.json"):
        (tmp_path / name).write_text(
            (tmp_path / name).read_text().replace("max_iterations", "most_iterations")
        )
    log = read(tmp_path, "selection.json")["log"]
    log[0]["why"] = "as before"
    (tmp_path / "selection.json").write_text(json.dumps({"log": log}))
    (tmp_path / "summary.json").unlink()
    again = interpolation.run(config, tmp_path)
    assert read(tmp_path, "selection.json")["log"][0]["why"] == "as before"
    assert (again["gamma"], again["test_error"]) == (summary["gamma"], summary["test_error"])
    assert "max_iterations" in (tmp_path / "config.json").read_text()


def test_a_solution_with_a_ridge_is_kept_where_there_is_none_without(
    from_toy, toy, tmp_path, monkeypatch
):
    """The same whether the products come again from their file or not."""
    config = make((0.1,), (0.0, 0.5), tolerance=1e-6)
    both, original = interpolation.run(config, tmp_path / "both"), solve.solve_to_tolerance

    def failing(session, matrix, labels, ridge, title, *where):
        if title == "all examples" and ridge == 0:
            raise RunFailed("the residual is 1")
        return original(session, matrix, labels, ridge, title, *where)

    monkeypatch.setattr(solve, "solve_to_tolerance", failing)
    summary = interpolation.run(config, tmp_path / "one")
    assert summary == read(tmp_path / "one")
    assert (summary["ridge"], "with_ridge" in summary) == (0.5, False)
    for field in ("test_error", "norm_one_hot", "residual_float64"):
        assert summary[field] == both["with_ridge"][field]
    (failed,) = summary["failed"]
    assert (failed["ridge"], failed["why"]) == (0.0, "the residual is 1")
    assert ("ridge 0", "the residual is 1") in table(summary)[2]
    assert not (tmp_path / "one" / "products.npz").exists()


def test_examples_that_are_all_the_same(from_toy, toy, tmp_path, monkeypatch):
    same = data.from_arrays((0 * toy.train.images, toy.train.labels), toy.test, "toy")
    monkeypatch.setattr(data, "load", lambda config: same)
    config = make((0.1, 0.2))
    config.kernel.gamma_scale = True
    with pytest.raises(
        RunFailed, match="gamma_scale is True, but the 240 examples are all the same"
    ):
        interpolation.run(config, tmp_path)


def test_predictions_have_the_precision_of_the_solve(from_toy, toy, tmp_path):
    """With a flat kernel the coefficients are large and cancel."""
    summary = interpolation.run(make((1e-4,), tolerance=1e-9, rank=300), tmp_path)
    assert summary["norm_of_coefficients"] > 1e5
    assert summary["test_error"] == exact_solution(toy, 1e-4, 0.0)[0]


def test_other_data_in_the_same_directory(from_toy, toy, tmp_path, monkeypatch):
    interpolation.run(make(), tmp_path)
    (tmp_path / "summary.json").unlink()
    other = data.from_arrays((255 - toy.train.images, toy.train.labels), toy.test, "toy")
    monkeypatch.setattr(data, "load", lambda config: other)
    with pytest.raises(
        UserError,
        match=r"made from other data: fingerprint \w{8}, now \w{8}; choose another --work",
    ):
        interpolation.run(make(), tmp_path)


def test_digits_through_the_entry_point(entry_point, tmp_path):
    here = make_place(tmp_path / "here")
    arguments = [
        *("--config=configs/kernel_mnist.py:digits", "--config.data.examples=500", "--workdir=run"),
        "--config.kernel.gammas=(0.5,)",
    ]
    outcome = entry_point.start(arguments, here)
    assert (outcome.code, outcome.stderr) == (0, "")
    summary = read(here / "run")
    assert summary["test_error"] < 0.1
    assert f"test error                       │   {summary['test_error']:.2%}" in outcome.stdout
    again = entry_point.start(arguments, here)
    assert again.code == 0
    assert "run is finished" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "--config.kernel.name=rbf",
            "config.kernel.name is 'rbf'; it must be one of gaussian, linear",
        ),
        (
            "--config.kernel.gammas=()",
            "config.kernel.gammas is (); it must be one or more numbers above 0",
        ),
        ("--config.kernel.gammas=(0,)", "config.kernel.gammas is (0,); it must be one or more …"),
        (
            "--config.kernel.ridges=('x',)",
            "config.kernel.ridges is ('x',); it must be one or more …",
        ),
        (
            "--config.kernel.validation_fraction=1",
            "config.kernel.validation_fraction is 1.0; it must be in [0.01, 0.9]",
        ),
        (
            "--config.kernel.name=linear --config.kernel.gammas=(1,2)",
            "config.kernel.gammas is (1, 2); it must be one number for the linear kernel, which has no γ",
        ),
        ("--config.solver.rank=0", "config.solver.rank is 0; it must be in [1, 100000]"),
        (
            "--config.solver.dtype=int8",
            "config.solver.dtype is 'int8'; it must be float32 or float64",
        ),
        ("--config.experiment=train", "config.experiment is 'train'; it must be one of kernel"),
        (
            "--config.data.examples=1",
            "config.data.examples is 1; it must be 2 or more for a kernel",
        ),
        ("--config.data.examples=1501", "config.data.examples is 1501; it must be in [1, 1500], …"),
    ],
)
def test_one_line_and_nothing_written(in_process, arguments, line, tmp_path):
    assert_refused_at_once(in_process, "kernel_mnist.py:digits", arguments, line, tmp_path)
