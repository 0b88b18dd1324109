import errno
import gc
import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from etils import epath

from rethink_jax.errors import RunFailed
from rethink_jax.training import checkpoints as checkpoints_lib
from rethink_jax.training.checkpoints import Checkpoints, Saved
from rethink_jax.training.train_state import TrainState

# When one of the arrays cannot be read, TensorStore still reports the others to an event loop that
# Orbax has closed.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)

HISTORY = [{"epoch": 1.0, "step": 6, "train_loss": 0.1 + 0.2}, {"epoch": 2.0, "step": 7}]


@pytest.fixture(scope="module", autouse=True)
def collect_less():
    """Spares the collections below a visit to all that was imported."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def tell_now():
    """Has what TensorStore tells come up in the test that it belongs to."""
    yield
    gc.collect()


def state_at(step, momentum=0.9, batch_stats=True):
    """A train state of random numbers, other ones at every step."""
    rng = np.random.default_rng(step)
    params = {
        "Conv_0": {"kernel": rng.normal(size=(3, 3, 2, 4)).astype(np.float32)},
        "Dense_0": {"bias": np.zeros(5, np.float32), "kernel": np.float32(rng.normal(size=(4, 5)))},
    }
    optimizer = optax.sgd(optax.exponential_decay(0.1, 10, 0.95), momentum=momentum)
    _, opt_state = optimizer.update(params, optimizer.init(params), params)
    return jax.device_get(
        TrainState(
            step=np.array(step, np.int32),
            params=params,
            batch_stats={"BatchNorm_0": {"mean": np.float32(rng.normal(size=4))}}
            if batch_stats
            else {},
            opt_state=opt_state,
        )
    )


def assert_same(state, expected):
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, np.ndarray)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()


def content_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def steps_in(folder):
    return sorted(int(path.name) for path in Path(folder, "checkpoints").iterdir())


@pytest.fixture
def opened(tmp_path):
    """A function that opens checkpoints, which are closed after the test."""
    managers = []

    def open_checkpoints(folder=tmp_path, **options):
        managers.append(Checkpoints(epath.Path(folder), **options))
        return managers[-1]

    yield open_checkpoints
    for manager in managers:
        manager.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory with checkpoints of steps 10 and 20, to be copied."""
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(epath.Path(folder), keep=3)
    for step in (10, 20):
        checkpoints.save(Saved(state_at(step), f"data of {step}", []))
    checkpoints.close()
    return folder


