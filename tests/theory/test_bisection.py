import math

import pytest
from hypothesis import given, strategies as st

from rethink_jax.theory.bisection import Bracket, next_number


def search(limit, guess, precision, is_fitted):
    """Returns the bracket at the end, and what was tried."""
    bracket, tried = Bracket(), []
    while (number := next_number(bracket, guess, limit, precision)) is not None:
        tried.append(number)
        assert len(tried) < 200
        bracket = bracket.update(number, is_fitted(number))
    return bracket, tried


@given(
    st.integers(1, 60_000), st.data(), st.integers(1, 10**6), st.sampled_from([0.001, 0.05, 0.5, 1])
)
def test_the_largest_number_is_found(limit, data, guess, precision):
    largest = data.draw(st.integers(0, limit))
    bracket, tried = search(limit, guess, precision, lambda number: number <= largest)
    assert all(1 <= number <= limit for number in tried)
    assert len({*tried}) == len(tried)
    if largest == limit:
        assert bracket == (limit, None)
    else:
        assert bracket.low <= largest < bracket.high
        assert bracket.high - bracket.low <= 1 or bracket.high <= (1 + precision) * bracket.low
    most = math.log(limit) / math.log(1.5) + math.log2(limit) + 3
    assert len(tried) <= most


@given(
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.functions(like=lambda n: ..., returns=st.booleans()),
)
def test_it_ends_whatever_the_answers_are(limit, guess, answer):
    bracket, _ = search(limit, guess, 0.05, answer)
    assert bracket.low <= limit
    assert bracket.high is None or bracket.low < bracket.high <= limit


def test_nothing_is_fitted():
    assert search(100, 10, 0.05, lambda number: False)[0] == (0, 1)


@pytest.mark.parametrize(("precision", "high"), [(0.05, 105), (0.25, 125), (1, 200)])
def test_the_precision(precision, high):
    bracket, _ = search(10_000, 100, precision, lambda number: number <= 100)
    assert bracket.low == 100
    assert bracket.high <= high
