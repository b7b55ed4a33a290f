"""HTTP of payouts that only looks: deposits, what waits for an administrator, and what something would cost."""

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from schemas.events import Interval
from schemas.ids import Id
from schemas.moments import micros
from schemas.money import MAX_MINOR, Money
from schemas.programs.terms import IntegratorAccount, Program
from services.payouts import LEDGER, statement, views
from services.payouts.allocation import funds, topup_worth
from services.payouts.client_payments import bonus_for, clients_of, price_of
from services.payouts.clients import CLIENTS
from services.payouts.state import (
    AccrualRow,
    ClientPaymentRow,
    DepositRow,
    Person,
    Row,
    WithdrawalRow,
    WithdrawalStatus,
    deposit_row_id,
    withdrawal_row_id,
)
from services.runtime.http import (
    Page,
    Problem,
    Resources,
    Text,
    TheAdmin,
    TheCaller,
    ThePaging,
    TheResources,
    TheStaff,
    invalid,
    not_found,
    page,
    wants_csv,
)

router = APIRouter()

DepositStatus = Literal["pending", "invoiced", "received"]
ProgramId = Annotated[Id, Query(description="The program.")]
Minor = Annotated[int, Query(ge=1, le=MAX_MINOR, description="In the currency's minor unit.")]
CurrencyCode = Annotated[str, Query(pattern=r"^[A-Z]{3}$")]


@router.get("/partners/{partner_id}/deposits", summary="A partner's deposits, newest first")
async def deposits(
    partner_id: Id, who: TheCaller, has: TheResources, paging: ThePaging, program_id: Id | None = None
) -> Page[views.DepositOfPartner]:
    rows = await has.reader.rows(LEDGER, partner_id)
    own = (row for row in rows.values() if isinstance(row, DepositRow) and program_id in (None, row.program_id))
    return page(own, _deposit_place, paging, lambda row: views.deposit_of(partner_id, row))


@router.get("/deposits", summary="Deposits of all partners, newest first")
async def all_deposits(
    who: TheStaff,
    has: TheResources,
    paging: ThePaging,
    status: Annotated[list[DepositStatus] | None, Query(description="One or several; without it, all.")] = None,
) -> Page[views.DepositOfPartner]:

    def may_have_some(person: Person) -> bool:
        return any(_took_deposits(has, program_id) for program_id in person.programs)

    found = [
        (partner_id, row)
        for partner_id, rows in await _ledgers(has, may_have_some)
        for row in rows
        if isinstance(row, DepositRow) and (status is None or views.deposit(row).status in status)
    ]
    return page(found, lambda each: _deposit_place(each[1]), paging, lambda each: views.deposit_of(*each))


