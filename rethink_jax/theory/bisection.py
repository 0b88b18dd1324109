"""The search for the largest number of examples that something fits, from answers that are yes or no."""

import math
from typing import NamedTuple

# From a first guess the search goes up or down by this factor until it has both an answer yes and a no.
_GROWTH = 1.5


class Bracket(NamedTuple):
    """What is known of the largest number that is fitted, if all smaller ones are fitted, too.

    Attributes:
      low: the largest number that was fitted; 0 is.
      high: the smallest one that was not; None where there is none yet.
    """

    low: int = 0
    high: int | None = None

    def update(self, number: int, is_fitted: bool) -> "Bracket":
        """Returns what is known after one more answer.

        Example:
          >>> Bracket(low=40, high=90).update(60, is_fitted=False)
          Bracket(low=40, high=60)
        """
        if is_fitted:
            return self._replace(low=max(self.low, number))
        return self._replace(high=number if self.high is None else min(self.high, number))


def next_number(bracket: Bracket, guess: int, limit: int, precision: float) -> int | None:
    """Returns the number to try next; None where the bracket is narrow enough, or the limit is fitted.

    Args:
      bracket: what is known.
      guess: the first number to try.
      limit: the largest one that there is, 1 or more.
      precision: by what share `high` may exceed `low` in the end; neighbours always may.

    Example:
      >>> next_number(Bracket(), guess=20, limit=1000, precision=0.05)
      20
      >>> next_number(Bracket(low=20), guess=20, limit=1000, precision=0.05)
      30
      >>> next_number(Bracket(low=20, high=30), guess=20, limit=1000, precision=0.05)
      24
      >>> next_number(Bracket(low=29, high=30), guess=20, limit=1000, precision=0.05) is None
      True
    """
    low, high = bracket
    if high is None:
        if low >= limit:
            return None
        return min(max(guess, 1) if low == 0 else math.ceil(_GROWTH * low), limit)
    if high - low <= 1 or high <= (1 + precision) * low:
        return None
    if low == 0:
        return max(1, math.floor(high / _GROWTH))
    return min(max(round(math.sqrt(low * high)), low + 1), high - 1)
