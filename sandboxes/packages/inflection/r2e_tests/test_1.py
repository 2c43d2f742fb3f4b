import inflection
import pytest


@pytest.mark.parametrize(
    ("number", "suffix"),
    [(0, "th"), (1, "st"), (2, "nd"), (3, "rd"), (4, "th"), (10, "th"), (11, "th"), (12, "th"), (13, "th"), (14, "th")],
)
def test_small_numbers(number, suffix):
    assert inflection.ordinal(number) == suffix


@pytest.mark.parametrize(("number", "suffix"), [(101, "st"), (122, "nd"), (1003, "rd"), (1024, "th")])
def test_larger_numbers(number, suffix):
    assert inflection.ordinal(number) == suffix


@pytest.mark.parametrize("number", [111, 212, 313])
def test_the_teens_of_every_hundred(number):
    assert inflection.ordinal(number) == "th"


def test_thousands():
    assert [inflection.ordinalize(n) for n in (1011, 2012, 10013)] == ["1011th", "2012th", "10013th"]


def test_negative_numbers():
    assert [inflection.ordinalize(n) for n in (-1, -11, -21)] == ["-1st", "-11th", "-21st"]


def test_negative_teens_of_a_hundred():
    assert inflection.ordinalize(-112) == "-112th"
