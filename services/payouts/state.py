"""What the ledger remembers of one person: a small state, and one row per accrual and per granted command.

Amounts are integers of the currency's minor unit, instants microseconds since 1970 UTC.
"""

from typing import Literal

import msgspec

from schemas.events import Interval

BookKey = tuple[str, str]
"""Program id and currency: money of one book never meets money of another."""


class Sums(msgspec.Struct, frozen=True, array_like=True):
    """What a book's postings add up to, by the fields that a balance shows."""

    accrued: int = 0
    reversed: int = 0
    processing: int = 0
    paid: int = 0
    topped_up: int = 0
    deposits: int = 0
    spent: int = 0


class Book(msgspec.Struct, frozen=True, array_like=True):
    """Running totals of one program and currency, so that a balance needs no rows.

    `entries`: rows by which something happened. `held_minor`: what is left of accruals under an open dispute.
    `maturing`: what is left of other accruals, by the instant from which it is available.
    """

    program_id: str
    currency: str
    entries: int = 0
    sums: Sums = Sums()
    held_minor: int = 0
    maturing: dict[int, int] = {}


class Bonus(msgspec.Struct, frozen=True, array_like=True):
    """What is left of a bonus that pays for clients; no money, so it stands in no book. No `expires_at`: for ever."""

    bonus_id: str
    program_id: str
    currency: str
    remaining_minor: int
    usable_from: int
    expires_at: int | None = None

    def is_usable(self, at: int) -> bool:
        return self.usable_from <= at and (self.expires_at is None or at < self.expires_at)


class Person(msgspec.Struct, frozen=True, array_like=True):
    """One person: own accounts (anyone may become a partner), and as a partner the programs and books.

    `accounts`: ids that were opened. `closed`: when an account was closed. `matured_until`: what is available from then
    or earlier is no longer listed in `Book.maturing`. `forgotten`: what the person gave goes as soon as it is settled.
    """

    programs: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    closed: dict[str, int] = {}
    books: tuple[Book, ...] = ()
    matured_until: int = 0
    bonuses: tuple[Bonus, ...] = ()
    forgotten: bool = False

    @property
    def is_partner(self) -> bool:
        return bool(self.programs or self.books)

    def owns(self, account_id: str, at: int) -> bool:
        """Whether the account is the person's own and open at an instant."""
        return account_id in self.accounts and (account_id not in self.closed or self.closed[account_id] > at)


class Returned(msgspec.Struct, frozen=True, array_like=True):
    """A part of an accrual that was taken back."""

    returned_at: int
    amount_minor: int
    reason: str


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A dispute's time; `held_until` None while it is open."""

    held_from: int
    held_until: int | None


class AccrualRow(msgspec.Struct, frozen=True, array_like=True, tag="accrual"):
    """How the commission on one payment stands: set by each event on it, never summed.

    `used_minor`: what outstanding withdrawals and top-ups took of it. `undone`: it earns nothing after all, and is kept
    only because it was used.
    """

    payment_id: str
    program_id: str
    currency: str
    accrued_at: int
    base_minor: int
    amount_minor: int
    available_at: int
    refunded_minor: int = 0
    reversals: tuple[Returned, ...] = ()
    holds: tuple[Held, ...] = ()
    used_minor: int = 0
    undone: bool = False


class Use(msgspec.Struct, frozen=True, array_like=True):
    """A part of an accrual that a withdrawal or a top-up took."""

    payment_id: str
    amount_minor: int


WithdrawalStatus = Literal["processing", "paid", "rejected", "cancelled"]


class WithdrawalRow(msgspec.Struct, frozen=True, array_like=True, tag="withdrawal"):
    """Money on its way out. `used` may be less than the amount: the rest is deposits.

    `destination`: None once it is forgotten, as the `comment`. `commands`: whose answers show both.
    """

    withdrawal_id: str
    program_id: str
    currency: str
    amount_minor: int
    destination: str | None
    created_at: int
    comment: str | None = None
    status: WithdrawalStatus = "processing"
    settled_at: int | None = None
    reason: str | None = None
    used: tuple[Use, ...] = ()
    commands: tuple[str, ...] = ()


class TopupRow(msgspec.Struct, frozen=True, array_like=True, tag="topup"):
    """Bonus money that became balance of the partner's own account, worth `credited_minor` there."""

    topup_id: str
    program_id: str
    currency: str
    amount_minor: int
    account_id: str
    credited_minor: int
    applied_at: int
    used: tuple[Use, ...]


DepositMethod = Literal["card", "invoice"]


class DepositRow(msgspec.Struct, frozen=True, array_like=True, tag="deposit"):
    """Money that a partner pays in; it counts from `received_at` on."""

    deposit_id: str
    program_id: str
    currency: str
    amount_minor: int
    method: DepositMethod
    created_at: int
    received_at: int | None = None


class ClientPaymentRow(msgspec.Struct, frozen=True, array_like=True, tag="client_payment"):
    """A client that the partner paid for: `charged_minor` of the account, `from_bonus_minor` of a bonus."""

    payment_id: str
    program_id: str
    currency: str
    customer_id: str
    integration: str
    interval: Interval
    list_minor: int
    discount_rate: str
    charged_minor: int
    from_bonus_minor: int
    made_at: int
    account_id: str | None = None


Row = AccrualRow | WithdrawalRow | TopupRow | DepositRow | ClientPaymentRow


def book_of(row: Row) -> BookKey:
    return row.program_id, row.currency


def accrual_id(payment_id: str) -> str:
    """The row id of a payment's accrual."""
    return f"accrual:{payment_id}"


def withdrawal_row_id(withdrawal_id: str) -> str:
    """The row id of a withdrawal, and the name under which its partner is found."""
    return f"withdrawal:{withdrawal_id}"


def topup_row_id(topup_id: str) -> str:
    return f"topup:{topup_id}"


def deposit_row_id(deposit_id: str) -> str:
    """The row id of a deposit, and the name under which its partner is found."""
    return f"deposit:{deposit_id}"


def client_payment_row_id(payment_id: str) -> str:
    return f"client:{payment_id}"
