import os
import subprocess
import sys

import pytest

from rethink_jax.data import atomic_dir

AT_WORK = """
import sys
from pathlib import Path
from rethink_jax.data import atomic_dir

with atomic_dir.create(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("")
    print(folder.name, flush=True)
    input()
"""


def test_folder_is_there_while_it_is_used(tmp_path):
    parent = tmp_path / "made" / "too"
    with atomic_dir.create(parent) as folder:
        assert folder.parent == parent
        assert [*folder.iterdir()] == []
        (folder / "half").write_text("")
    assert [*parent.iterdir()] == []


def test_folder_is_removed_after_an_error(tmp_path):
    def fill():
        with atomic_dir.create(tmp_path) as folder:
            (folder / "half").write_text("")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fill()
    assert [*tmp_path.iterdir()] == []


def test_what_a_process_left_is_removed_once_it_is_killed(tmp_path):
    command = [sys.executable, "-c", AT_WORK, tmp_path]
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as process:
        other = tmp_path / process.stdout.readline().strip()
        with atomic_dir.create(tmp_path):
            assert (other / "half").exists()
        assert (other / "half").exists()
        process.kill()
    assert (other / "half").exists()
    with atomic_dir.create(tmp_path) as own:
        assert [*tmp_path.iterdir()] == [own]


def test_what_others_call_incomplete_stays(tmp_path):
    (tmp_path / "incomplete-thesis").mkdir()
    (tmp_path / "incomplete.ABCDEF_1.0.0").mkdir()  # TFDS's
    with atomic_dir.create(tmp_path):
        pass
    assert len([*tmp_path.iterdir()]) == 2


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError("no locks here")

    monkeypatch.setattr(atomic_dir.fcntl, "flock", flock)
    left = tmp_path / f"{atomic_dir.PREFIX}killed"
    left.mkdir()
    with atomic_dir.create(tmp_path) as own:
        assert {*tmp_path.iterdir()} == {left, own}
    assert [*tmp_path.iterdir()] == [left]


def test_parent_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), atomic_dir.create(tmp_path / "file"):
        pass


def make(folder, content):
    folder.mkdir()
    (folder / "content").write_text(content)
    return folder


def test_move(tmp_path):
    target = tmp_path / "made" / "target"
    atomic_dir.publish(make(tmp_path / "first", "first"), target)
    atomic_dir.publish(make(tmp_path / "second", "second"), target)
    assert (target / "content").read_text() == "first"


def test_move_that_fails(tmp_path):
    with pytest.raises(FileNotFoundError):
        atomic_dir.publish(tmp_path / "none", tmp_path / "target")
    assert os.listdir(tmp_path) == []