@pytest.fixture
def two(saved, tmp_path):
    """A directory of one's own with checkpoints of steps 10 and 20."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    return tmp_path / "checkpoints"


# Whole ones.


@pytest.mark.parametrize("momentum", [0.9, None])
@pytest.mark.parametrize("batch_stats", [True, False])
def test_round_trip(opened, momentum, batch_stats):
    state = state_at(7, momentum, batch_stats)
    opened().save(Saved(state, "abc", HISTORY, 17))
    like = state_at(1, momentum, batch_stats)
    restored, fingerprint, history, epoch_correct = opened(read_only=True).restore_newest(like)
    assert (history, epoch_correct) == (HISTORY, 17)
    assert fingerprint == "abc"
    assert_same(restored, state)


def test_values_that_are_no_ordinary_numbers(opened):
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3e38], np.float32)
    state = TrainState(np.array(2**31 - 1, np.int32), {"odd": odd}, {}, ())
    checkpoints = opened()
    checkpoints.save(Saved(state, "abc", []))
    assert_same(checkpoints.restore_newest(state)[0], state)


def test_without_a_pattern_the_same_arrays_come_as_dicts(two, opened):
    restored, fingerprint, *_ = opened().restore_newest()
    expected = state_at(20)
    assert fingerprint == "data of 20"
    assert int(restored["step"]) == 20
    assert_same(restored["params"], expected.params)
    assert_same(restored["batch_stats"], expected.batch_stats)


def test_nothing_saved(opened):
    assert opened().restore_newest(state_at(1)) is None


def test_nothing_saved_and_read_only(opened, tmp_path):
    assert opened(read_only=True).restore_newest(state_at(1)) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_keep(opened, tmp_path, keep):
    checkpoints = opened(keep=keep)
    for step in (1, 2, 10, 20):
        checkpoints.save(Saved(state_at(step), "abc", []))
    assert steps_in(tmp_path) == [1, 2, 10, 20][-keep:]
    assert_same(checkpoints.restore_newest(state_at(1))[0], state_at(20))


def test_the_newest_is_the_one_of_most_steps(opened):
    """Not the last by name: 9 comes after 10 there."""
    checkpoints = opened(keep=3)
    for step in (9, 10):
        checkpoints.save(Saved(state_at(step), "abc", []))
    assert int(checkpoints.restore_newest(state_at(1))[0].step) == 10


def test_saving_a_step_twice(two, opened):
    checkpoints = opened(keep=3)
    checkpoints.save(Saved(state_at(20), "data of 20", []))
    assert steps_in(two.parent) == [10, 20]
    restored, fingerprint, *_ = checkpoints.restore_newest(state_at(1))
    assert fingerprint == "data of 20"
    assert_same(restored, state_at(20))


def test_going_on_after_opening_again(two, opened):
    checkpoints = opened(keep=2)
    checkpoints.save(Saved(state_at(30), "abc", []))
    assert steps_in(two.parent) == [20, 30]
    assert_same(checkpoints.restore_newest(state_at(1))[0], state_at(30))


# Damaged ones.

DAMAGES = {
    "a flipped byte": lambda content: (
        content[: len(content) // 2]
        + bytes([content[len(content) // 2] ^ 255])
        + content[len(content) // 2 + 1 :]
    ),
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "missing": None,
}
DAMAGE = pytest.mark.parametrize("damage", DAMAGES)


def spoil(files, damage):
    assert files
    for file in files:
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes(DAMAGES[damage](file.read_bytes()))


@DAMAGE
@pytest.mark.parametrize(
    "pattern",
    ["state/d/*", "state/manifest.ocdbt", "state/_METADATA", "meta/metadata"],
)
def test_a_damaged_file_that_is_needed(two, opened, caplog, pattern, damage):
    spoil(list((two / "20").glob(pattern)), damage)
    checkpoints = opened()
    with caplog.at_level(logging.WARNING, "rethink_jax.training.checkpoints"):
        restored, fingerprint, *_ = checkpoints.restore_newest(state_at(1))
    assert_same(restored, state_at(10))
    assert fingerprint == "data of 10"
    (record,) = (
        record for record in caplog.records if record.name == "rethink_jax.training.checkpoints"
    )
    assert record.getMessage().startswith("checkpoint 20 ")
    assert "\n" not in record.getMessage()


@DAMAGE
def test_any_damaged_file(two, opened, damage):
    """Whichever file it is, what comes back is a whole checkpoint: this one or the one before."""
    files = sorted(file.relative_to(two) for file in (two / "20").rglob("*") if file.is_file())
    assert len(files) >= 8
    whole = two.rename(two.with_name("whole"))
    outcomes = set()
    for file in files:
        shutil.rmtree(two, ignore_errors=True)
        shutil.copytree(whole, two)
        spoil([two / file], damage)
        restored, fingerprint, *_ = opened().restore_newest(state_at(1))
        outcomes.add(int(restored.step))
        assert_same(restored, state_at(int(restored.step)))
        assert fingerprint == f"data of {restored.step}"
    assert 10 in outcomes


@DAMAGE
def test_both_damaged(two, opened, damage):
    spoil([*two.glob("*/state/d/*"), *two.glob("*/state/ocdbt.process_0/d/*")], damage)
    assert opened().restore_newest(state_at(1)) is None


def test_other_arrays_than_were_digested(two, opened, caplog):
    """A checkpoint that reads well, with the arrays of another."""
    shutil.rmtree(two / "20" / "state")
    shutil.copytree(two / "10" / "state", two / "20" / "state")
    restored, fingerprint, *_ = opened().restore_newest(state_at(1))
    assert_same(restored, state_at(10))
    assert fingerprint == "data of 10"
    assert "checkpoint 20 does not match its digests and is passed over" in caplog.text


def test_another_model(two, opened):
    """A state of other shapes is not filled with what does not fit."""
    other = state_at(1).replace(params={"Dense_0": {"kernel": np.zeros((4, 6), np.float32)}})
    before = content_of(two)
    with pytest.raises(RunFailed) as error:
        opened().restore_newest(other)
    assert str(error.value) == (
        f"checkpoint 20 in {two} is of another model or version: params/Conv_0/kernel differs; "
        "nothing was changed"
    )
    assert content_of(two) == before


@pytest.mark.parametrize("name", ["30.orbax-checkpoint-tmp", "30.orbax-checkpoint-tmp-17"])
def test_a_half_written_checkpoint_is_ignored(two, opened, name):
    shutil.copytree(two / "20", two / name)
    spoil(list((two / name).glob("state/d/*")), "truncated")
    checkpoints = opened(keep=3)
    restored, *_ = checkpoints.restore_newest(state_at(1))
    assert_same(restored, state_at(20))
    checkpoints.save(Saved(state_at(30), "abc", []))
    restored, fingerprint, *_ = checkpoints.restore_newest(state_at(1))
    assert_same(restored, state_at(30))
    assert fingerprint == "abc"


def test_an_empty_directory_is_no_checkpoint(two, opened):
    (two / "30").mkdir()
    assert_same(opened().restore_newest(state_at(1))[0], state_at(20))


# Errors that say nothing about the checkpoint.

PASSING = {
    "an I/O error": OSError(errno.EIO, "Input/output error"),
    "no right to read": PermissionError(errno.EACCES, "Permission denied"),
    "too many files": OSError(errno.EMFILE, "Too many open files"),
    "no memory": MemoryError(),
    "an I/O error of TensorStore": ValueError("UNKNOWN: Error reading \"w\" [os_error_code='5']"),
    "no memory in TensorStore": ValueError("RESOURCE_EXHAUSTED: out of memory"),
    "anything else": RuntimeError("cannot schedule new futures after shutdown"),
}


@pytest.mark.parametrize("name", PASSING)
def test_an_error_that_says_nothing_about_the_checkpoint(name, two, opened, monkeypatch):
    checkpoints, before = opened(), content_of(two)

    def fail(*arguments, **options):
        raise PASSING[name]

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._orbax, "restore", fail)
        with pytest.raises(RunFailed, match=r"checkpoint 20 in .* cannot be read: [^\n]*; nothing"):
            checkpoints.restore_newest(state_at(1))
    assert content_of(two) == before
    assert int(checkpoints.restore_newest(state_at(1)).state.step) == 20


@pytest.mark.parametrize(
    "file", ["meta/metadata", "state/_METADATA", "state/manifest.ocdbt", "state"]
)
def test_a_file_that_cannot_be_opened_is_not_damaged(two, opened, file):
    """A link to itself stands for it: root may read what has no rights."""
    (two / "20" / file).rename(two / "kept")
    (two / "20" / file).symlink_to(two / "20" / file)
    with pytest.raises(RunFailed, match=r"checkpoint 20 in .* cannot be read: "):
        opened().restore_newest(state_at(1))


def test_why_a_checkpoint_cannot_be_written_is_told(two, opened, monkeypatch):
    """Also where Orbax's threads still write into what is to be removed; the next save removes it."""
    checkpoints = opened()
    checkpoints.restore_newest(state_at(1))
    left = two / "30.orbax-checkpoint-tmp"

    def fail(*args, **kwargs):
        left.mkdir()
        raise OSError(errno.EFBIG, "File too large")

    def refuse(folder, missing_ok=False):
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._orbax, "save", fail)
        patch.setattr(type(checkpoints.folder), "rmtree", refuse)
        with pytest.raises(RunFailed, match=r"checkpoint 30 cannot .*File too large; step 20 is"):
            checkpoints.save(Saved(state_at(30), "abc", []))
    assert left.exists()
    checkpoints.save(Saved(state_at(30), "abc", []))
    assert not left.exists()
    assert checkpoints.steps()[-1] == 30