@router.get(
    "/withdrawals",
    summary="Withdrawals of all partners, newest first",
    response_model=Page[views.WithdrawalOfPartner],
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def all_withdrawals(
    who: TheAdmin,
    has: TheResources,
    paging: ThePaging,
    status: WithdrawalStatus | None = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Page[views.WithdrawalOfPartner] | Response:
    """`Accept: text/csv` gives all of them for the bank, the destinations in full: the one place that tells them."""

    def may_have_some(person: Person) -> bool:
        return status != "processing" or any(book.sums.processing for book in person.books)

    found = [
        (partner_id, row)
        for partner_id, rows in await _ledgers(has, may_have_some)
        for row in rows
        if isinstance(row, WithdrawalRow) and status in (None, row.status)
    ]
    if wants_csv(accept):
        headers = {"Content-Disposition": 'attachment; filename="withdrawals.csv"', "Vary": "Accept"}
        return Response(statement.withdrawals_as_csv(found), 200, headers, "text/csv; charset=utf-8")
    return page(
        found,
        lambda each: (each[1].created_at, each[1].withdrawal_id),
        paging,
        lambda each: views.withdrawal_of(*each),
    )


@router.get("/withdrawals/{withdrawal_id}", summary="A withdrawal")
async def one_withdrawal(withdrawal_id: Id, who: TheAdmin, has: TheResources) -> views.WithdrawalOfPartner:
    partner_id, row = await _found(has, withdrawal_row_id(withdrawal_id))
    if not isinstance(row, WithdrawalRow):
        raise not_found()
    return views.withdrawal_of(partner_id, row)


@router.get("/deposits/{deposit_id}", summary="A deposit")
async def one_deposit(deposit_id: Id, who: TheStaff, has: TheResources) -> views.DepositOfPartner:
    partner_id, row = await _found(has, deposit_row_id(deposit_id))
    if not isinstance(row, DepositRow):
        raise not_found()
    return views.deposit_of(partner_id, row)


async def _found(has: Resources, name: str) -> tuple[str, Row | None]:
    """The partner that noted a name, and the row of that name. Errors: Problem 404."""
    partner_id = await has.reader.find(LEDGER, name)
    if partner_id is None:
        raise not_found()
    return partner_id, await has.reader.row(LEDGER, partner_id, name)


@router.get("/partners/{partner_id}/topup-quote", summary="What bonus money would be worth in an account of one's own")
async def topup_quote(
    partner_id: Id, who: TheCaller, has: TheResources, program_id: ProgramId, minor: Minor, currency: CurrencyCode
) -> views.TopupQuote:
    """As a top-up now would be decided. Errors: 409 as there, but for the account."""
    program, _, rows = await _in_program(has, partner_id, program_id)
    terms = program.payouts.topup
    if terms is None:
        raise Problem(409, "topup_not_offered", "This program tops no accounts up.")
    able = funds(rows, (program_id, currency), micros(has.settings.now()))
    if minor > able.earned_minor:
        raise Problem(409, "insufficient_balance", "The amount is more than the bonus money that is available.")
    accruals = {row.payment_id: row for row in rows if isinstance(row, AccrualRow)}
    worth = topup_worth(able.take(minor), accruals, terms.points)
    return views.TopupQuote(
        amount=Money(minor=minor, currency=currency), credited=Money(minor=worth, currency=currency)
    )


@router.get("/partners/{partner_id}/client-payment-quote", summary="What paying for a client would cost")
async def client_payment_quote(
    partner_id: Id,
    who: TheCaller,
    has: TheResources,
    program_id: ProgramId,
    customer_id: Annotated[Id, Query()],
    integration: Annotated[Text, Query()],
    minor: Minor,
    currency: CurrencyCode,
    interval: Interval = "month",
) -> views.ClientPaymentQuote:
    """As a payment now would be decided. Errors: 404 for another partner's customer; 422 for an unknown integration."""
    program, person, rows = await _in_program(has, partner_id, program_id)
    terms = program.term(IntegratorAccount)
    if terms is None:
        raise Problem(409, "client_payments_not_offered", "In this program partners do not pay for clients.")
    if (await has.reader.state(CLIENTS, customer_id)).partner_id not in ("", partner_id):
        raise not_found()
    family = terms.family_of(integration)
    if family is None:
        raise invalid("integration", "There is no such integration.")
    at = micros(has.settings.now())
    paid = [row for row in rows if isinstance(row, ClientPaymentRow) and row.program_id == program_id]
    clients = clients_of(paid, family) | {customer_id}
    list_price = Money(minor=minor, currency=currency)
    price = price_of(family, clients, list_price)
    return views.ClientPaymentQuote(
        list_price=list_price,
        clients=len(clients),
        discount_rate=price.discount_rate,
        discount=Money(minor=minor - price.charged_minor, currency=currency),
        charged=Money(minor=price.charged_minor, currency=currency),
        affordable=price.charged_minor <= max(0, funds(rows, (program_id, currency), at).available_minor),
        bonus_applicable=bonus_for(person.bonuses, paid, program_id, customer_id, interval, list_price, at) is not None,
    )


def _deposit_place(row: DepositRow) -> tuple[int, str]:
    return row.created_at, row.deposit_id


def _took_deposits(has: Resources, program_id: str) -> bool:
    return any(program.term(IntegratorAccount) is not None for _, program in has.programs.versions(program_id))


async def _ledgers(has: Resources, may_have_some: Callable[[Person], bool]) -> list[tuple[str, list[Row]]]:
    """The rows of every partner who may have some of what is looked for. For an administrator's lists."""
    partners = [partner_id async for partner_id, person in has.reader.all_states(LEDGER) if may_have_some(person)]
    every = await has.reader.rows_each(LEDGER, partners)
    return [(partner_id, list(rows.values())) for partner_id, rows in zip(partners, every, strict=True)]


async def _in_program(has: Resources, partner_id: str, program_id: str) -> tuple[Program, Person, list[Row]]:
    """Errors: Problem 404 for a program that the partner is not in."""
    person = await has.reader.state(LEDGER, partner_id)
    program = has.programs.at(program_id, micros(has.settings.now()))
    if program_id not in person.programs or program is None:
        raise not_found()
    return program, person, list((await has.reader.rows(LEDGER, partner_id)).values())
