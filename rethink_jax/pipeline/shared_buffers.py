"""Shared memory in which worker processes hand arrays to their parent; it is reused once the parent is done.

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


class SharedBuffers:
    """Buffers for arrays of one shape, a fixed number per worker; its copy in a worker maps the same memory.

    A worker acquires a buffer, fills it and sends its number to the parent. The buffer is free again when the
    array that the parent got from `view`, and all views of that array, have been collected.
    """

    def __init__(self, workers: int, each: int, shape: tuple[int, ...]):
        """Reserves the memory (Linux: `memfd_create`); pages are used only once they are written to.

        Args:
          workers: the number of worker processes.
          each: buffers per worker.
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

    def acquire(self, worker: int) -> int | None:
        """Reserves a free buffer and returns its number, None where there is none; called in its worker."""
        first = worker * self._each
        place = self._memory.find(b"\0", first, first + self._each)
        if place < 0:
            return None
        self._memory[place] = 1
        return place

    def view(self, place: int, free_after: bool = False) -> np.ndarray:
        """Returns a buffer as an array, uint8 of the buffers' shape, without copying.

        Args:
          place: the buffer's number, as `acquire` returned it.
          free_after: whether the buffer is freed when the array and all of its views are gone.
        """
        block = (ctypes.c_uint8 * math.prod(self._shape)).from_buffer(
            self._memory, self._offset(place)
        )
        if free_after:
            # Not on the array: NumPy lets a view refer to what lies beneath its parent.
            weakref.finalize(block, self._memory.__setitem__, place, 0).atexit = False
        return np.ndarray(self._shape, np.uint8, memoryview(block))

    def close(self) -> None:
        """Closes the memory to workers that start later; arrays stay valid."""
        os.close(self._file)

    def _offset(self, place: int) -> int:
        def pages(size: int) -> int:
            return -(-size // _PAGE) * _PAGE

        return pages(self._workers * self._each) + place * pages(math.prod(self._shape))
