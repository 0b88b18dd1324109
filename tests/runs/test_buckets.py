"""Run directories in a bucket, for which a file system in memory stands; Orbax has a client of its own."""

import fsspec
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from rethink_jax import cli
from rethink_jax.config import train
from rethink_jax.errors import UserError
from rethink_jax.runs import files, own_files, run_directory, writers


class Bucket(MemoryFileSystem):
    protocol = "gs"
    store = {}  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("gs://").strip("/")


@pytest.fixture
def folder():
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    return run_directory.path_of("gs://bucket/runs/one")


def test_a_run_directory(folder):
    assert isinstance(folder, epath.Path)
    assert str(folder) == "gs://bucket/runs/one"
    config = train("digits", "random_labels")
    for _ in range(2):
        with run_directory.open_run(folder, config):
            run_directory.write_metadata(folder, config, num_train=7)
    assert files.read_json(folder / "run.json")["num_train"] == 7
    assert run_directory.summary_of(folder, config) is None
    files.write_json(folder / own_files.SUMMARY, {"status": "finished"})
    assert run_directory.summary_of(folder, config) == {"status": "finished"}
    assert not list(folder.glob("*" + own_files.PARTIAL))
    config.seed = 1
    with pytest.raises(UserError, match=r"gs://bucket/runs/one holds a run of another config"):
        run_directory.summary_of(folder, config)


def test_metrics(folder):
    folder.mkdir(parents=True, exist_ok=True)
    records = [{"epoch": i, "step": 3 * i, "train_loss": 1.0} for i in range(3)]
    writer = writers.MetricsWriter(folder, records[:1])
    for record in records[1:]:
        writer.write(record)
    writer.close()
    assert files.read_metrics(folder) == records


@pytest.mark.parametrize("address", ["gs://", "gs://bucket", "gs://bucket/", "http://a/b", "x://"])
def test_addresses_that_are_no_folder_of_a_bucket(address):
    with pytest.raises(UserError, match=r"it must be a folder, or gs://BUCKET/FOLDER"):
        cli.check_workdir(address)


def test_what_is_needed_for_a_bucket(monkeypatch):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs gcsfs: pip install -e '.\[gcs\]'"):
        cli.check_workdir("gs://bucket/folder")
