"""Time: RFC 3339 with an offset outside, microseconds inside, calendar months that are clamped."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.moments import DAY, SECOND, NoOffset, add_months, format_instant, micros, moment, parse_instant

FIRST = micros(datetime(1, 1, 1, tzinfo=UTC))
LAST = micros(datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))
INSTANTS = st.integers(FIRST, LAST)
COMMON = st.integers(micros(datetime(1900, 1, 1, tzinfo=UTC)), micros(datetime(2200, 1, 1, tzinfo=UTC)))
NOON = micros(datetime(2026, 2, 28, 12, tzinfo=UTC))
NEW_YEAR = micros(datetime(2017, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-02-28T12:00:00Z", NOON),
        ("2026-02-28T12:00:00+00:00", NOON),
        ("2026-02-28T12:00:00-00:00", NOON),
        ("2026-02-28T14:00:00+02:00", NOON),
        ("2026-02-28T17:45:00+05:45", NOON),
        ("2026-02-28T02:30:00-09:30", NOON),
        ("2026-03-01T01:00:00+13:00", NOON),
        ("2026-02-28t12:00:00z", NOON),
        ("2026-02-28T12:00:00.0Z", NOON),
        ("2026-02-28T12:00:00.25Z", NOON + 250_000),
        ("2026-02-28T12:00:00.000001Z", NOON + 1),
        ("2026-02-28T12:00:00.000001999Z", NOON + 1),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2024-02-29T00:00:00Z", micros(datetime(2024, 2, 29, tzinfo=UTC))),
        # a leap second is the instant that follows it
        ("2016-12-31T23:59:60Z", NEW_YEAR),
        ("2016-12-31T23:59:60.25Z", NEW_YEAR + 250_000),
        ("2016-12-31T15:59:60-08:00", NEW_YEAR),
        ("2017-01-01T05:29:60+05:30", NEW_YEAR),
        ("2017-01-01t00:59:60+01:00", NEW_YEAR),
    ],
)
def test_rfc_3339_text_is_an_instant(text: str, instant: int) -> None:
    assert parse_instant(text) == instant


@pytest.mark.parametrize("text", ["2026-02-28T12:00:00", "2026-02-28T12:00:00.5", "2026-02-28t12:00:00"])
def test_time_without_offset_is_refused_as_such(text: str) -> None:
    with pytest.raises(NoOffset):
        parse_instant(text)


@pytest.mark.parametrize(
    "value",
    [
        *("", "now", "2026-02-28", "12:00:00Z", "2026-02-28 12:00:00Z", "2026-02-28T12:00Z", "20260228T120000Z"),
        *("2026-02-30T00:00:00Z", "2025-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-02-28T25:00:00Z"),
        *("2026-02-28T12:00:60Z", "2026-02-28T12:00:00+24:00", "2026-02-28T12:00:00+0200", "2026-W09-6T12:00:00Z"),
        *("2026-02-28T12:00:00.Z", "2026-02-28T12:00:00Z\n", " 2026-02-28T12:00:00Z", "+2026-02-28T12:00:00Z"),
        *("2016-12-31T23:58:60Z", "2016-12-31T23:59:61Z", "2016-12-31T23:59:60+05:30", "2016-12-32T23:59:60Z"),
        *("2026-02-28T12:00:00+05:60", "2026-02-28T12:00:00+05:99", "2026-02-28T12:00:00+25:00"),
        *("2026-02-28T12:00:00-99:00", "2026-02-28T24:00:00Z", "2026-02-28T12:60:00Z"),
        *("0000-01-01T00:00:00Z", "２０２６-02-28T12:00:00Z", "2016-12-31T22:59:60Z"),
        *(1, 1.5, True, None, b"2026-02-28T12:00:00Z", datetime(2026, 2, 28, tzinfo=UTC)),
    ],
)
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(ValueError) as caught:
        parse_instant(value)
    assert not isinstance(caught.value, NoOffset)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "9999-12-31T23:59:60Z"])
def test_time_that_utc_has_no_year_for_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="1 to 9999"):
        parse_instant(text)


@given(INSTANTS)
def test_instant_survives_its_text(instant: int) -> None:
    assert parse_instant(format_instant(instant)) == instant
    assert micros(moment(instant)) == instant


@given(INSTANTS.filter(lambda instant: FIRST + DAY < instant < LAST - DAY), st.integers(-1439, 1439))
def test_offset_names_the_same_instant(instant: int, minutes: int) -> None:
    there = moment(instant) + timedelta(minutes=minutes)
    sign = "-" if minutes < 0 else "+"
    text = f"{there.replace(tzinfo=None).isoformat()}{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    assert parse_instant(text) == instant


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (NOON, "2026-02-28T12:00:00Z"),
        (NOON + 250_000, "2026-02-28T12:00:00.250Z"),
        (NOON + 1, "2026-02-28T12:00:00.000001Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (FIRST, "0001-01-01T00:00:00Z"),
        (LAST, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_text_has_a_fraction_only_where_there_is_one(instant: int, text: str) -> None:
    assert format_instant(instant) == text


# --- the same as when it was written plainly ------------------------------------------------------------------------


def _plainly_written(instant: int) -> str:
    fraction = instant % SECOND
    precision = "seconds" if not fraction else "milliseconds" if not fraction % 1000 else "microseconds"
    return moment(instant).isoformat(timespec=precision).removesuffix("+00:00") + "Z"


def _plainly_read(text: str) -> int:
    return (datetime.fromisoformat(text.upper()).astimezone(UTC) - moment(0)) // timedelta(microseconds=1)


@given(INSTANTS | st.builds(lambda at, unit: at // unit * unit, INSTANTS, st.sampled_from((1000, SECOND))))
def test_text_is_the_one_of_the_standard_library(instant: int) -> None:
    text = format_instant(instant)
    assert text == format_instant(instant) == _plainly_written(instant)
    assert parse_instant(text) == parse_instant(text) == _plainly_read(text)


@given(
    st.from_regex(
        r"[12]\d{3}-[01]\d-[0-3]\d[Tt][0-2]\d:[0-5]\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-][01]\d:[0-5]\d)", fullmatch=True
    )
)
def test_instant_is_the_one_of_the_standard_library(text: str) -> None:
    try:
        plainly = _plainly_read(text)
    except ValueError:
        with pytest.raises(ValueError):
            parse_instant(text)
    else:
        assert parse_instant(text) == plainly


@pytest.mark.parametrize("instant", [FIRST - 1, LAST + 1])
def test_instant_outside_of_utcs_years_is_not_written(instant: int) -> None:
    with pytest.raises(OverflowError):
        format_instant(instant)


@pytest.mark.parametrize(
    ("start", "months", "end"),
    [
        ("2026-01-31T10:00:00Z", 1, "2026-02-28T10:00:00Z"),
        ("2024-01-31T10:00:00Z", 1, "2024-02-29T10:00:00Z"),
        ("2026-01-31T10:00:00Z", 2, "2026-03-31T10:00:00Z"),
        ("2026-03-31T10:00:00Z", 1, "2026-04-30T10:00:00Z"),
        ("2026-08-31T23:59:59.999999Z", 6, "2027-02-28T23:59:59.999999Z"),
        ("2024-02-29T00:00:00Z", 12, "2025-02-28T00:00:00Z"),
        ("2024-02-29T00:00:00Z", 48, "2028-02-29T00:00:00Z"),
        ("2099-02-28T00:00:00Z", 12, "2100-02-28T00:00:00Z"),
        ("1999-01-29T00:00:00Z", 13, "2000-02-29T00:00:00Z"),
        ("2025-12-31T00:00:00Z", 1, "2026-01-31T00:00:00Z"),
        ("2026-01-15T00:00:00Z", 12, "2027-01-15T00:00:00Z"),
        ("2026-11-30T00:00:00Z", 1, "2026-12-30T00:00:00Z"),
        ("2026-03-31T00:00:00Z", -1, "2026-02-28T00:00:00Z"),
        ("2026-01-31T00:00:00Z", -2, "2025-11-30T00:00:00Z"),
        ("2026-05-31T00:00:00Z", 0, "2026-05-31T00:00:00Z"),
    ],
)
def test_month_is_added_on_the_calendar_and_clamped(start: str, months: int, end: str) -> None:
    assert format_instant(add_months(parse_instant(start), months)) == end


@given(COMMON, st.integers(-1200, 1200))
def test_added_months_keep_the_time_of_day_and_never_pass_the_month(instant: int, months: int) -> None:
    before, after = moment(instant), moment(add_months(instant, months))
    assert after.timetz() == before.timetz()
    assert (after.year * 12 + after.month) - (before.year * 12 + before.month) == months
    assert after.day == before.day or (after.day < before.day and (after + timedelta(days=1)).day == 1)


@given(COMMON, st.integers(0, 31 * DAY), st.integers(0, 1200))
def test_later_start_never_ends_earlier(instant: int, later: int, months: int) -> None:
    ends = [moment(add_months(start, months)).date() for start in (instant, instant + later)]
    assert ends == sorted(ends)


def test_units_are_microseconds() -> None:
    assert (SECOND, DAY) == (1_000_000, 86_400_000_000)
