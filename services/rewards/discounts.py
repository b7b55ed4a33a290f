"""What a month's verification gives to a partner, and which discount an invoice takes: pure, no clock.

The active referrals are counted as of the verification's instant and handed to the partner's own open accounts in the
order in force, up to so many each; the rest is lost. Events strictly before the instant count.
Source: programs.md, active-referrals; contract.md, discounts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from schemas.money import share
from schemas.programs.terms import MonthlyDiscount, Program
from services.rewards.activity import is_active
from services.rewards.facts import Account, Discount, Order, Person, Referral, Verification

Status = Literal["assigned", "used", "lapsed", "lost", "preview"]


@dataclass(frozen=True, slots=True)
class Share:
    """What one account gets: `percent` by the scale for `referrals_counted`."""

    account_id: str
    referrals_counted: int
    percent: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verification gives: shares above 0 % only, none where they are withheld or the program is off."""

    active_referrals: int
    shares: tuple[Share, ...] = ()
    withheld: bool = False


def outcome(person: Person, referrals: Iterable[Referral], program: Program, as_of: int) -> Outcome:
    """What verifying one program for a partner gives, as of an instant. `program`: the version in force then."""
    active = sum(
        referral.program_id == program.program_id and is_active(referral.active, as_of) for referral in referrals
    )
    if any(payment.is_pending(as_of) for payment in person.payments.values()):
        return Outcome(active, withheld=True)
    terms = program.term(MonthlyDiscount)
    if terms is None or not program.enabled:
        return Outcome(active)
    companies = companies_in_order(person.accounts, person.orders.get(program.program_id, ()), as_of)
    return Outcome(active, tuple(each for each in shares(terms, active, companies) if each.percent))


def companies_in_order(accounts: dict[str, Account], orders: Sequence[Order], as_of: int) -> list[str]:
    """The accounts that are open at an instant, in the order that was in force just before it.

    An account without a place follows in order of creation, ties by id; what is closed or not the partner's has none.
    Of two orders with the same `effective_at` the one set later holds.
    """
    created = {
        account_id: account.created_at
        for account_id, account in accounts.items()
        if account.created_at is not None and account.created_at < as_of
        if account.closed_at is None or account.closed_at >= as_of
    }
    chosen: tuple[str, ...] = ()
    latest: int | None = None
    for order in orders:
        if order.effective_at < as_of and (latest is None or order.effective_at >= latest):
            chosen, latest = order.account_ids, order.effective_at
    first = [account_id for account_id in chosen if account_id in created]
    others = sorted(created.keys() - set(first), key=lambda account_id: (created[account_id], account_id))
    return [*first, *others]


def shares(terms: MonthlyDiscount, active: int, companies: Iterable[str]) -> list[Share]:
    """The active referrals handed out: the first company takes up to the limit, only then the next."""
    given, left = [], active
    for account_id in companies:
        counted = min(left, terms.referrals_per_account)
        left -= counted
        given.append(Share(account_id, counted, percent_of(terms, counted)))
    return given


def percent_of(terms: MonthlyDiscount, referrals: int) -> int:
    """The scale's percent for a number of referrals; 0 below its first step."""
    return next((step.percent for step in reversed(terms.scale) if step.from_referrals <= referrals), 0)


# --- a discount's life ----------------------------------------------------------------------------------------------


def status(person: Person, discount: Discount) -> Status:
    """How a discount stands. A company that was closed before it lapsed has lost it."""
    if discount.invoice_id is not None:
        return "used"
    closed_at = person.accounts.get(discount.account_id, Account()).closed_at
    if closed_at is not None and (discount.lapsed_at is None or closed_at < discount.lapsed_at):
        return "lost"
    return "assigned" if discount.lapsed_at is None else "lapsed"


@dataclass(frozen=True, slots=True)
class Held:
    """A discount that an invoice can take, and the verification that gave it."""

    verification: Verification
    discount: Discount


def held_for(person: Person, account_id: str, issued_at: int) -> Held | None:
    """The discount that an invoice of an account takes, if there is one.

    It is of the latest verification at or before the issue, not used before, and the company was open at the issue.
    Where several programs give one, the highest, ties by program id.
    """
    account = person.accounts.get(account_id)
    if account is None or (account.closed_at is not None and account.closed_at <= issued_at):
        return None
    latest: dict[str, Verification] = {}
    for verification in person.verifications:
        if verification.as_of <= issued_at:
            known = latest.get(verification.program_id)
            if known is None or known.as_of < verification.as_of:
                latest[verification.program_id] = verification
    found = [
        Held(verification, discount)
        for verification in latest.values()
        for discount in verification.discounts
        if discount.account_id == account_id and discount.invoice_id is None
    ]
    return min(found, key=lambda held: (-held.discount.percent, held.verification.program_id), default=None)


def off(minor: int, percent: int) -> int:
    """What `percent` takes off an amount, rounded once."""
    return share(minor, Fraction(percent, 100))
