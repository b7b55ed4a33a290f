"""HTTP of payouts: balances and statements, and what partners ask to do with their money."""

import asyncio
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Header, Query, Request
from pydantic import BeforeValidator, Field, WithJsonSchema
from starlette.responses import Response

from schemas import commands as asks
from schemas.events import Interval
from schemas.ids import Id
from schemas.moments import DATE, micros, parse_instant
from schemas.money import PositiveAmount
from schemas.programs.terms import WelcomeBonus
from services.payouts import LEDGER, STAGES, lists_api, statement, views
from services.payouts.ledger import balance, totals
from services.payouts.state import Person, WithdrawalRow, deposit_row_id, withdrawal_row_id
from services.runtime.http import (
    AsOf,
    Body,
    Caller,
    NoBody,
    Page,
    Resources,
    Text,
    TheAdmin,
    TheCaller,
    TheCommands,
    ThePaging,
    ThePartner,
    TheResources,
    TheStaff,
    names_program,
    not_found,
    own_partner,
    page,
    service_app,
    wants_csv,
)
from services.runtime.settings import Settings

router = APIRouter()
router.include_router(lists_api.router)

OF_A_PROGRAM = names_program(LEDGER, lambda person: person.programs)

ACTIVATION_LOOKS, LOOK_SECONDS = 40, 0.05
"""How long a partner's first request waits for an activation that is still on its way from attribution: 2 seconds."""


def create_app(settings: Settings, resources: Resources | None = None) -> FastAPI:
    """The payouts API. `resources`: instead of Redis and Kafka, for tests."""
    return service_app("payouts", settings, router, STAGES, resources)


# --- what is asked --------------------------------------------------------------------------------------------------


class WithdrawalBody(Body):
    """`destination`: the bank account; never shown again but for its last four characters."""

    program_id: Id
    amount: PositiveAmount
    destination: Annotated[str, Field(strict=True, min_length=4, max_length=256)]
    comment: Text | None = None


class RejectionBody(Body):
    reason: Text


class TopupBody(Body):
    """`amount`: bonus money to use for the partner's own account."""

    program_id: Id
    account_id: Id
    amount: PositiveAmount


class ClientPaymentBody(Body):
    """`list_price`: what the client's month or year costs without a discount. `use_bonus`: pay it from the bonus."""

    program_id: Id
    customer_id: Id
    account_id: Id | None = None
    integration: Text
    interval: Interval
    list_price: PositiveAmount
    use_bonus: Annotated[bool, Field(strict=True)] = False


class DepositBody(Body):
    program_id: Id
    amount: PositiveAmount
    method: Literal["card", "invoice"]


def _edge(value: Any) -> int:
    """A day's first instant in UTC, or a time."""
    if isinstance(value, str) and DATE.fullmatch(value):
        return micros(datetime.combine(date.fromisoformat(value), time(), UTC))
    return parse_instant(value)


Edge = Annotated[int, BeforeValidator(_edge), WithJsonSchema({"type": "string", "examples": ["2026-02-01"]})]
"""Where a period begins or ends: a date in UTC, or an RFC 3339 time."""

From = Annotated[Edge | None, Query(alias="from", description="From then on: a date in UTC, or RFC 3339.")]
Until = Annotated[Edge | None, Query(alias="to", description="Before then: a date in UTC, or RFC 3339.")]
Currency = Annotated[str | None, Query(pattern=r"^[A-Z]{3}$", description="Only this currency.")]
OfProgram = Annotated[Id | None, Query(description="Only this program.")]


# --- reading --------------------------------------------------------------------------------------------------------


@router.get("/partners/{partner_id}/balance", summary="What a partner has, by program and currency")
async def balances(partner_id: Id, who: TheCaller, has: TheResources, as_of: AsOf = None) -> views.Balances:
    person = await _partner(who, has, partner_id)
    now = micros(has.settings.now())
    figures = totals(person, now) if as_of is None else None
    if figures is None:
        rows = await has.reader.rows(LEDGER, partner_id)
        figures = balance(rows.values(), now if as_of is None else as_of, as_of)
    return views.balances(figures)


