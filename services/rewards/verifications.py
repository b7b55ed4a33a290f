"""The stage `rewards.verifications`: when a month is verified, for every partner of a program and only once.

The stage folds by program, not by partner, so that each cell knows the partners of its own partition: on `day.reached`
it asks each of them (verification.due), once per month. The cell of the program's own id counts what all cells say
(verification.started) and all partners decide (verification.done), and answers who asked when the last one has.
A month belongs to those who are partners when their cell begins with it: who is activated later, for a time that lies
before, has no part in it.
Source: programs.md, active-referrals: running the same month twice changes nothing; contract.md, verifications, Order.
"""

from typing import Any

from msgspec.structs import replace

from schemas import commands, events, internal
from schemas.events import Event
from schemas.ids import derived_id
from schemas.moments import format_instant
from schemas.programs import NotYetPublished
from schemas.topics import CALENDAR, COMMANDS_REWARDS, PARTNERS
from schemas.topics import VERIFICATIONS as VERIFICATIONS_TOPIC
from services.rewards.calendar import VerificationDay, verification_day
from services.rewards.facts import Ask, Member, Month, Months
from services.runtime.stage import Answer, Change, Commanded, Context, Emit, Stage, refused

_Change = Change[Months, Member]
_Context = Context[Member]


def key_of(event: Event) -> str | None:
    """The program that an event is about; None for what is of other stages."""
    match event.data:
        case commands.VerifyMonth(partner_id=program_id):
            return program_id
        case (
            events.PartnerActivated(program_id=program_id)
            | events.DayReached(program_id=program_id)
            | internal.VerificationStarted(program_id=program_id)
            | internal.VerificationDone(program_id=program_id)
        ):
            return program_id
        case _:
            return None


def step(context: _Context, state: Months, event: Event) -> _Change:
    """Fold one event of one program in one cell. Errors: Missing; NotYetPublished. Refusals are answers."""
    match event.data:
        case events.PartnerActivated(partner_id=partner_id, activated_at=activated_at):
            return Change(rows={partner_id: Member(activated_at)})
        case events.DayReached() as reached:
            return _start(context, state, reached)
        case commands.VerifyMonth() as asked:
            return _asked(context, state, asked, event.time)
        case internal.VerificationStarted() as started:
            month = _month(state, started.month)
            if started.partition in month.cells:
                return Change()
            cells = {**month.cells, started.partition: started.partners}
            return _counted(context, state, started.month, replace(month, of_cells=started.partitions, cells=cells))
        case internal.VerificationDone() as done:
            month = _month(state, done.month)
            counted = replace(
                month,
                done=month.done + 1,
                assigned=month.assigned + len(done.assigned),
                withheld=month.withheld + done.withheld,
                lapsed=month.lapsed + len(done.lapsed),
            )
            return _counted(context, state, done.month, counted)
        case _:
            return Change()


def _month(state: Months, month: str) -> Month:
    return state.months.get(month, Month())


def _with(state: Months, name: str, month: Month) -> Months:
    return replace(state, months={**state.months, name: month})


def _start(context: _Context, state: Months, reached: events.DayReached) -> _Change:
    """Ask this cell's partners to verify the month. Shape: the first day.reached of a month → one verification.due per
    partner that is active in the program at the day, and one verification.started; any further one → nothing."""
    if context.programs.latest(reached.program_id) is None:
        raise NotYetPublished(reached.program_id)
    name = reached.date[: len("2026-02")]
    month = _month(state, name)
    day = verification_day(context.programs, reached.program_id, name)
    partition, partitions = reached.partition, reached.partitions
    if month.started or day is None or day.date != reached.date or partition is None or partitions is None:
        return Change()
    partners = sorted(
        partner_id for partner_id, member in context.rows.all().items() if member.activated_at < day.as_of
    )
    emits = [_due(partner_id, reached.program_id, day) for partner_id in partners]
    started = internal.VerificationStarted(
        program_id=reached.program_id,
        month=name,
        partition=partition,
        partitions=partitions,
        partners=len(partners),
    )
    emits.append(Emit(derived_id("started", reached.program_id, name, partition), day.as_of, started))
    return Change(_with(state, name, replace(month, started=True)), emits=tuple(emits))


def _due(partner_id: str, program_id: str, day: VerificationDay) -> Emit:
    due = internal.VerificationDue(partner_id=partner_id, program_id=program_id, month=day.month, as_of=day.as_of)
    return Emit(derived_id("due", partner_id, program_id, day.month), day.as_of, due)


def _asked(context: _Context, state: Months, asked: commands.VerifyMonth, at: int) -> _Change:
    """Note who asks for a month that is not verified yet; answer at once for one that is.

    Errors: NotYetPublished for a program that only the API knows yet; 422 `not_a_verification_day` for a month that has
    no day, or whose day has not come.
    """
    program_id = asked.partner_id
    if context.programs.latest(program_id) is None:
        raise NotYetPublished(program_id)
    day = verification_day(context.programs, program_id, asked.month)
    if day is None or day.as_of > at:
        detail = "The program does not verify on this day, or it has not come yet."
        return Change(answers=(refused(asked, "not_a_verification_day", detail, status=422),))
    month = _month(state, asked.month)
    if month.is_complete:
        return Change(answers=(_answer(program_id, day, month, asked),))
    ask = Ask(asked.command_id, asked.body_hash, asked.caller)
    return Change(_with(state, asked.month, replace(month, asks=(*month.asks, ask))))


def _counted(context: _Context, state: Months, name: str, month: Month) -> _Change:
    """Keep the count; answer who waits when it is complete."""
    if not month.is_complete or not month.asks:
        return Change(_with(state, name, month))
    day = verification_day(context.programs, context.key, name)
    if day is None:
        raise NotYetPublished(context.key)
    answers = tuple(_answer(context.key, day, month, ask) for ask in month.asks)
    return Change(_with(state, name, replace(month, asks=())), answers=answers)


def _answer(program_id: str, day: VerificationDay, month: Month, to: Commanded) -> Answer:
    body: dict[str, Any] = {
        "program_id": program_id,
        "month": day.month,
        "as_of": format_instant(day.as_of),
        "partners": month.partners,
        "assigned": month.assigned,
        "withheld": month.withheld,
        "lapsed": month.lapsed,
    }
    return Answer(to, 200, body)


VERIFICATIONS: Stage[Months, Member] = Stage(
    name="rewards.verifications",
    reads=(PARTNERS, CALENDAR, VERIFICATIONS_TOPIC, COMMANDS_REWARDS),
    empty=Months(),
    step=step,
    row=Member,
    key=key_of,
)
