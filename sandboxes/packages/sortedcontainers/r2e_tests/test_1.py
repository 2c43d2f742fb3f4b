import pytest
from sortedcontainers import SortedDict, SortedKeyList, SortedList, SortedSet


def in_parts(values, load=4):
    """A list whose values are stored in many small parts."""
    made = SortedList()
    made._reset(load)
    made.update(values)
    made._check()
    return made


def test_a_small_list_stops_before_the_maximum():
    assert list(SortedList("abcdef").irange("b", "e", inclusive=(True, False))) == ["b", "c", "d"]


def test_both_ends_are_included_by_default():
    values = in_parts(range(40))
    for top in range(40):
        assert list(values.irange(top - 3, top)) == list(range(max(top - 3, 0), top + 1))


def test_the_maximum_is_left_out_wherever_it_is_stored():
    values = in_parts(range(40))
    for top in range(40):
        assert list(values.irange(top - 3, top, inclusive=(True, False))) == list(range(max(top - 3, 0), top))


def test_the_maximum_is_left_out_in_reverse_too():
    values = in_parts(range(40))
    for top in range(40):
        found = list(values.irange(None, top, inclusive=(True, False), reverse=True))
        assert found == list(range(top - 1, -1, -1))


def test_equal_values_in_several_parts_are_all_left_out():
    values = in_parts([1] * 3 + [2] * 11 + [3] * 5)
    assert list(values.irange(1, 2, inclusive=(True, False))) == [1] * 3


def test_the_minimum_is_left_out_wherever_it_is_stored():
    values = in_parts(range(40))
    for low in range(40):
        assert list(values.irange(low, low + 3, inclusive=(False, True))) == list(range(low + 1, min(low + 4, 40)))


def test_neither_end():
    values = in_parts(range(40))
    for low in range(37):
        assert list(values.irange(low, low + 3, inclusive=(False, False))) == [low + 1, low + 2]


def test_a_maximum_beyond_the_list():
    assert list(in_parts(range(20)).irange(17, 99, inclusive=(True, False))) == [17, 18, 19]


def test_a_maximum_between_the_values():
    values = in_parts(range(0, 60, 2))
    assert list(values.irange(20, 27, inclusive=(True, False))) == [20, 22, 24, 26]


def test_an_empty_list():
    assert list(SortedList().irange(1, 2, inclusive=(True, False))) == []


@pytest.mark.parametrize("top", [0, 1, 500, 1500, 2999])
def test_large_lists_include_both_ends_by_default(top):
    assert list(SortedList(range(3000)).irange(top - 1, top)) == list(range(max(top - 1, 0), top + 1))


def test_large_sets_leave_out_the_maximum():
    values = SortedSet(range(5000))
    assert [top for top in range(5000) if list(values.irange(top, top, inclusive=(True, False)))] == []


def test_large_dictionaries_leave_out_the_maximum():
    keys = SortedDict.fromkeys(range(5000))
    assert [top for top in range(5000) if top in keys.irange(top - 1, top, inclusive=(True, False))] == []


def test_lists_with_a_key_leave_out_the_maximum():
    values = SortedKeyList(range(5000), key=lambda value: -value)
    assert list(values.irange(4999, 4996, inclusive=(True, False))) == [4999, 4998, 4997]
