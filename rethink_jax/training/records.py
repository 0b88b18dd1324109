"""What a network answers to every example over a run: records on disk, and their reading.

A record belongs to an evaluation. It has each training example as it was presented in the epoch that ends
there, before its step, and each example of both splits with the fixed weights of the evaluation. On disk
margins and losses have half precision, three digits, and norms of errors 8 bits, steps of 0.006.
"""

import re
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from rethink_jax.data import DatasetInfo
from rethink_jax.errors import UserError, one_line
from rethink_jax.runs import files

FOLDER = "records"
_DAMAGED = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
_WHEN = ("presented", "train", "test")
_NORM, _MOST_BITS, _NO_NUMBER = "train_error_norm", 254, 255
_FILE = re.compile(r"(step|presented)-(\d{8})\.npz")


class OfExamples(NamedTuple):
    """Each example's values at one time, or at several with a leading axis; those not seen have −1 and NaN.

    Attributes:
      answer: int8, int16 or int32 [n], the class of the greatest logit; −1 where one is no number.
      margin: float32 [n], the label's logit less the greatest other one.
      loss: float32 [n], cross-entropy.

    Margin and loss are by the labels trained on; those of test examples by the true ones.
    """

    answer: np.ndarray
    margin: np.ndarray
    loss: np.ndarray


class Records(NamedTuple):
    """The records of a run.

    Attributes:
      steps: int64 [records], at which they were made.
      presented, train, test: values [records, n].
      error_norm: of each training example at the evaluation the norm of the probabilities less the one-hot
        label, float32 [records, n], in [0, √2], NaN for no number; None in runs of an older version.
    """

    steps: np.ndarray
    presented: OfExamples
    train: OfExamples
    test: OfExamples
    error_norm: np.ndarray | None = None


def empty(n: int, num_classes: int) -> OfExamples:
    """Returns values of n examples, none of which was seen."""
    answer = next(
        dtype for dtype in (np.int8, np.int16, np.int32) if num_classes <= np.iinfo(dtype).max
    )
    nan = np.full(n, np.nan, np.float32)
    return OfExamples(np.full(n, -1, answer), nan, nan.copy())


def fill(values: OfExamples, sums: dict[str, np.ndarray], suffix: str = "") -> None:
    """Enters what a dispatch tells of its examples, as `steps.of_examples` has it."""
    seen = sums["ids"] >= 0
    ids = sums["ids"][seen]
    values.answer[ids] = sums["answers"][seen]
    values.margin[ids] = sums[f"margins{suffix}"][seen]
    values.loss[ids] = sums[f"losses{suffix}"][seen]


