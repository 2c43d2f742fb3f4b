import pytest
from humanize import naturalsize


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 Bytes"),
        (1, "1 Byte"),
        (999, "999 Bytes"),
        (1000, "1.0 kB"),
        (999_900, "999.9 kB"),
        (1_000_000, "1.0 MB"),
        (3_500_000_000, "3.5 GB"),
    ],
)
def test_decimal(value, text):
    assert naturalsize(value) == text


def test_rounding_up_to_a_thousand_takes_the_next_suffix():
    assert naturalsize(999_999) == "1.0 MB"
    assert naturalsize(999_999_999) == "1.0 GB"


def test_rounding_up_in_binary():
    assert naturalsize(1024**2 - 1, binary=True) == "1.0 MiB"
    assert naturalsize(1024**3 - 1, binary=True) == "1.0 GiB"


def test_rounding_up_in_gnu_style():
    assert naturalsize(1024**2 - 1, gnu=True) == "1.0M"


def test_negative_sizes_round_up_too():
    assert naturalsize(-999_999) == "-1.0 MB"


def test_what_is_rounded_depends_on_the_format():
    assert naturalsize(999_960, format="%.2f") == "999.96 kB"
    assert naturalsize(999_999, format="%.3f") == "999.999 kB"
    assert naturalsize(999_600, format="%.0f") == "1 MB"


def test_binary_below_the_border():
    assert naturalsize(1023 * 1024, binary=True) == "1023.0 KiB"


def test_gnu_style():
    assert [naturalsize(value, gnu=True) for value in (300, 3000, 3_000_000)] == ["300B", "2.9K", "2.9M"]


def test_the_largest_suffix_stays():
    assert naturalsize(10**34) == "10000.0 QB"


def test_strings_are_read_as_numbers():
    assert naturalsize("4096", binary=True) == "4.0 KiB"


def test_negative_sizes():
    assert naturalsize(-4096, binary=True) == "-4.0 KiB"
