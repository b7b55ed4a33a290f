"""The verification day of every month, in every time zone."""

from datetime import timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest

from schemas.events import ProgramPublished, event_json
from schemas.moments import format_instant, moment, parse_instant
from schemas.programs import Programs, shipped
from schemas.programs.terms import MonthlyDiscount, Program
from services.rewards.calendar import first_instant, next_day, own_days, verification_day
from services.rewards.day_timer import Due, days_reached, due_days
from services.rewards.facts import Ask, Month, Months
from tests.worlds import world

MODEL = next(program for program in shipped() if program.program_id == "active-referrals")


def program(timezone: str = "UTC", day: int = 28) -> Program:
    terms = MODEL.term(MonthlyDiscount)
    assert terms is not None
    return MODEL.model_copy(update={"timezone": timezone, "terms": (terms.model_copy(update={"day": day}),)})


def published(*versions: tuple[str, Program]) -> Programs:
    """Versions of the program, each in force from a time."""
    programs = Programs()
    for number, (since, document) in enumerate(versions, 1):
        at = parse_instant(since)
        told = {**document.as_document(), "version": number}
        event = ProgramPublished(program_id=MODEL.program_id, version=number, effective_at=at, document=told)
        programs = programs.with_version(event)
    return programs


def test_every_zone_has_exactly_one_instant_for_each_of_240_months(day: int = 28) -> None:
    for name in sorted(available_timezones()):
        zone, before = ZoneInfo(name), 0
        for number in range(240):
            year, month = 2016 + number // 12, number % 12 + 1
            at = first_instant(year, month, day, zone)
            local, just_before = moment(at).astimezone(zone), moment(at - 1).astimezone(zone)
            assert (local.year, local.month, local.day) == (year, month, day), (name, year, month)
            assert just_before.date() == local.date() - timedelta(days=1), (name, year, month)
            assert before < at
            before = at


@pytest.mark.parametrize(
    ("timezone", "month", "as_of"),
    [
        ("UTC", "2025-02", "2025-02-28T00:00:00Z"),
        ("UTC", "2024-02", "2024-02-28T00:00:00Z"),
        ("Europe/Kyiv", "2025-03", "2025-03-27T22:00:00Z"),
        ("Europe/Kyiv", "2025-04", "2025-04-27T21:00:00Z"),
        ("Pacific/Kiritimati", "2025-02", "2025-02-27T10:00:00Z"),
        ("Pacific/Pago_Pago", "2025-02", "2025-02-28T11:00:00Z"),
        # the clock leaps from 00:00 to 01:00 on this very day
        ("Asia/Beirut", "2021-03", "2021-03-27T22:00:00Z"),
        # 00:00 comes twice: the clock goes back from 01:00 on 28 October 2018 in the Azores
        ("Atlantic/Azores", "2018-10", "2018-10-28T00:00:00Z"),
    ],
)
def test_a_month_is_verified_when_its_day_begins_in_the_programs_zone(timezone: str, month: str, as_of: str) -> None:
    found = verification_day(published(("2020-01-01T00:00:00Z", program(timezone))), MODEL.program_id, month)
    assert found is not None
    assert (found.date, format_instant(found.as_of)) == (f"{month}-28", as_of)


@pytest.mark.parametrize("timezone", ["America/Adak", "Asia/Tokyo"])
def test_a_day_that_begins_before_the_first_year_is_none(timezone: str) -> None:
    """Both lay east of Greenwich then."""
    programs = published(("2020-01-01T00:00:00Z", program(timezone, day=1)))
    found = [verification_day(programs, MODEL.program_id, month) for month in ("0001-01", "0001-02")]
    assert [day and day.date for day in found] == [None, "0001-02-01"]


def test_a_wall_clock_that_leaps_over_midnight_begins_the_day_at_the_leap() -> None:
    # Toronto went from 23:30 of 30 March 1919 to 00:30.
    at = first_instant(1919, 3, 31, ZoneInfo("America/Toronto"))
    assert moment(at).astimezone(ZoneInfo("America/Toronto")).strftime("%d %H:%M") == "31 00:30"


