"""Which day verifies a month, and when it begins: pure calendar, no clock.

The version of the program that is in force when the month begins in UTC says day and time zone, so that a new version
in the middle of a month can neither skip a month nor verify it twice; it counts from the next month on.
Source: programs.md, active-referrals: on the 28th of each month, UTC unless the program says another zone.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from schemas.moments import add_months, micros, moment
from schemas.programs import Programs
from schemas.programs.terms import MonthlyDiscount


@dataclass(frozen=True, slots=True)
class VerificationDay:
    """The one day that verifies a month: `month` like 2026-02, `date` like 2026-02-28, `as_of` its first instant."""

    month: str
    date: str
    as_of: int


def month_start(month: str) -> datetime:
    """When a month (2026-02) begins in UTC. Errors: ValueError for what is no month."""
    if len(month) != len("2026-02"):
        raise ValueError(f"{month!r} is no month, like 2026-02")
    return datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)


def month_at(instant: int) -> str:
    """The month that an instant lies in, in UTC."""
    return moment(instant).strftime("%Y-%m")


def first_instant(year: int, month: int, day: int, zone: ZoneInfo) -> int:
    """When a day begins in a zone.

    Midnight that comes twice is its first coming, and a day that begins with a leap of the clock begins at the leap.
    """
    midnight = datetime(year, month, day, tzinfo=zone).astimezone(UTC)
    if midnight.astimezone(zone).replace(tzinfo=None) == datetime(year, month, day):  # noqa: DTZ001  # wall clocks
        return micros(midnight)
    # The wall clock leapt over midnight: the day's first instant lies between the two readings of it.
    early = micros(datetime(year, month, day, tzinfo=zone, fold=1).astimezone(UTC))
    late = micros(midnight)
    while late - early > 1:
        middle = (early + late) // 2
        if moment(middle).astimezone(zone).replace(tzinfo=None) < datetime(year, month, day):  # noqa: DTZ001
            early = middle
        else:
            late = middle
    return late


def verification_day(programs: Programs, program_id: str, month: str) -> VerificationDay | None:
    """The day that verifies a month of a program; None for a program without a monthly discount then, and for a day
    that begins before the year 1 of UTC."""
    start = month_start(month)
    program = programs.at(program_id, micros(start))
    terms = program.term(MonthlyDiscount) if program else None
    if program is None or terms is None:
        return None
    try:
        as_of = first_instant(start.year, start.month, terms.day, program.zone)
    except OverflowError:
        return None
    return VerificationDay(month, f"{month}-{terms.day:02}", as_of)


def published_at(programs: Programs, program_id: str) -> int | None:
    """From when on the service verifies a program's months by itself."""
    versions = programs.versions(program_id)
    return versions[0][0] if versions else None


def monthly_programs(programs: Programs) -> list[str]:
    """The programs that have a monthly discount in any version."""
    return [
        program_id
        for program_id in programs
        if any(program.term(MonthlyDiscount) for _, program in programs.versions(program_id))
    ]


def own_days(programs: Programs, program_id: str, now: int, done: Container[str] = ()) -> Iterator[VerificationDay]:
    """The days up to `now` that the service verifies by itself, oldest first, without the months in `done`.

    They are those that have passed while the program is published; earlier months are verified only when asked.
    """
    since = published_at(programs, program_id)
    if since is None:
        return
    # A zone can be a day away from UTC: a day in UTC's previous month may begin after `since`, or before `now`.
    start, last = month_start(month_at(since)), moment(now) + timedelta(days=1)
    while start <= last:
        month = start.strftime("%Y-%m")
        if month not in done:
            day = verification_day(programs, program_id, month)
            if day is not None and since <= day.as_of <= now:
                yield day
        start = moment(add_months(micros(start), 1))


def next_day(programs: Programs, program_id: str, now: int) -> VerificationDay | None:
    """The first verification day after `now`; None where the program has none any more."""
    start = month_start(month_at(now))
    for months in range(14):
        day = verification_day(programs, program_id, moment(add_months(micros(start), months)).strftime("%Y-%m"))
        if day is not None and day.as_of > now:
            return day
    return None