class Writer:
    """Collects and writes a run's records; all processes collect, the primary one writes."""

    def __init__(self, path: epath.Path, info: DatasetInfo):
        self._folder, self._info = path / FOLDER, info
        self._presented = empty(info.num_train, info.num_classes)
        self._evaluated: dict[str, OfExamples] = {}
        self._error_norm = np.full(info.num_train, np.nan, np.float32)

    def begin_epoch(self) -> None:
        """Forgets what was presented before."""
        self._presented = empty(self._info.num_train, self._info.num_classes)

    def present(self, sums: dict[str, np.ndarray]) -> None:
        """Collects a dispatch of training."""
        fill(self._presented, sums)

    def evaluate(self, split: str, sums: dict[str, np.ndarray]) -> None:
        """Collects a dispatch of an evaluation; test examples by their true labels."""
        if split not in self._evaluated:
            n = self._info.num_train if split == "train" else self._info.num_test
            self._evaluated[split] = empty(n, self._info.num_classes)
        fill(self._evaluated[split], sums, "_true" if split == "test" else "")
        if split == "train":
            seen = sums["ids"] >= 0
            self._error_norm[sums["ids"][seen]] = sums["error_norms"][seen]

    def write(self, step: int) -> None:
        """Writes the record of an evaluation."""
        groups = {"presented": self._presented, **self._evaluated}
        self._save(f"step-{step:08d}.npz", groups, {_NORM: _to_bits(self._error_norm)})

    def forget_evaluation(self) -> None:
        """Forgets the last evaluation, on all processes."""
        self._evaluated = {}
        self._error_norm[:] = np.nan

    def keep_presented(self, step: int, checkpoints: list[int]) -> None:
        """Writes what the epoch has presented, beside a checkpoint, and removes what is of none any more."""
        self._save(f"presented-{step:08d}.npz", {"presented": self._presented}, {})
        for name, of_step in _steps_in(self._folder, "presented").items():
            if of_step not in (*checkpoints, step):
                (self._folder / name).unlink()

    def restore(self, step: int) -> None:
        """Restores what was presented before a checkpoint; `UserError` where it is missing."""
        if step:
            file = self._folder / f"presented-{step:08d}.npz"
            arrays = _load(file)
            self._presented = OfExamples(
                *(arrays[f"presented_{name}"] for name in OfExamples._fields)
            )

    def cut_back(self, step: int) -> None:
        """Removes what was recorded after a checkpoint's step."""
        for kind in ("step", "presented"):
            for name, of_step in _steps_in(self._folder, kind).items():
                if of_step > step:
                    (self._folder / name).unlink()

    def _save(
        self, name: str, groups: dict[str, OfExamples], others: dict[str, np.ndarray]
    ) -> None:
        most = np.finfo(np.float16).max
        arrays: dict[str, Any] = dict(others)
        for group, values in groups.items():
            arrays[f"{group}_answer"] = values.answer
            for field in ("margin", "loss"):
                array = getattr(values, field).clip(-most, most)
                arrays[f"{group}_{field}"] = array.astype(np.float16)

        def save(partial: epath.Path) -> None:
            with partial.open("wb") as file:
                np.savez_compressed(file, **arrays)

        self._folder.mkdir(exist_ok=True)
        files.write_whole(self._folder / name, save)


def read(path: epath.Path) -> Records | None:
    """Returns the records of a run's directory; None where there are none.

    Raises:
      UserError: naming a file that cannot be read.
    """
    found = _steps_in(path / FOLDER, "step")
    if not found:
        return None
    loaded = [_load(path / FOLDER / name) for name in found]

    def stacked(group: str) -> OfExamples:
        return OfExamples(
            *(np.stack([one[f"{group}_{name}"] for one in loaded]) for name in OfExamples._fields)
        )

    norms = None
    if all(_NORM in one for one in loaded):
        norms = _from_bits(np.stack([one[_NORM] for one in loaded]))
    presented, train, test = map(stacked, _WHEN)
    return Records(np.array([*found.values()]), presented, train, test, norms)


def _to_bits(norm: np.ndarray) -> np.ndarray:
    """Returns norms in [0, √2] as uint8, the greatest one for what is no number."""
    scaled = np.rint(norm * np.float32(_MOST_BITS / np.sqrt(2)))
    return np.where(np.isnan(norm), _NO_NUMBER, scaled.clip(0, _MOST_BITS)).astype(np.uint8)


def _from_bits(bits: np.ndarray) -> np.ndarray:
    scaled = bits.astype(np.float32) * np.float32(np.sqrt(2) / _MOST_BITS)
    return np.where(bits == _NO_NUMBER, np.float32(np.nan), scaled)


def _steps_in(folder: epath.Path, kind: str) -> dict[str, int]:
    """Returns the names of our files of one kind with their steps, in the order of these."""
    if not folder.exists():
        return {}
    matches = [match for entry in folder.iterdir() if (match := _FILE.fullmatch(entry.name))]
    of_kind = {match[0]: int(match[2]) for match in matches if match[1] == kind}
    return dict(sorted(of_kind.items(), key=lambda item: item[1]))


def _load(file: epath.Path) -> dict[str, np.ndarray]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {
                name: array.astype(np.float32) if array.dtype == np.float16 else array
                for name, array in archive.items()
            }
    except _DAMAGED as error:
        raise UserError(f"{file} cannot be read: {one_line(error)}") from error
