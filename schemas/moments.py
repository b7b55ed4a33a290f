"""Time: an instant is an integer of microseconds since 1970 UTC; text is RFC 3339 with an offset.

Months are calendar months, clamped at the month's end (31 January + 1 month = 28 or 29 February).
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

SECOND = 1_000_000
DAY = 86_400 * SECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_WITHOUT_ZONE = datetime(1970, 1, 1)  # noqa: DTZ001 (half the cost of an aware one; UTC is meant)
_REMEMBERED = 1 << 14
"""How many texts and instants are remembered: an event says its own time several times, and the next stage again."""
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?!24)[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-5][0-9])?"
)
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
"""A day as it is written, in ASCII digits alone: it must not have two names. Not whether there is such a day."""
_HOW_TO_WRITE = "write a time as RFC 3339, like 2026-02-28T12:00:00Z"
_YEARS = "a time lies in the years 1 to 9999 of UTC"


class NoOffset(ValueError):
    """A time without an offset names no instant."""


def parse_instant(value: Any) -> int:
    """Microseconds of an RFC 3339 text.

    Errors: NoOffset without an offset; ValueError for anything else that is no time.
    """
    if not isinstance(value, str):
        raise ValueError(_HOW_TO_WRITE)  # noqa: TRY004  # pydantic catches ValueError alone
    return _parsed(value)


@lru_cache(maxsize=_REMEMBERED)
def _parsed(text: str) -> int:
    match = _RFC3339.fullmatch(text)
    if not match:
        raise ValueError(_HOW_TO_WRITE)
    if not match[2]:
        raise NoOffset("a time needs an offset, like 2026-02-28T12:00:00Z")
    try:
        return micros(datetime.fromisoformat(text.upper()).astimezone(UTC))
    except ValueError:
        if text[17:19] != "60":
            raise
        return _after_leap_second(text)
    except OverflowError:
        raise ValueError(_YEARS) from None


def _after_leap_second(text: str) -> int:
    """The instant after second 59, which a second 60 is here.

    Errors: ValueError unless a day of UTC ends there.
    """
    last = moment(_parsed(f"{text[:17]}59{text[19:]}"))
    if (last.hour, last.minute) != (23, 59):
        raise ValueError(_HOW_TO_WRITE)
    try:
        return micros(last + timedelta(seconds=1))
    except OverflowError:
        raise ValueError(_YEARS) from None


def micros(moment: datetime) -> int:
    """The instant of an aware datetime."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds


def moment(instant: int) -> datetime:
    """The aware UTC datetime of an instant."""
    return _EPOCH + timedelta(microseconds=instant)


@lru_cache(maxsize=_REMEMBERED)
def format_instant(instant: int) -> str:
    """RFC 3339 in UTC; milliseconds or microseconds only where there are some."""
    text = (_EPOCH_WITHOUT_ZONE + timedelta(0, 0, instant)).isoformat()  # no fraction, or all six digits of it
    return (text[:-3] if instant % 1000 == 0 and instant % SECOND else text) + "Z"


@lru_cache(maxsize=_REMEMBERED)
def add_months(instant: int, months: int) -> int:
    """The instant that many calendar months later, clamped at the month's end."""
    at = moment(instant)
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    if at.day <= 28:  # every month has that day
        return micros(at.replace(year=year, month=month + 1))
    next_first = datetime(year + (month + 1) // 12, (month + 1) % 12 + 1, 1, tzinfo=UTC)
    last_day = (next_first - timedelta(days=1)).day
    return micros(at.replace(year=year, month=month + 1, day=min(at.day, last_day)))


WIRE = {"wire": True}
"""Validation context of what came from outside, where an instant is text and never a bare number."""


def _instant(value: Any, info: ValidationInfo) -> int:
    if type(value) is str:
        return _parsed(value)
    return value if type(value) is int and not info.context else parse_instant(value)


Instant = Annotated[
    int,
    BeforeValidator(_instant, json_schema_input_type=str),
    PlainSerializer(format_instant, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-02-28T12:00:00Z"]}),
]
"""An instant: RFC 3339 text outside, microseconds since 1970 UTC inside."""
