from heapq import merge
from itertools import count, islice

import pytest
from toolz import merge_sorted


def first(pair):
    return pair[0]


def test_two_sequences_without_a_key():
    assert list(merge_sorted([1, 3, 5], [2, 4, 6])) == [1, 2, 3, 4, 5, 6]


def test_no_sequence():
    assert list(merge_sorted()) == []


def test_one_sequence_is_passed_on():
    assert list(merge_sorted([3, 1, 2], key=abs)) == [3, 1, 2]


def test_empty_sequences():
    assert list(merge_sorted([], [1], [], key=abs)) == [1]


def test_different_keys():
    assert list(merge_sorted([-1, -3], [2, -4], key=abs)) == [-1, 2, -3, -4]


def test_equal_keys_come_in_the_order_of_the_sequences():
    merged = merge_sorted([("a", 1), ("b", 1)], [("a", 2), ("b", 2)], key=first)
    assert list(merged) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_runs_of_equal_keys():
    merged = merge_sorted([(1, "x"), (1, "y")], [(1, "z"), (2, "z")], key=first)
    assert list(merged) == [(1, "x"), (1, "y"), (1, "z"), (2, "z")]


def test_equal_keys_after_a_smaller_one():
    merged = merge_sorted([(2, "x")], [(1, "y"), (2, "y"), (2, "z")], key=first)
    assert list(merged) == [(1, "y"), (2, "x"), (2, "y"), (2, "z")]


@pytest.mark.parametrize("number", [2, 3, 4, 5, 7])
def test_many_sequences_agree_with_a_stable_sort(number):
    rows = [[(key, place) for key in (1, 1, 2, 3)] for place in range(number)]
    assert list(merge_sorted(*rows, key=first)) == sorted((pair for row in rows for pair in row), key=first)


def test_distinct_keys_of_many_sequences():
    rows = [[(10 * step + place, place) for step in range(4)] for place in range(5)]
    assert list(merge_sorted(*rows, key=first)) == list(merge(*rows, key=first))


def test_a_key_may_turn_the_order_around():
    assert list(merge_sorted([5, 3], [4, 1], key=lambda n: -n)) == [5, 4, 3, 1]


def test_it_stays_lazy():
    assert list(islice(merge_sorted(count(0, 2), count(1, 2), key=abs), 6)) == [0, 1, 2, 3, 4, 5]


def test_it_stays_lazy_without_a_key():
    assert list(islice(merge_sorted(count(0, 2), count(1, 2)), 4)) == [0, 1, 2, 3]


def test_strings():
    assert "".join(merge_sorted("ace", "bd", key=str.lower)) == "abcde"
