"""What becomes of a partner's bonus: used for clients, expired, shown. Pure.

Payouts decides whether a bonus pays for a client, together with the payment; here that is said of the bonus. No rule
reads a clock, so what is left expires with the partner's first payouts event dated at the expiry or later: one topic,
in its order, so that every replay says the same. A wallet shows nothing of an expired bonus, said or not.
Source: programs.md, message-help, welcome bonus; contract.md, wallet and history.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from schemas.events import BonusExpired, BonusUsed, ClientPaymentMade, Event
from schemas.ids import derived_id
from schemas.money import Money
from services.rewards.state import Bonus, BonusUse, Row, Wallet
from services.runtime.stage import Change, Emit


def learn(wallet: Wallet, event: Event) -> Wallet:
    """The wallet that has read a payouts event: how far payouts has come, and what it took of a bonus."""
    wallet = replace(wallet, payouts_until=max(wallet.payouts_until, event.time))
    match event.data:
        case ClientPaymentMade(from_bonus=Money(minor=minor, currency=currency)) as paid if minor:
            use = BonusUse(event.time, minor, paid.payment_id, paid.customer_id)
            return replace(wallet, unsettled=(*wallet.unsettled, (paid.program_id, currency, use)))
        case _:
            return wallet


def settle(wallet: Wallet, partner_id: str) -> Change[Wallet, Row]:
    """Say what follows for the bonuses from what the wallet has learnt, in whatever order it learnt it.

    Shape: bonus.used for each use of a bonus that was granted (another one waits for the grant); bonus.expired, dated
    at the expiry, for what is left when payouts has come so far.
    """
    emits: list[Emit] = []
    bonuses: list[Bonus] = []
    waiting = list(wallet.unsettled)
    for bonus in wallet.bonuses:
        for program_id, currency, use in wallet.unsettled:
            if (program_id, currency) == (bonus.program_id, bonus.currency):
                waiting.remove((program_id, currency, use))
                bonus = replace(bonus, remaining=bonus.remaining - use.minor, uses=(*bonus.uses, use))
                emits.append(_used(bonus, partner_id, use))
        if not bonus.expired and bonus.expires_at <= wallet.payouts_until:
            bonus = replace(bonus, expired=True)
            emits += [_expired(bonus, partner_id)] if bonus.remaining else []
        bonuses.append(bonus)
    return Change(replace(wallet, bonuses=tuple(bonuses), unsettled=tuple(waiting)), emits=tuple(emits))


def _used(bonus: Bonus, partner_id: str, use: BonusUse) -> Emit:
    used = BonusUsed(
        bonus_id=bonus.bonus_id,
        partner_id=partner_id,
        program_id=bonus.program_id,
        customer_id=use.customer_id,
        payment_id=use.payment_id,
        amount=Money(minor=use.minor, currency=bonus.currency),
    )
    return Emit(derived_id("evt", bonus.bonus_id, use.payment_id), use.at, used)


def _expired(bonus: Bonus, partner_id: str) -> Emit:
    expired = BonusExpired(
        bonus_id=bonus.bonus_id,
        partner_id=partner_id,
        program_id=bonus.program_id,
        amount=Money(minor=bonus.remaining, currency=bonus.currency),
    )
    return Emit(derived_id("evt", bonus.bonus_id, "expired"), bonus.expires_at, expired)


def remaining(bonus: Bonus, at: int, as_of: int | None = None) -> int:
    """What is left of a bonus by what was used of it strictly before `as_of` (None: at all); nothing once expired."""
    if bonus.expires_at <= at:
        return 0
    return bonus.minor - sum(used.minor for used in bonus.uses if as_of is None or used.at < as_of)


@dataclass(frozen=True, slots=True)
class Movement:
    """A line of a partner's history. `minor`: what was granted, used or left to expire."""

    kind: Literal["bonus.granted", "bonus.used", "bonus.expired"]
    at: int
    program_id: str
    bonus_id: str
    minor: int
    currency: str
    payment_id: str | None = None
    customer_id: str | None = None


def movements(wallet: Wallet, at: int) -> Iterator[Movement]:
    """Every movement of the partner's bonuses, in no order. `at`: when an expiry has come to pass."""
    for bonus in wallet.bonuses:
        of = (bonus.program_id, bonus.bonus_id)
        yield Movement("bonus.granted", bonus.granted_at, *of, bonus.minor, bonus.currency)
        for used in bonus.uses:
            yield Movement("bonus.used", used.at, *of, used.minor, bonus.currency, used.payment_id, used.customer_id)
        if bonus.expires_at <= at and bonus.remaining:
            yield Movement("bonus.expired", bonus.expires_at, *of, bonus.remaining, bonus.currency)