def test_a_new_version_changes_the_day_from_the_next_month_on() -> None:
    programs = published(("2025-01-01T00:00:00Z", program()), ("2025-03-10T00:00:00Z", program("Europe/Kyiv", 5)))
    days = [verification_day(programs, MODEL.program_id, f"2025-0{month}") for month in (2, 3, 4)]
    assert [day and day.date for day in days] == ["2025-02-28", "2025-03-28", "2025-04-05"]


def test_a_program_without_a_monthly_discount_has_no_day() -> None:
    assert verification_day(Programs.of(*shipped()), "keycrm", "2025-02") is None
    assert verification_day(Programs.of(*shipped()), "unheard-of", "2025-02") is None


@pytest.mark.parametrize(
    ("since", "now", "months"),
    [
        ("2025-01-28T00:00:00Z", "2025-04-27T23:59:59Z", ["2025-01", "2025-02", "2025-03"]),
        ("2025-01-28T00:00:01Z", "2025-04-28T00:00:00Z", ["2025-02", "2025-03", "2025-04"]),
        ("2025-01-28T00:00:01Z", "2025-02-27T00:00:00Z", []),
    ],
)
def test_the_service_verifies_by_itself_what_passes_while_the_program_is_published(
    since: str, now: str, months: list[str]
) -> None:
    programs = published((since, program()))
    assert [day.month for day in own_days(programs, MODEL.program_id, parse_instant(now))] == months


def test_the_next_day_is_strictly_after_now() -> None:
    programs = published(("2025-01-01T00:00:00Z", program()))
    found = [
        next_day(programs, MODEL.program_id, parse_instant(now))
        for now in ("2025-02-27T23:59:59Z", "2025-02-28T00:00:00Z")
    ]
    assert [day and day.month for day in found] == ["2025-02", "2025-03"]


# --- what the timer says --------------------------------------------------------------------------------------------

DONE = Month(started=True, of_cells=1, cells={0: 0})
ASKED = Month(asks=(Ask("cmd", "-", "admin:admin"),))
NOW = parse_instant("2025-05-01T00:00:00Z")


def _due(months: dict[str, Month], since: str = "2025-02-01T00:00:00Z") -> list[str]:
    programs = published((since, program()))
    return [due.day.month for due in due_days(programs, {MODEL.program_id: Months(months)}, NOW)]


def test_an_outage_is_caught_up_one_month_after_the_other() -> None:
    assert _due({}) == ["2025-02"]
    assert _due({"2025-02": DONE}) == ["2025-03"]
    assert _due({"2025-02": DONE, "2025-03": DONE, "2025-04": DONE}) == []
    assert _due({"2025-02": Month(started=True, of_cells=2, cells={0: 1}, done=1)}) == ["2025-02"]


def test_earlier_months_come_only_when_they_are_asked_for() -> None:
    assert _due({"2024-11": ASKED, "2025-03": ASKED}) == ["2024-11", "2025-02", "2025-03"]
    assert _due({"2026-03": ASKED}) == ["2025-02"]  # a day that has not come is not said, whoever asks


def test_a_day_that_a_clock_ahead_says_too_early_begins_no_month_until_it_is_said_again() -> None:
    made = world()
    day = verification_day(made.programs, MODEL.program_id, "2026-02")
    assert day is not None
    for appended_at, begun in ((day.as_of - 1, 0), (day.as_of, made.partitions), (day.as_of + 1, made.partitions)):
        for partition, event in enumerate(days_reached(Due(MODEL.program_id, day), made.partitions)):
            made.append("calendar", partition, str(partition).encode(), event_json(event), appended_at=appended_at)
        made.run()
        assert len(made.events("verifications")) == begun


def test_a_day_is_said_once_in_every_partition_under_ids_of_its_own() -> None:
    day = verification_day(published(("2025-01-01T00:00:00Z", program())), MODEL.program_id, "2025-02")
    assert day is not None
    events = days_reached(Due(MODEL.program_id, day), 4)
    assert events == days_reached(Due(MODEL.program_id, day), 4)
    assert len({event.id for event in events}) == 4
    assert {event.time for event in events} == {day.as_of}
