import io
import pickle
import zipfile

import numpy as np
import pytest

from rethink_jax import config as config_lib, data
from rethink_jax.data import label_files
from rethink_jax.pipeline import inputs
from rethink_jax.runs.resolve import resolve
from rethink_jax.training import train
from tests.data_helpers import error

CLEAN = np.array([1, 0, 1, 1, 0, 2])
GIVEN = np.array([1, 2, 0, 1, 0, 2])
# In another order: the third, first and last of class 1, 1, 2, …
COUNTED = np.array(["train_00003", "train_00000", "train_00005", "train_00001"])
WITHIN = np.array(["train_b_0002", "train_b_0000", "train_c_0000", "train_a_0000"])
PLACES = np.array([3, 0, 5, 1])


def write_npz(file, **arrays):
    np.savez(file, **{"clean_label": CLEAN, "worse_label": GIVEN, **arrays})
    return str(file)


def write_pt(file, content, protocol=2):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol))
        archive.writestr("archive/version", "3")
    return str(file)


def human(file, own_ids=COUNTED, annotator="worst", labels=None):
    labels = CLEAN[PLACES] if labels is None else labels
    return label_files.human_labels(file, annotator, labels, own_ids, "toy", 3)


@pytest.mark.parametrize("own_ids", [COUNTED, WITHIN])
def test_matched_by_what_examples_are_called(tmp_path, own_ids):
    found = human(write_npz(tmp_path / "labels.npz"), own_ids)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, GIVEN[PLACES])


def test_matched_by_the_ids_of_the_file(tmp_path):
    ids = np.array([f"image {i}" for i in range(6)])
    file = write_npz(tmp_path / "labels.npz", ids=ids)
    np.testing.assert_array_equal(human(file, ids[PLACES]), GIVEN[PLACES])
    with pytest.raises(Exception, match="1 of toy's 4 training examples are not in it"):
        human(file, np.array([*ids[PLACES][:3], "nobody"]))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_published_form(tmp_path, protocol):
    content = {"clean_label": CLEAN, "worse_label": GIVEN}
    file = write_pt(tmp_path / "human.pt", content, protocol)
    np.testing.assert_array_equal(human(file), GIVEN[PLACES])


class _Evil:
    def __reduce__(self):
        return (print, ("hello",))


def test_nothing_else_is_unpickled(tmp_path, capsys):
    file = write_pt(tmp_path / "evil.pt", {"clean_label": _Evil()}, protocol=4)
    line = error(label_files.read, file, "worst")
    assert line.endswith("it holds builtins.print, not only NumPy arrays")
    assert capsys.readouterr().out == ""
    line = error(label_files.read, write_pt(tmp_path / "list.pt", [1]), "worst")
    assert line.endswith("it holds something else than arrays with names")


def test_pickles_within_an_archive_are_refused(tmp_path):
    objects = np.empty(1, object)
    file = write_npz(tmp_path / "objects.npz", clean_label=objects)
    assert "allow_pickle=False" in error(label_files.read, file, "worst")


