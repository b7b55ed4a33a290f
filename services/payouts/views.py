"""What the ledger shows: bodies of answers and lists, made from rows and figures. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.events import Interval
from schemas.ids import Id
from schemas.moments import Instant
from schemas.money import Money, Rate
from services.payouts.ledger import Figures
from services.payouts.state import (
    BookKey,
    ClientPaymentRow,
    DepositMethod,
    DepositRow,
    TopupRow,
    WithdrawalRow,
    WithdrawalStatus,
)


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


class BookBalance(View):
    """A balance in one program and currency.

    `available = accrued − reversed − pending − processing − paid − topped_up + deposits − spent`.
    """

    program_id: Id
    currency: str
    accrued: Money = Field(description="accruals as they stand")
    reversed: Money = Field(description="taken back: refunds, lost disputes, customers who left before the hold's end")
    pending: Money = Field(description="not yet available or held by an open dispute, net of reversals")
    available: Money = Field(description="what a withdrawal may take; below 0 only after a reversal or a dispute")
    processing: Money = Field(description="withdrawals asked for")
    paid: Money = Field(description="withdrawn")
    topped_up: Money = Field(description="bonus money used for top-ups")
    deposits: Money = Field(description="confirmed deposits")
    spent: Money = Field(description="charged for client payments, without bonus")


class Balances(View):
    balances: list[BookBalance]


class Withdrawal(View):
    withdrawal_id: Id
    program_id: Id
    created_at: Instant
    amount: Money
    destination: str | None = Field(description="its last four characters; null for the platform, and once forgotten")
    comment: str | None
    status: WithdrawalStatus
    paid_at: Instant | None
    settled_at: Instant | None = Field(description="when it was paid, rejected or cancelled")
    reason: str | None = Field(description="why it was rejected")


class Topup(View):
    topup_id: Id
    program_id: Id
    account_id: Id
    amount: Money = Field(description="bonus money used")
    credited: Money = Field(description="what it is worth in the account")


class Deposit(View):
    deposit_id: Id
    program_id: Id
    amount: Money
    method: DepositMethod
    status: Literal["pending", "invoiced", "received"]


class WithdrawalOfPartner(Withdrawal):
    """A withdrawal as an administrator pays it."""

    partner_id: Id


class DepositOfPartner(Deposit):
    partner_id: Id
    created_at: Instant
    received_at: Instant | None


class TopupQuote(View):
    amount: Money = Field(description="bonus money used")
    credited: Money = Field(description="what it would be worth in the account")


class ClientPaymentQuote(View):
    """`list_price − discount = charged`, what the partner account would be charged."""

    list_price: Money
    clients: int = Field(description="clients paid for in the integration's family, this one included")
    discount_rate: Rate
    discount: Money
    charged: Money
    affordable: bool = Field(description="whether the account has as much")
    bonus_applicable: bool = Field(description="whether the welcome bonus would pay the list price instead")


class ClientPayment(View):
    """`list_price` is `charged` plus the discount, or `from_bonus` alone."""

    payment_id: Id
    program_id: Id
    customer_id: Id
    account_id: Id | None
    integration: str
    interval: Interval
    list_price: Money
    discount_rate: Rate = Field(description="by the clients paid for in the integration's family; 0 with the bonus")
    charged: Money = Field(description="taken from the partner account, rounded half-even")
    from_bonus: Money = Field(description="taken from the welcome bonus")


def balances(figures: Mapping[BookKey, Figures]) -> Balances:
    return Balances(balances=[_book(*book, of) for book, of in sorted(figures.items())])


def _book(program_id: str, currency: str, figures: Figures) -> BookBalance:
    def money(minor: int) -> Money:
        return Money(minor=minor, currency=currency)

    sums = figures.sums
    return BookBalance(
        program_id=program_id,
        currency=currency,
        accrued=money(sums.accrued),
        reversed=money(sums.reversed),
        pending=money(figures.pending),
        available=money(figures.available),
        processing=money(sums.processing),
        paid=money(sums.paid),
        topped_up=money(sums.topped_up),
        deposits=money(sums.deposits),
        spent=money(sums.spent),
    )


def withdrawal(row: WithdrawalRow, *, with_destination: bool = True) -> Withdrawal:
    """A withdrawal as it is shown: never more than the end of the destination."""
    return Withdrawal(
        withdrawal_id=row.withdrawal_id,
        program_id=row.program_id,
        created_at=row.created_at,
        amount=Money(minor=row.amount_minor, currency=row.currency),
        destination=row.destination[-4:] if row.destination and with_destination else None,
        comment=row.comment,
        status=row.status,
        paid_at=row.settled_at if row.status == "paid" else None,
        settled_at=row.settled_at,
        reason=row.reason,
    )


def withdrawal_of(partner_id: str, row: WithdrawalRow) -> WithdrawalOfPartner:
    return WithdrawalOfPartner(partner_id=partner_id, **dict(withdrawal(row)))


def topup(row: TopupRow) -> Topup:
    return Topup(
        topup_id=row.topup_id,
        program_id=row.program_id,
        account_id=row.account_id,
        amount=Money(minor=row.amount_minor, currency=row.currency),
        credited=Money(minor=row.credited_minor, currency=row.currency),
    )


def deposit(row: DepositRow) -> Deposit:
    issued: Literal["pending", "invoiced"] = "invoiced" if row.method == "invoice" else "pending"
    return Deposit(
        deposit_id=row.deposit_id,
        program_id=row.program_id,
        amount=Money(minor=row.amount_minor, currency=row.currency),
        method=row.method,
        status=issued if row.received_at is None else "received",
    )


def deposit_of(partner_id: str, row: DepositRow) -> DepositOfPartner:
    return DepositOfPartner(
        partner_id=partner_id, created_at=row.created_at, received_at=row.received_at, **dict(deposit(row))
    )


def client_payment(row: ClientPaymentRow) -> ClientPayment:
    def money(minor: int) -> Money:
        return Money(minor=minor, currency=row.currency)

    return ClientPayment(
        payment_id=row.payment_id,
        program_id=row.program_id,
        customer_id=row.customer_id,
        account_id=row.account_id,
        integration=row.integration,
        interval=row.interval,
        list_price=money(row.list_minor),
        discount_rate=Decimal(row.discount_rate),
        charged=money(row.charged_minor),
        from_bonus=money(row.from_bonus_minor),
    )
