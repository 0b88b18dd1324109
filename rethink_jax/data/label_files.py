"""Files of labels that people gave (Wei et al. 2022, CIFAR-10N), and of transition matrices.

Labels are arrays of a NumPy archive (`.npz`), or of the file that CIFAR-10N's authors publish (`.pt`), by name.
`clean_label` holds the true ones, against which the data set's own are checked, and `ids`, if it is there, what
the data set calls each example. Without it labels are in CIFAR-10's original order.
"""

import hashlib
import pickle
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from rethink_jax.errors import UserError, one_line

# What the arrays of CIFAR-10N's file are called.
ANNOTATORS = {
    "aggregate": "aggre_label",
    **{f"random{i}": f"random_label{i}" for i in (1, 2, 3)},
    "worst": "worse_label",
}
_CLEAN, _IDS = "clean_label", "ids"
# What readers of archives, of arrays and of pickles raise for damaged files.
_DAMAGED = (
    *(OSError, ValueError, EOFError, TypeError, KeyError, IndexError, AttributeError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error),
)
_LABELS, _MATRICES = (".npz", ".pt"), (".npy", ".csv", ".txt")
# TFDS counts over the data set, `train_16399`; the JPEG copy within a class, `train_cat_2970`.
_OWN_ID = re.compile(r"train_(?:(\D+)_)?(\d+)")
# All that a pickle of NumPy arrays needs.
_ADMITTED = {
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    *(("numpy", name) for name in ("ndarray", "dtype")),
    ("_codecs", "encode"),
}


def holds_labels(file: str) -> bool:
    """Returns whether a file's name is that of labels, not of a matrix."""
    return Path(file).suffix in _LABELS


def digest(file: str) -> str:
    """Returns a file's SHA-256, by which a resumed run knows that its labels are the same.

    Raises:
      UserError: it cannot be read.
    """
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _wrong(file, one_line(error)) from error


def read(file: str, annotator: str) -> dict[str, np.ndarray]:
    """Returns a file's arrays: `clean_label` and `given`, integers [n], and `ids`, text [n], where it has them.

    Args:
      file: `config.corruption.file`.
      annotator: one of `ANNOTATORS`, or an array's name.

    Raises:
      UserError: there is no such file or array, or it holds something else.
    """
    arrays = _arrays(file)
    name = ANNOTATORS.get(annotator, annotator)
    for needed, field in ((_CLEAN, "file"), (name, "annotator")):
        if needed not in arrays:
            value = {"file": file, "annotator": annotator}[field]
            raise UserError(
                f"config.corruption.{field} is {value!r}; {file} has no {needed}, only {', '.join(arrays)}"
            )
    found = {_CLEAN: arrays[_CLEAN], "given": arrays[name]}
    for key, array in found.items():
        if array.shape != found[_CLEAN].shape or array.dtype.kind not in "iu" or array.ndim != 1:
            raise _wrong(file, f"{key} is {array.dtype} {array.shape}; it must be integers [n]")
    if not found[_CLEAN].size:
        raise _wrong(file, "it holds no labels")
    if _IDS not in arrays:
        return found
    ids = arrays[_IDS].astype(str)
    if ids.shape != found[_CLEAN].shape or len(np.unique(ids)) < len(ids):
        raise _wrong(file, f"ids are {ids.shape}; they must be as many different texts as labels")
    return found | {_IDS: ids}


def human_labels(
    file: str,
    annotator: str,
    labels: np.ndarray,
    own_ids: np.ndarray | None,
    name: str,
    num_classes: int,
) -> np.ndarray:
    """Returns the labels that a file gives a training set's examples, matched by what they are called.

    Args:
      file, annotator: as for `read`.
      labels: int [n], the data set's own, which the file's clean ones must equal.
      own_ids: text [n], as in `Examples`.
      name: of the data set.
      num_classes: of it.

    Returns:
      int32 [n].

    Raises:
      UserError: as `read`; the examples have no names; or they are not in the file, or have other clean labels.
    """
    arrays = read(file, annotator)
    if own_ids is None:
        raise UserError(
            f"config.corruption.name is 'human_labels'; {name} has no ids of its own to match labels by"
        )
    clean = arrays[_CLEAN]
    places = _places(own_ids, labels, arrays)
    wrong = int(np.sum(places < 0))
    if wrong:
        raise _wrong(file, f"{wrong:,} of {name}'s {len(labels):,} training examples are not in it")
    wrong = int(np.sum(clean[places] != labels))
    if wrong:
        raise _wrong(file, f"its clean labels differ from {name}'s in {wrong:,} of {len(labels):,}")
    given = arrays["given"][places]
    if given.min() < 0 or given.max() >= num_classes:
        found = f"{annotator} labels go from {given.min()} to {given.max()}"
        raise _wrong(file, f"{found}; they must be in [0, {num_classes})")
    return given.astype(np.int32)


