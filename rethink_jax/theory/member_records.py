"""What is kept of the members of an ensemble on subsets: `members.npz`."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from rethink_jax.kernels.matrix import read_arrays

logger = logging.getLogger(__name__)


class Records(NamedTuple):
    """The subsets of t members and what they answered; the file has the last three as packed bits.

    Attributes:
      member: int32 [t], their numbers.
      fraction: float64 [t], the share of the examples that each was trained on.
      is_member: bool [t, n], the examples that it was trained on.
      train_correct: bool [t, n], whether its answer is the label that training had.
      test_correct: bool [t, m], whether its answer is the true label.
    """

    member: np.ndarray
    fraction: np.ndarray
    is_member: np.ndarray
    train_correct: np.ndarray
    test_correct: np.ndarray


_BITS = ("is_member", "train_correct", "test_correct")


def empty(num_train: int, num_test: int) -> Records:
    """Returns the records of no members."""
    no_bits = (np.zeros((0, width), bool) for width in (num_train, num_train, num_test))
    return Records(np.zeros(0, np.int32), np.zeros(0), *no_bits)


def add(
    records: Records,
    numbers: Sequence[int],
    fraction: float,
    is_member: np.ndarray,
    train_correct: np.ndarray,
    test_correct: np.ndarray,
) -> Records:
    """Returns the records with those of further members of one fraction behind them."""
    own = Records(
        np.asarray(numbers, np.int32),
        np.full(len(numbers), fraction),
        is_member,
        train_correct,
        test_correct,
    )
    return Records(*(np.concatenate(parts) for parts in zip(records, own, strict=True)))


def save(records: Records, file: epath.Path) -> None:
    """Writes the records into a file, whose bytes depend on them alone."""
    widths = {"num_train": records.is_member.shape[1], "num_test": records.test_correct.shape[1]}
    bits = {name: np.packbits(getattr(records, name), axis=1) for name in _BITS}
    with file.open("wb") as stream:
        np.savez(stream, member=records.member, fraction=records.fraction, **widths, **bits)  # type: ignore[arg-type]


def restore(file: epath.Path, num_train: int, num_test: int) -> Records:
    """Reads the records of a run that resumes; those of no members where there is no file, or a damaged one.

    Raises:
      RunFailed: the file cannot be read.

    Example:
      >>> import tempfile
      >>> before = add(empty(3, 1), [7], 0.7, *(np.ones((1, k), bool) for k in (3, 3, 1)))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = epath.Path(folder) / "members.npz"
      ...     save(before, file)
      ...     restore(file, 3, 1).is_member
      array([[ True,  True,  True]])
    """
    if not file.exists():
        return empty(num_train, num_test)
    saved = read_arrays(file)
    widths = dict(zip(_BITS, (num_train, num_train, num_test), strict=True))
    count = len(saved.get("member", ()))
    shapes = {name: (count, -(-width // 8)) for name, width in widths.items()}
    if {name: saved[name].shape for name in _BITS if name in saved} != shapes:
        logger.warning("%s is damaged; the members are trained again", file)
        return empty(num_train, num_test)
    bits = (
        np.unpackbits(saved[name], axis=1, count=width).astype(bool)
        for name, width in widths.items()
    )
    return Records(saved["member"], saved["fraction"], *bits)
