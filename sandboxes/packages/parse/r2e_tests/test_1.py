from datetime import datetime, timedelta

import pytest
from parse import parse


def offset(text):
    return parse("{:ti}", f"2024-03-01T12:00:00 {text}")[0].utcoffset()


@pytest.mark.parametrize(("text", "hours"), [("+00:00", 0), ("+01:00", 1), ("+05:30", 5.5), ("+12:45", 12.75)])
def test_east_of_greenwich(text, hours):
    assert offset(text) == timedelta(hours=hours)


@pytest.mark.parametrize(("text", "hours"), [("-01:00", -1), ("-11:00", -11)])
def test_whole_hours_west(text, hours):
    assert offset(text) == timedelta(hours=hours)


@pytest.mark.parametrize(("text", "hours"), [("-03:30", -3.5), ("-09:30", -9.5)])
def test_half_hours_west(text, hours):
    assert offset(text) == timedelta(hours=hours)


def test_less_than_an_hour_west():
    assert offset("-00:30") == timedelta(minutes=-30)


def test_without_a_colon():
    assert offset("+0530") == timedelta(hours=5.5)
    assert offset("-0330") == timedelta(hours=-3.5)


def test_whole_hours_without_a_colon():
    assert offset("-1000") == timedelta(hours=-10)


def test_mail_dates():
    when = parse("{:te}", "Mon, 21 Nov 2011 10:21:36 -0330")[0]
    assert when.utcoffset() == timedelta(hours=-3.5)
    assert when.replace(tzinfo=None) == datetime(2011, 11, 21, 10, 21, 36)


def test_log_dates():
    when = parse("{:th}", "21/Nov/2011:10:21:36 +1000")[0]
    assert when.utcoffset() == timedelta(hours=10)


def test_no_offset():
    assert parse("{:ti}", "2024-03-01T12:00:00")[0] == datetime(2024, 3, 1, 12)


def test_the_offset_keeps_its_text_as_name():
    assert parse("{:ti}", "2024-03-01T12:00:00 +05:30")[0].tzname() == "+05:30"


def test_too_many_minutes_are_refused():
    with pytest.raises(ValueError):
        parse("{:ti}", "2024-03-01T12:00:00 +05:70")
