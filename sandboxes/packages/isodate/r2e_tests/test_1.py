from datetime import date, datetime

import isodate
import pytest


@pytest.mark.parametrize("year", [2015, 2018, 2019, 2020, 2024])
def test_years_that_begin_in_their_first_week(year):
    for week in (1, 10, 52):
        assert isodate.parse_date(f"{year}-W{week:02}-3") == date.fromisocalendar(year, week, 3)


@pytest.mark.parametrize("year", [2010, 2016, 2017, 2021, 2023])
def test_years_that_begin_in_the_last_week_of_the_year_before(year):
    for week in (1, 10, 52):
        assert isodate.parse_date(f"{year}-W{week:02}-3") == date.fromisocalendar(year, week, 3)


def test_the_basic_format():
    assert isodate.parse_date("2024W101") == date(2024, 3, 4)
    assert isodate.parse_date("2021W101") == date(2021, 3, 8)


def test_a_week_without_a_day_is_its_monday():
    assert isodate.parse_date("2022-W05") == date(2022, 1, 31)


def test_a_week_without_a_day_in_other_years():
    assert isodate.parse_date("2024-W05") == date(2024, 1, 29)


def test_date_and_time():
    assert isodate.parse_datetime("2021-W10-1T08:30:00") == datetime(2021, 3, 8, 8, 30)


def test_a_year_of_53_weeks():
    assert isodate.parse_date("2020-W53-7") == date(2021, 1, 3)


def test_ordinal_dates():
    assert isodate.parse_date("2021-067") == date(2021, 3, 8)


def test_calendar_dates():
    assert isodate.parse_date("2021-03-08") == date(2021, 3, 8)
    assert isodate.parse_date("20210308") == date(2021, 3, 8)


def test_months_years_and_centuries():
    assert [isodate.parse_date(text) for text in ("2021-03", "2021", "20")] == [
        date(2021, 3, 1),
        date(2021, 1, 1),
        date(2001, 1, 1),
    ]


def test_nonsense_is_refused():
    with pytest.raises(isodate.ISO8601Error):
        isodate.parse_date("2021-W1")
