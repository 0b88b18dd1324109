import pytest

from rethink_jax import config as config_lib
from rethink_jax.report import bounds, contents
from rethink_jax.theory import certificate, fine_grained, pac_bayes, rademacher, stability


@pytest.fixture(scope="module")
def summaries():
    """Small summaries with what the table reads of each experiment."""
    networks = {
        kind: {"bound": bound, "test_error": {"mean": error}, "fine_grained": measured}
        for kind, bound, error, measured in (
            ("true_labels", 1.03, 0.2, {"measure": 0.4, "test_error": 0.1}),
            ("random_labels", 1.04, 0.5, None),
        )
    }
    levels = [{"probability": 0.0, "measure": 0.3, "test_error": 0.01}]
    subsets = [
        {"examples": n, "true_labels": 0.3, "random_labels": 6.0, "levels": levels}
        | {"random_test_error": 0.49}
        for n in (10, 20)
    ]
    optimized = {"bound": 0.18, "test_error": 0.04}
    chosen = {"certificate": {"mean": 0.1}, "test": {"mean": 0.11}}
    return {
        "rademacher": {"points": 50, "networks": networks},
        "stability": {"points": 50, "networks": networks, "stability_bound": 245.39},
        "fine_grained": {"subsets": subsets},
        "pac_bayes": {"labels": "true_labels", "examples": 60, "optimized": optimized}
        | {"delta": 0.025, "sampling_delta": 0.01},
        "certificate": {"labels": "random_labels", "labelled_examples": 5, "random_examples": 2}
        | {"chosen": chosen, "draws": 3, "delta": 0.05, "evaluations": 7}
        | {"assumption": {"kept": 6}},
    }


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        ("rademacher", [("true_labels", 50, 1.03, 0.2), ("random_labels", 50, 1.04, 0.5)]),
        (
            "stability",
            [
                ("true_labels", 50, 1.03, 0.2),
                ("random_labels", 50, 1.04, 0.5),
                ("true_labels", 50, 245.39, 0.2),
                ("true_labels", 50, 0.4, 0.1),
                ("random_labels", 50, 245.39, 0.5),
            ],
        ),
        ("fine_grained", [("true_labels", 20, 0.3, 0.01), ("random_labels", 20, 6.0, 0.49)]),
        ("pac_bayes", [("true_labels", 60, 0.18, 0.04)]),
        ("certificate", [("random_labels", 7, 0.1, 0.11)]),
    ],
)
def test_what_is_read_of_each(experiment, expected, summaries):
    found = bounds._READ[experiment](summaries[experiment])
    assert [tuple(bound[1:5]) for bound in found] == expected


def test_what_they_hold_with(summaries):
    (one,) = bounds._READ["pac_bayes"](summaries["pac_bayes"])
    assert one.holds == "probability 0.965"
    (one,) = bounds._READ["certificate"](summaries["certificate"])
    assert one.holds.startswith("probability 0.95, if wrong labels trained on are fitted")
    assert one.holds.endswith("kept at 6 of 7 evaluations")


def test_a_bound_below_the_test_error_is_told(summaries):
    found = [one for name in summaries for one in bounds._READ[name](summaries[name])]
    sentence = bounds._conclude(found)
    assert sentence.startswith("Say something: 3 of 6 with true labels, 1 of 5 with random labels.")
    assert "1 below the test error; the smallest margin is -1.00%" in sentence
    sound = [one for one in found if one.labels == "true_labels"]
    assert "None below the test error; " in bounds._conclude(sound)


def test_the_table_of_real_runs(from_toy, tmp_path):
    short = {"epochs": 1, "stop_when_fitted": False, "model.width": 8}
    made = {
        "complexity": (stability, {**short, "stability.replacements": 1}),
        "signs": (rademacher, {**short, "rademacher.draws": 1}),
        "h": (fine_grained, {"fine_grained.sizes": (20,), "fine_grained.widths": ()}),
        "pac": (
            pac_bayes,
            {f"pac_bayes.{name}": 1 for name in ("sgd_epochs", "epochs", "passes")}
            | {"pac_bayes.width": 4, "pac_bayes.batch_size": 50},
        ),
        "ratt": (
            certificate,
            {
                "certificate.random_examples": 90,
                "certificate.draws": 1,
                "epochs": 1,
                "model.width": 8,
            },
        ),
    }
    summaries = {}
    for name, (module, fields) in made.items():
        experiment = module.__name__.rpartition(".")[2]
        config = config_lib.experiment(experiment, "toy")
        config.update_from_flattened_dict(fields)
        summaries[name] = bounds._READ[experiment](module.run(config, tmp_path / name))
    contents.write(tmp_path)
    page = (tmp_path / "report" / "report.md").read_text()
    table = page[page.index("## Bounds on the test error") :]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    for name, found in summaries.items():
        own = [line for line in lines if line.rstrip(" |").endswith(f"| {name}")]
        assert len(own) == len(found) > 0
        for bound in found:
            cells = f"| {bound.labels.replace('_', ' ')} | {bound.examples:,} | {100 * bound.value:,.2f} |"
            assert sum(cells in line for line in own) >= 1
    assert "Say something: " in table
    kinds = ["true labels" in line for line in lines[2:]]
    assert kinds == sorted(kinds, reverse=True)


def test_no_table_without_a_bound():
    assert bounds.blocks([]) == []