def transition_matrix(file: str, annotator: str | None, num_classes: int) -> np.ndarray:
    """Returns a transition matrix, float64 [K, K]: of a file, or measured from a file of human labels.

    Args:
      file: `config.corruption.file`.
      annotator: as for `read`, of a file of labels.
      num_classes: K.

    Raises:
      UserError: there is no such file, or it holds something else.
    """
    if holds_labels(file):
        arrays = read(file, annotator or "")
        counts = np.zeros((num_classes, num_classes))
        most = max(arrays[_CLEAN].max(), arrays["given"].max())
        if most >= num_classes or min(arrays[_CLEAN].min(), arrays["given"].min()) < 0:
            raise _wrong(file, f"its labels go up to {most}; there are {num_classes} classes")
        np.add.at(counts, (arrays[_CLEAN], arrays["given"]), 1)
        matrix = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    else:
        matrix = _matrix(file)
    sums_to_one = matrix.ndim == 2 and np.allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-6)
    if matrix.shape != (num_classes, num_classes) or not sums_to_one or (matrix < 0).any():
        size = f"{num_classes}×{num_classes}"
        raise _wrong(file, f"it must hold {size} numbers, each row probabilities that sum to 1")
    return matrix


def _matrix(file: str) -> np.ndarray:
    if Path(file).suffix not in _MATRICES:
        raise _wrong(file, f"it must end in {', '.join((*_MATRICES, *_LABELS))}")
    try:
        if file.endswith(".npy"):
            return np.asarray(np.load(file, allow_pickle=False), np.float64)
        return np.loadtxt(file, np.float64, delimiter="," if file.endswith(".csv") else None)
    except _DAMAGED as error:
        raise _wrong(file, one_line(error)) from error


def _arrays(file: str) -> dict[str, np.ndarray]:
    try:
        if file.endswith(".npz"):
            with np.load(file, allow_pickle=False) as archive:
                return dict(archive)
        if file.endswith(".pt"):
            with zipfile.ZipFile(file) as archive:
                (pickled,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
                with archive.open(pickled) as stream:
                    found = _OfArrays(stream).load()
            if isinstance(found, dict) and all(type(one) is np.ndarray for one in found.values()):
                return found
            raise ValueError("it holds something else than arrays with names")
    except _DAMAGED as error:
        raise _wrong(file, one_line(error)) from error
    raise _wrong(file, f"it must end in {' or '.join(_LABELS)}")


class _OfArrays(pickle.Unpickler):
    """Unpickles NumPy arrays and nothing else: a pickle can name any function to be called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, not only NumPy arrays")
        return super().find_class(module, name)


def _places(own_ids: np.ndarray, labels: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Returns where a file has each example, int64 [n]; −1 where it has not."""
    if _IDS in arrays:
        place_of = {own_id: place for place, own_id in enumerate(arrays[_IDS].tolist())}
        return np.array([place_of.get(own_id, -1) for own_id in own_ids.tolist()])
    clean = arrays[_CLEAN]
    of_class = {label: np.flatnonzero(clean == label) for label in np.unique(labels).tolist()}
    whole = np.arange(len(clean))

    def place(own_id: str, label: int) -> int:
        match = _OWN_ID.fullmatch(own_id)
        counted = of_class[label] if match and match[1] else whole
        return int(counted[int(match[2])]) if match and int(match[2]) < len(counted) else -1

    return np.array([place(*one) for one in zip(own_ids.tolist(), labels.tolist(), strict=True)])


def _wrong(file: str, what: str) -> UserError:
    return UserError(f"config.corruption.file is {file!r}; {what}")
