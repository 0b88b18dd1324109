import pytest

from rethink_jax.runs import files
from rethink_jax.training import train


@pytest.fixture
def stubbed(monkeypatch):
    """Has runs leave what a finished run leaves, or fail, at once."""

    def run(config, path, *rest, **options):
        if error := run.errors.get(path.name):
            raise error
        path.mkdir(parents=True, exist_ok=True)
        files.write_json(path / "config.json", config.to_dict())
        summary = {"status": "finished", "steps": 10**6, "seconds": 1.0}
        summary |= {"train_accuracy": 1.0, "test_accuracy": 0.5}
        files.write_json(path / "summary.json", summary)
        return summary

    def finished_summary(path, *rest):
        return files.read_json(path / "summary.json")

    run.errors = {}
    monkeypatch.setattr(train, "run", run)
    monkeypatch.setattr(train, "check_same_data", lambda *arguments: True)
    monkeypatch.setattr(train, "finished_summary", finished_summary)
    return run