def test_labels_that_do_not_fit(tmp_path):
    file = write_npz(tmp_path / "labels.npz")
    swapped = CLEAN[PLACES].copy()
    swapped[:2] = 0
    line = error(lambda: human(file, labels=swapped))
    assert line == (
        f"config.corruption.file is {file!r}; its clean labels differ from toy's in 2 of 4"
    )
    for own_ids in (np.array(["train_00099"] * 4), np.array(["x"] * 4)):
        line = error(lambda own_ids=own_ids: human(file, own_ids))
        assert line.endswith("4 of toy's 4 training examples are not in it")
    assert error(lambda: human(file, None)) == (
        "config.corruption.name is 'human_labels'; toy has no ids of its own to match labels by"
    )
    assert error(lambda: human(file, annotator="random1")) == (
        f"config.corruption.annotator is 'random1'; {file} has no random_label1, only clean_label, "
        "worse_label"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.npz", None),
        ("missing.pt", None),
        ("broken.npz", b"not an archive"),
        ("broken.pt", b"not an archive"),
        ("labels.txt", b"1 2 3"),
    ],
)
def test_files_that_are_no_labels(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    line = error(label_files.read, str(tmp_path / name), "worst")
    assert line.startswith(f"config.corruption.file is '{tmp_path / name}'; ")


@pytest.mark.parametrize("wrong", [-1, 3])
def test_labels_of_no_class_are_refused(tmp_path, wrong):
    given = GIVEN.copy()
    given[0] = wrong
    file = write_npz(tmp_path / "labels.npz", worse_label=given)
    assert error(lambda: human(file)).endswith("; they must be in [0, 3)")


@pytest.mark.parametrize("ids", [["a"] * 6, ["a", "b"]])
def test_ids_that_name_no_label_are_refused(tmp_path, ids):
    file = write_npz(tmp_path / "labels.npz", ids=np.array(ids))
    assert "they must be as many different texts as labels" in error(
        label_files.read, file, "worst"
    )


def test_rows_that_are_rounded_too_much(tmp_path):
    """The corruption itself would refuse them later."""
    np.savetxt(tmp_path / "m.csv", np.full((3, 3), 0.33333), delimiter=",")
    line = error(label_files.transition_matrix, str(tmp_path / "m.csv"), None, 3)
    assert line.endswith("each row probabilities that sum to 1")


def test_another_file_is_noticed(tmp_path):
    """Of a finished run, too, whose data are the same."""
    images = np.arange(40 * 36, dtype=np.uint8).reshape(40, 6, 6)
    dataset = data.from_arrays((images, np.arange(40) % 2), (images[:8], np.arange(8) % 2))
    for name, matrix in (("one", np.eye(2)), ("other", np.eye(2)[::-1])):
        np.save(tmp_path / f"{name}.npy", matrix)
    config = config_lib.train("arrays", "transition_labels", file=str(tmp_path / "one.npy"))
    config.model.width, config.epochs = 4, 1
    train.run(config, tmp_path / "run", dataset)
    (tmp_path / "moved.npy").write_bytes((tmp_path / "one.npy").read_bytes())
    config.corruption.file = str(tmp_path / "moved.npy")
    assert train.run(config, tmp_path / "run", dataset)["status"] == "finished"
    config.corruption.file = str(tmp_path / "other.npy")
    assert "was made from another file than config.corruption.file" in error(
        train.run, config, tmp_path / "run", dataset
    )


def test_other_shapes_are_refused(tmp_path):
    file = write_npz(tmp_path / "short.npz", worse_label=GIVEN[:3])
    assert error(label_files.read, file, "worst").endswith("it must be integers [n]")


@pytest.mark.parametrize("suffix", ["npy", "csv", "txt"])
def test_matrix_of_a_file(tmp_path, suffix):
    matrix = np.array([[0.5, 0.5], [0.25, 0.75]])
    file = str(tmp_path / f"matrix.{suffix}")
    if suffix == "npy":
        np.save(file, matrix)
    else:
        np.savetxt(file, matrix, delimiter="," if suffix == "csv" else " ")
    np.testing.assert_array_equal(label_files.transition_matrix(file, None, 2), matrix)
    line = error(label_files.transition_matrix, file, None, 3)
    assert line.endswith("it must hold 3×3 numbers, each row probabilities that sum to 1")


def test_matrix_measured_from_human_labels(tmp_path):
    found = label_files.transition_matrix(write_npz(tmp_path / "labels.npz"), "worst", 3)
    np.testing.assert_allclose(found, [[0.5, 0, 0.5], [1 / 3, 2 / 3, 0], [0, 0, 1]])


def test_matrix_of_letters_is_refused(tmp_path):
    file = tmp_path / "matrix.csv"
    file.write_text("a,b\nc,d\n")
    assert error(label_files.transition_matrix, str(file), None, 2).startswith(
        f"config.corruption.file is '{file}'; "
    )
    assert error(label_files.transition_matrix, "matrix.xls", None, 2).endswith(
        "it must end in .npy, .csv, .txt, .npz, .pt"
    )


WRONG = {
    "aggregate": 4505,
    "random1": 8617,
    "random2": 9061,
    "random3": 8820,
    "worst": 20_104,
}


@pytest.mark.parametrize("annotator", WRONG)
def test_published_counts(real_data, annotator):
    file = real_data.parent / "truth" / "cifar10n.npz"
    config = config_lib.train("cifar10_jpeg", "human_labels", file=str(file), annotator=annotator)
    config.data.data_dir, config.model.name = str(real_data), "mlp"
    config, _ = resolve(config)
    prepared = inputs.prepare(config, data.load(config.data))
    assert np.sum(prepared.train.labels != prepared.train.true_labels) == WRONG[annotator]
    np.testing.assert_array_equal(prepared.test.labels, prepared.test.true_labels)


def test_permuted_file_is_refused(real_data, tmp_path):
    with np.load(real_data.parent / "truth" / "cifar10n.npz") as archive:
        arrays = {
            name: array[np.random.default_rng(0).permutation(50_000)]
            for name, array in archive.items()
        }
    content = io.BytesIO()
    np.savez(content, **arrays)
    file = tmp_path / "permuted.npz"
    file.write_bytes(content.getvalue())
    config = config_lib.train("cifar10_jpeg", "human_labels", file=str(file), annotator="worst")
    config.data.data_dir = str(real_data)
    dataset = data.load(config.data)
    # Within a class any order agrees with the clean labels, so the file tells the order over all classes.
    counted = np.array([f"train_{i:05d}" for i in range(50_000)])
    examples = dataset.train.labels, counted, "cifar10", 10
    assert "its clean labels differ from cifar10's in" in error(
        label_files.human_labels, str(file), "worst", *examples
    )
