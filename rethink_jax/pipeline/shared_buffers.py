"""Memory where worker processes leave arrays to their parent, filled anew once the parent has let go of them.

Fresh memory for every batch would cost a twentieth of the time that its images take: the system clears its
pages first. No name in a file system, so nothing to clean up, and the size of `/dev/shm` does not matter.
"""

import ctypes
import math
import mmap
import os
import weakref

import numpy as np

_PAGE = mmap.ALLOCATIONGRANULARITY


class Slots:
    """Places for arrays of one shape, so many for each worker; a copy of it in a worker has the same memory.

    A place is taken by its worker (`take`), named to the parent, and free again when what the parent got from
    `array` is collected, with all of its views.
    """

    def __init__(self, workers: int, each: int, shape: tuple[int, ...]):
        """Makes the memory (Linux: `memfd_create`), none of which takes room before it is written to.

        Args:
          workers: processes.
          each: places of one of them.
          shape: of the arrays, uint8.
        """
        self._workers, self._each, self._shape = workers, each, shape
        self._file = os.memfd_create("rethink_jax")
        os.truncate(self._file, self._offset(workers * each))
        self._path = f"/proc/{os.getpid()}/fd/{self._file}"
        self._memory = mmap.mmap(self._file, 0)

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_memory"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        with open(self._path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def take(self, worker: int) -> int | None:
        """Returns a free place of a worker, to be called there, or None; it is not free any more."""
        first = worker * self._each
        place = self._memory.find(b"\0", first, first + self._each)
        if place < 0:
            return None
        self._memory[place] = 1
        return place

    def array(self, place: int, lent: bool = False) -> np.ndarray:
        """Returns what lies in a place.

        Args:
          place: as `take` returned it.
          lent: whether it is free again when the array and all of its views are gone.
        """
        block = (ctypes.c_uint8 * math.prod(self._shape)).from_buffer(
            self._memory, self._offset(place)
        )
        if lent:
            # Not on the array: NumPy lets a view refer to what lies beneath its parent.
            weakref.finalize(block, self._memory.__setitem__, place, 0).atexit = False
        return np.ndarray(self._shape, np.uint8, memoryview(block))

    def close(self) -> None:
        """Ends what workers to come could see; arrays stay as they are."""
        os.close(self._file)

    def _offset(self, place: int) -> int:
        def pages(size: int) -> int:
            return -(-size // _PAGE) * _PAGE

        return pages(self._workers * self._each) + place * pages(math.prod(self._shape))
