"""Sweeps and runs written by hand, and what their reports hold."""

import csv
import json

import pytest

from rethink_jax import config as config_lib
from rethink_jax.report import __main__ as command

CONFIG = config_lib.train("cifar10_jpeg", "true_labels")
CONFIG.model.name = "mlp"
CONFIG = config_lib.fill_in(CONFIG, 50_000, 32)
SUMMARY = {"status": "finished", "parameters": 7, "epochs": 4.0, "seconds": 100.0}


def write_sweep(path, name, runs, size="full"):
    """Writes a sweep's directory: `runs` are (row, seed, status, summary or None, more of the entry)."""
    path.mkdir(exist_ok=True)
    entries = []
    for row, seed, status, summary, more in runs:
        directory = f"{row}-seed{seed}"
        entries.append(
            {"name": row, "seed": seed, "directory": directory, "status": status}
            | {"expect_divergence": False, "diverged": False}
            | more
        )
        if summary is not None:
            write_run(path / directory, status, summary)
    (path / "sweep.json").write_text(json.dumps({"name": name, "size": size, "runs": entries}))
    return path


def write_run(path, status, summary):
    path.mkdir()
    history, config = summary.pop("history", []), summary.pop("config", CONFIG)
    files = {
        "config.json": config.to_dict(),
        "run.json": {
            "git": {"revision": "0123456789", "dirty": False},
            "packages": {"jax": "0.10.2"},
            "python": "3.11.7",
            "platform": "Linux",
            "backend": "gpu",
            "devices": ["NVIDIA H200", "NVIDIA H200"],
            "cpu": "AMD EPYC",
            "cores": 2,
            "matmul_precision": "default",
            "num_train": summary.pop("num_train", 50_000),
            "num_classes": 10,
        },
        "summary.json": SUMMARY | {"status": status} | summary,
    }
    for name, content in files.items():
        (path / name).write_text(json.dumps(content))
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in history))


def record(epoch, train_loss, test_accuracy=0.5, **more):
    return {"epoch": epoch, "step": int(391 * epoch), "train_loss": train_loss} | {
        "test_accuracy": test_accuracy,
        **more,
    }


def accuracies(train, test, corrupted=None):
    summary = {"train_accuracy": train, "test_accuracy": test}
    return summary if corrupted is None else summary | {"test_accuracy_corrupted": corrupted}


def markdown_row(path, label, nth=0):
    lines = (path / "report" / "report.md").read_text().splitlines()
    return [line for line in lines if line.startswith(f"| {label} |")][nth]


def rows_of_csv(path):
    with (path / "report" / "report.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def run_report(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        command.main(list(arguments))
    (line,) = capsys.readouterr().err.splitlines()
    return end.value.code, line


STEPS = {50_000: 391, 10_000: 79}


def config_of(row, n=50_000, **fields):
    config = config_lib.train("cifar10_jpeg", "true_labels")
    config.update_from_flattened_dict(
        config_lib.cifar10_entry(row)["fields"] | {"epochs": 4} | fields
    )
    return config_lib.fill_in(config, n, 32)


def write(path, row, trained=4, n=50_000, status="finished", test=0.5, environment=None, **fields):
    """Writes a training run that was evaluated after each epoch, the last time with an accuracy of `test`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    history = [record(i, 4.0 - i, 0.25, train_accuracy=0.9) for i in range(1, trained)]
    history.append(record(trained, 0.01, test, train_accuracy=0.99))
    steps = {"steps": trained * STEPS[n], "epochs": float(trained), "epochs_to_fit": float(trained)}
    accuracies = {"train_accuracy": 0.99, "test_accuracy": test}
    config = config_of(row, n, **fields)
    summary = {"config": config, "history": history, "num_train": n, **steps, **accuracies}
    write_run(path, status, summary)
    if environment:
        file = path / "run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | environment))
    return path
