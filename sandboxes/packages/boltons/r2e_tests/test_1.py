import pytest
from boltons.iterutils import lstrip, lstrip_iter, rstrip, rstrip_iter, strip, strip_iter


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([0], []),
        ([0, 0], []),
        ([1], [1]),
        ([1, 0], [1]),
        ([1, 0, 0], [1]),
        ([0, 1], [0, 1]),
        ([1, 0, 2], [1, 0, 2]),
    ],
)
def test_the_end_is_stripped(values, expected):
    assert rstrip(values, 0) == expected


def test_runs_in_the_middle_stay():
    assert rstrip([1, 0, 0, 0, 2, 0], 0) == [1, 0, 0, 0, 2]


def test_several_runs_stay():
    assert rstrip([0, 0, 1, 0, 0, 2, 0, 3], 0) == [0, 0, 1, 0, 0, 2, 0, 3]


def test_runs_stay_when_both_ends_are_stripped():
    assert strip([0, 1, 0, 0, 2, 0, 0], 0) == [1, 0, 0, 2]


def test_the_lazy_forms_agree():
    values = [None, "a", None, None, "b", None]
    assert list(rstrip_iter(values)) == [None, "a", None, None, "b"]
    assert list(strip_iter(values)) == ["a", None, None, "b"]


def test_the_start_is_stripped():
    assert lstrip([0, 0, 1, 0, 0, 2, 0], 0) == [1, 0, 0, 2, 0]


def test_the_start_is_stripped_lazily():
    assert list(lstrip_iter(iter("xxaxb"), "x")) == ["a", "x", "b"]


def test_nothing_to_strip():
    assert strip(["a", "b"], "c") == ["a", "b"]


def test_equal_values_of_other_types_are_kept_as_they_are():
    kept = rstrip([1, False, 0, 2], 0)
    assert [type(value) for value in kept] == [int, bool, int, int]


def test_strings_are_stripped_of_none_by_default():
    assert strip([None, "", None]) == [""]