@router.get(
    "/partners/{partner_id}/statement",
    summary="Everything that came to and left a partner's account, oldest first",
    response_model=Page[statement.StatementLine],
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def statement_lines(
    partner_id: Id,
    who: TheCaller,
    has: TheResources,
    paging: ThePaging,
    since: From = None,
    until: Until = None,
    program_id: OfProgram = None,
    currency: Currency = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Any:
    """`Accept: text/csv` gives all of the period as CSV, without pages."""
    await _partner(who, has, partner_id)
    rows = await has.reader.rows(LEDGER, partner_id)
    lines = (
        line
        for line in statement.lines(rows.values())
        if (since is None or since <= line.posting.at)
        and (until is None or line.posting.at < until)
        and program_id in (None, line.posting.program_id)
        and currency in (None, line.posting.currency)
    )
    if wants_csv(accept):
        headers = {"Content-Disposition": 'attachment; filename="statement.csv"', "Vary": "Accept"}
        return Response(statement.as_csv(lines), 200, headers, "text/csv; charset=utf-8")
    return page(lines, lambda line: line.place, paging, statement.shown, oldest_first=True)


@router.get("/partners/{partner_id}/withdrawals", summary="A partner's withdrawals, newest first")
async def withdrawals(
    partner_id: Id, who: TheCaller, has: TheResources, paging: ThePaging, program_id: OfProgram = None
) -> Page[views.Withdrawal]:
    await _partner(who, has, partner_id)
    rows = await has.reader.rows(LEDGER, partner_id)
    own = (row for row in rows.values() if isinstance(row, WithdrawalRow) and program_id in (None, row.program_id))
    with_destination = who.role != "platform"
    return page(
        own,
        lambda row: (row.created_at, row.withdrawal_id),
        paging,
        lambda row: views.withdrawal(row, with_destination=with_destination),
    )


# --- changing -------------------------------------------------------------------------------------------------------


@router.post(
    "/partners/{partner_id}/withdrawals",
    status_code=201,
    dependencies=[OF_A_PROGRAM],
    summary="Ask for money to be paid out",
    response_model=views.Withdrawal,
)
async def withdraw(
    request: Request, partner_id: Id, body: WithdrawalBody, who: ThePartner, has: TheResources, commands: TheCommands
) -> Response:
    version = await _version_for(has, partner_id, body.program_id)
    return await commands.run(
        request, who, STAGES, asks.RequestWithdrawal, body, partner_id=partner_id, program_version=version
    )


@router.post(
    "/withdrawals/{withdrawal_id}/pay",
    summary="Say that a withdrawal was paid",
    response_model=views.Withdrawal,
)
async def pay(
    request: Request,
    withdrawal_id: Id,
    who: TheAdmin,
    has: TheResources,
    commands: TheCommands,
    body: NoBody | None = None,
) -> Response:
    return await _settle(request, who, has, commands, withdrawal_id, outcome="paid")


@router.post(
    "/withdrawals/{withdrawal_id}/reject",
    summary="Refuse to pay a withdrawal; the money is available again",
    response_model=views.Withdrawal,
)
async def reject(
    request: Request,
    withdrawal_id: Id,
    body: RejectionBody,
    who: TheAdmin,
    has: TheResources,
    commands: TheCommands,
) -> Response:
    return await _settle(request, who, has, commands, withdrawal_id, outcome="rejected", reason=body.reason)


@router.post(
    "/withdrawals/{withdrawal_id}/cancel",
    summary="Take a withdrawal back; the money is available again",
    response_model=views.Withdrawal,
)
async def cancel(
    request: Request,
    withdrawal_id: Id,
    who: ThePartner,
    has: TheResources,
    commands: TheCommands,
    body: NoBody | None = None,
) -> Response:
    return await _settle(request, who, has, commands, withdrawal_id, outcome="cancelled")


@router.post(
    "/partners/{partner_id}/topups",
    status_code=201,
    dependencies=[OF_A_PROGRAM],
    summary="Use bonus money for an account of one's own, where it is worth more",
    response_model=views.Topup,
)
async def top_up(
    request: Request, partner_id: Id, body: TopupBody, who: ThePartner, has: TheResources, commands: TheCommands
) -> Response:
    version = await _version_for(has, partner_id, body.program_id)
    return await commands.run(
        request, who, STAGES, asks.RequestTopup, body, partner_id=partner_id, program_version=version
    )


@router.post(
    "/partners/{partner_id}/deposits",
    status_code=201,
    dependencies=[OF_A_PROGRAM],
    summary="Pay into the partner account, by card or by invoice",
    response_model=views.Deposit,
)
async def deposit(
    request: Request, partner_id: Id, body: DepositBody, who: ThePartner, has: TheResources, commands: TheCommands
) -> Response:
    version = await _version_for(has, partner_id, body.program_id)
    return await commands.run(
        request, who, STAGES, asks.RequestDeposit, body, partner_id=partner_id, program_version=version
    )


@router.post(
    "/deposits/{deposit_id}/confirm",
    summary="Say that a deposit's money arrived",
    response_model=views.Deposit,
)
async def confirm(
    request: Request,
    deposit_id: Id,
    who: TheStaff,
    has: TheResources,
    commands: TheCommands,
    body: NoBody | None = None,
) -> Response:
    partner_id = await _found(who, has, deposit_row_id(deposit_id))
    return await commands.run(request, who, STAGES, asks.ConfirmDeposit, partner_id=partner_id, deposit_id=deposit_id)


@router.post(
    "/partners/{partner_id}/client-payments",
    status_code=201,
    dependencies=[OF_A_PROGRAM],
    summary="Pay for a client from the partner account, or with the welcome bonus",
    response_model=views.ClientPayment,
)
async def pay_for_client(
    request: Request, partner_id: Id, body: ClientPaymentBody, who: ThePartner, has: TheResources, commands: TheCommands
) -> Response:
    """A customer who is bound to another partner is not found."""
    version = await _version_for(has, partner_id, body.program_id, with_bonus=body.use_bonus)
    return await commands.run(
        request, who, STAGES, asks.PayForClient, body, partner_id=partner_id, program_version=version
    )


# --- who may what ---------------------------------------------------------------------------------------------------


async def _partner(who: Caller, has: Resources, partner_id: str) -> Person:
    """The partner that is asked about; somebody who asks about himself may be unknown so far.

    Errors: Problem 404 where the platform or an admin asks for nobody.
    """
    person = await has.reader.state(LEDGER, partner_id)
    if who.role != "partner" and not person.is_partner:
        raise not_found()
    return person


async def _version_for(has: Resources, partner_id: str, program_id: str, *, with_bonus: bool = False) -> int | None:
    """The program's version by which to decide what a partner asks for.

    A partner may be activated so lately that the ledger has not read of it, or (`with_bonus`) of the welcome bonus that
    follows: it waits a little before it is refused.
    """
    program = has.programs.latest(program_id) if with_bonus else None
    awaits_bonus = program is not None and program.term(WelcomeBonus) is not None
    for _ in range(ACTIVATION_LOOKS):
        person = await has.reader.state(LEDGER, partner_id)
        has_bonus = any(bonus.program_id == program_id for bonus in person.bonuses)
        if program_id in person.programs and (has_bonus or not awaits_bonus):
            break
        await _wait(LOOK_SECONDS)
    return await has.latest_version(program_id)


_wait = asyncio.sleep


async def _found(who: Caller, has: Resources, name: str) -> str:
    """The partner that a withdrawal or deposit belongs to. Errors: Problem 404, alike for foreign and absent ones."""
    partner_id = await has.reader.find(LEDGER, name)
    if partner_id is None:
        raise not_found()
    own_partner(who, partner_id)
    return partner_id


async def _settle(
    request: Request, who: Caller, has: Resources, commands: TheCommands, withdrawal_id: str, **fields: Any
) -> Response:
    partner_id = await _found(who, has, withdrawal_row_id(withdrawal_id))
    return await commands.run(
        request, who, STAGES, asks.SettleWithdrawal, partner_id=partner_id, withdrawal_id=withdrawal_id, **fields
    )
