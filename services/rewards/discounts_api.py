"""HTTP of monthly discounts: what a partner's companies get, verifications, and invoices that take a discount."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from schemas import commands as asks
from schemas.ids import Id
from schemas.moments import DATE, micros
from schemas.money import ChargedAmount
from schemas.programs.terms import MonthlyDiscount
from services.rewards import discounts_views as views
from services.rewards.calendar import (
    VerificationDay,
    month_start,
    monthly_programs,
    next_day,
    own_days,
    verification_day,
)
from services.rewards.discounts import companies_in_order, outcome, shares
from services.rewards.facts import Order, Person, Referral, account_name
from services.rewards.people import PEOPLE
from services.rewards.verifications import VERIFICATIONS
from services.runtime.border import FUTURE_SECONDS
from services.runtime.http import (
    Body,
    Moment,
    Problem,
    Resources,
    TheAdmin,
    TheCaller,
    TheCommands,
    ThePlatform,
    TheResources,
    invalid,
    not_found,
    program_required,
)

router = APIRouter()


class VerificationBody(Body):
    """`date`: the day that verifies its month in the program, not after today there."""

    program_id: Id
    date: Annotated[str, Field(strict=True, pattern=f"^{DATE.pattern}$", examples=["2026-02-28"])]


class UseBody(Body):
    """An invoice of the account; `amount` before any discount."""

    invoice_id: Id
    issued_at: Moment
    amount: ChargedAmount


@router.get("/partners/{partner_id}/discounts", summary="A month's discounts of a partner's companies")
async def discounts(
    partner_id: Id,
    who: TheCaller,
    has: TheResources,
    program_id: Id | None = None,
    month: Annotated[str | None, Query(description="Like 2026-02; without it, the next to be verified.")] = None,
) -> views.DiscountsShown:
    person = await has.reader.state(PEOPLE, partner_id)
    if who.role != "partner" and not person.activations:
        raise not_found()
    program_id = program_id or _only_program(person)
    now = micros(has.settings.now())
    day = _day(has, program_id, month, now)
    known = next((v for v in person.verifications if (v.program_id, v.month) == (program_id, day.month)), None)
    if known is not None:
        return views.decided(person, known)
    months = (await has.reader.state(VERIFICATIONS, program_id)).months
    if day.month in months and months[day.month].is_complete:
        return views.nothing(program_id, day.month, day.as_of)
    as_of = min(day.as_of, now)
    program = has.programs.at(program_id, as_of)
    if program is None:
        raise not_found()
    rows = await has.reader.rows(PEOPLE, partner_id)
    referrals = (row for row in rows.values() if isinstance(row, Referral))
    return views.preview(program_id, day.month, as_of, outcome(person, referrals, program, as_of))


@router.get("/partners/{partner_id}/companies", summary="What each company would get, in the order in force or another")
async def companies(
    partner_id: Id,
    who: TheCaller,
    has: TheResources,
    program_id: Id | None = None,
    order: Annotated[list[Id] | None, Query(max_length=1000, description="Another order, to look at only.")] = None,
) -> views.CompaniesShown:
    """As a verification now would count, those with 0 % too."""
    person = await has.reader.state(PEOPLE, partner_id)
    program_id = program_id or _only_program(person)
    now = micros(has.settings.now())
    program = has.programs.at(program_id, now)
    terms = program.term(MonthlyDiscount) if program else None
    if program is None or terms is None or program_id not in person.activations:
        raise not_found()
    rows = await has.reader.rows(PEOPLE, partner_id)
    found = outcome(person, (row for row in rows.values() if isinstance(row, Referral)), program, now)
    orders = person.orders.get(program_id, ()) if order is None else (Order(now - 1, tuple(order)),)
    in_order = companies_in_order(person.accounts, orders, now)
    return views.companies(program_id, terms, found, shares(terms, found.active_referrals, in_order))


@router.get("/verifications", summary="The months of a program that were verified, newest first")
async def verifications(
    who: TheAdmin, has: TheResources, program_id: Annotated[Id, Query(description="The program.")]
) -> views.VerificationsShown:
    months = (await has.reader.state(VERIFICATIONS, program_id)).months
    return views.VerificationsShown(
        verifications=[
            views.verified(program_id, month, day.as_of, months[month])
            for month in sorted(months, reverse=True)
            if months[month].is_complete and (day := verification_day(has.programs, program_id, month))
        ]
    )


@router.post("/verifications", summary="Verify a month of a program", response_model=views.VerificationShown)
async def verify(
    request: Request, body: VerificationBody, who: TheAdmin, has: TheResources, commands: TheCommands
) -> Response:
    """Runs it as of that day 00:00 in the program's zone, with every record that is in the topics now; 202 until those
    have passed all services. Run before: the same answer, whatever has arrived since."""
    if answer := await commands.earlier(request, who, (VERIFICATIONS,)):
        return answer
    await has.programs_feed.catch_up()
    if has.programs.latest(body.program_id) is None:
        raise not_found()
    month = body.date[: len("2026-02")]
    day = verification_day(has.programs, body.program_id, month) if _is_month(month) else None
    if day is None or day.date != body.date or day.as_of > micros(has.settings.now()):
        detail = "The program does not verify on this day, or it has not come yet."
        raise Problem(422, "not_a_verification_day", detail)
    return await commands.run(request, who, (VERIFICATIONS,), asks.VerifyMonth, partner_id=body.program_id, month=month)


@router.post(
    "/accounts/{account_id}/discount/use",
    summary="Take the discount that an account has off an invoice",
    response_model=views.InvoiceShown,
)
async def use(
    request: Request, account_id: Id, body: UseBody, who: ThePlatform, has: TheResources, commands: TheCommands
) -> Response:
    """The same invoice again gives the same answer, whatever the key. 503 while the verification that the invoice
    falls under is due and not done yet."""
    now = micros(has.settings.now())
    if body.issued_at > now + FUTURE_SECONDS * 1_000_000:
        raise invalid("issued_at", "This time has not come yet.")
    partner_id = await has.reader.find(PEOPLE, account_name(account_id))
    if partner_id is None:
        raise not_found()
    await _require_verified(has, await has.reader.state(PEOPLE, partner_id), body.issued_at)
    return await commands.run(
        request, who, (PEOPLE,), asks.UseDiscount, body, partner_id=partner_id, account_id=account_id
    )


async def _require_verified(has: Resources, person: Person, issued_at: int) -> None:
    """An invoice takes no discount before the verification that it falls under, where the service runs that by itself.

    Errors: Problem 503.
    """
    programs = [each for each in monthly_programs(has.programs) if each in person.activations]
    for program_id, state in zip(programs, await has.reader.states(VERIFICATIONS, programs), strict=True):
        days = list(own_days(has.programs, program_id, issued_at))
        if days and not (days[-1].month in state.months and state.months[days[-1].month].is_complete):
            raise Problem(
                503, "rebuilding", "The month is being verified; ask again soon.", headers={"Retry-After": "1"}
            )


def _only_program(person: Person) -> str:
    """The one program that the partner is in. Errors: 404 for none, 422 `program_required` for several."""
    if not person.activations:
        raise not_found()
    if len(person.activations) > 1:
        raise program_required()
    return next(iter(person.activations))


def _day(has: Resources, program_id: str, month: str | None, now: int) -> VerificationDay:
    """The day that verifies the month that is asked for, or the next one.

    Errors: 404 for a program without a monthly discount; 422 for what is no month.
    """
    latest = has.programs.latest(program_id)
    if latest is None or latest.term(MonthlyDiscount) is None:
        raise not_found()
    if month is not None and not _is_month(month):
        raise invalid("month", "Write a month, like 2026-02.")
    day = (
        next_day(has.programs, program_id, now) if month is None else verification_day(has.programs, program_id, month)
    )
    if day is None:
        raise not_found()
    return day


def _is_month(text: str) -> bool:
    try:
        month_start(text)
    except ValueError:
        return False
    return DATE.fullmatch(f"{text}-01") is not None