# Files that are not ours.


def test_only_our_checkpoints_are_counted_and_removed(two, opened):
    foreign = ["1/weights.pt", "15/a/b", "100/model.bin", "old.orbax-checkpoint-tmp/x", "007/x"]
    for name in foreign:
        (two / name).parent.mkdir(parents=True)
        (two / name).write_text("mine")
    (two / "17").mkdir()
    (two / "30.orbax-checkpoint-tmp").mkdir()
    checkpoints = opened(keep=1)
    assert checkpoints.steps() == [10, 20]
    assert int(checkpoints.restore_newest(state_at(1)).state.step) == 20
    for step in (25, 30):
        checkpoints.save(Saved(state_at(step), "abc", []))
    assert checkpoints.steps() == [30]
    for name in foreign:
        assert (two / name).read_text() == "mine"
    assert (two / "17").is_dir()
    assert not checkpoints_lib.half_written(checkpoints.folder)
    with pytest.raises(RunFailed, match="/100 is no checkpoint; move it, and run the same command"):
        checkpoints.save(Saved(state_at(100), "abc", []))
    assert (two / "100/model.bin").read_text() == "mine"
    assert checkpoints.steps() == [30]


def test_a_damaged_checkpoint_is_not_kept_for_a_whole_one(two, opened):
    spoil([two / "20" / "meta" / "metadata"], "empty")
    checkpoints = opened(keep=1)
    assert int(checkpoints.restore_newest(state_at(1)).state.step) == 10
    checkpoints.save(Saved(state_at(15), "abc", []))
    assert int(opened(read_only=True).restore_newest(state_at(1)).state.step) == 15
    checkpoints.save(Saved(state_at(20), "abc", []))
    assert steps_in(two.parent) == [20]
    assert int(opened(read_only=True).restore_newest(state_at(1)).state.step) == 20


NAMES = [
    "lr[0.1]",
    "a**b",
    "a?b",
    "[red]",
    "50%",
    "a%sb",
    "a b",
    "a'b\"c",
    "~x",
    "a:b#c",
    "é{0}",
    "*",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_is_a_pattern(name, tmp_path, opened):
    for near in ("axb", "lr0", "r"):  # what the patterns would find
        (tmp_path / near).mkdir()
        opened(tmp_path / near).save(Saved(state_at(1), "another", []))
    (tmp_path / name).mkdir()
    opened(tmp_path / name).save(Saved(state_at(7), "abc", HISTORY))
    restored = opened(tmp_path / name, read_only=True).restore_newest(state_at(1))
    assert_same(restored.state, state_at(7))
    assert restored.fingerprint == "abc"
