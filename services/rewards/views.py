"""What rewards shows of a partner's wallet: bodies of answers and lists. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from math import ceil
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.events import ReversalReason
from schemas.ids import Id
from schemas.moments import Instant
from schemas.money import Money, decimal_text
from schemas.programs.terms import Program, Provider
from services.rewards import bonuses
from services.rewards.state import Claim, ClaimStatus, Purchase, Purse, Row, Wallet


class CreditBalance(BaseModel):
    model_config = ConfigDict(frozen=True)
    program_id: Id
    balance: int = Field(description="whole credits; below 0 only after a refund")


class BonusShown(BaseModel):
    model_config = ConfigDict(frozen=True)
    bonus_id: Id
    program_id: Id
    remaining: Money
    expires_at: Instant


class WalletShown(BaseModel):
    """Credits and bonuses of one partner."""

    model_config = ConfigDict(frozen=True)
    credits: list[CreditBalance]
    bonuses: list[BonusShown] = Field(description="usable ones; an expired bonus is gone")


class ClaimShown(BaseModel):
    model_config = ConfigDict(frozen=True)
    claim_id: Id
    program_id: Id
    provider: str
    gb: int = Field(description="data that the credits buy", examples=[1])
    credits: int = Field(description="credits taken; there again when the claim fails")
    status: ClaimStatus
    requested_at: Instant
    settled_at: Instant | None = Field(description="when it was fulfilled or failed")


class ClaimOfPartner(ClaimShown):
    partner_id: Id


class Offer(BaseModel):
    """What a provider's data costs. `credits` is what a claim takes: whole credits, rounded up."""

    model_config = ConfigDict(frozen=True)
    provider: str
    credits_per_gb: int | str = Field(description="the redemption rate; decimal text when it is not whole")
    gb: int = Field(description="data of one claim")
    credits: int
    claimable: bool = Field(description="whether a claim would be accepted now")


class StoreShown(BaseModel):
    """A partner's reward store in one program."""

    model_config = ConfigDict(frozen=True)
    program_id: Id
    balance: int
    offers: list[Offer]


MovementType = Literal[
    "credit.granted",
    "credit.reversed",
    "claim.requested",
    "claim.fulfilled",
    "claim.failed",
    "bonus.granted",
    "bonus.used",
    "bonus.expired",
    "discount.assigned",
    "discount.withheld",
    "discount.used",
    "discount.lapsed",
]
_ORDER: tuple[MovementType, ...] = MovementType.__args__  # type: ignore[attr-defined]


class Movement(BaseModel):
    """One line of the history; `credits` and `amount` are above 0, the type says which way they went."""

    model_config = ConfigDict(frozen=True)
    type: MovementType
    occurred_at: Instant
    program_id: Id
    credits: int | None = None
    amount: Money | None = None
    payment_id: Id | None = None
    customer_id: Id | None = None
    reason: ReversalReason | Literal["pending_payment"] | None = None
    claim_id: Id | None = None
    provider: str | None = None
    gb: int | None = None
    bonus_id: Id | None = None
    cause: Id | None = Field(None, description="the refund or dispute that took credits back")
    month: str | None = Field(None, description="of a discount, like 2026-02")
    account_id: Id | None = None
    percent: int | None = None
    referrals_counted: int | None = None
    invoice_id: Id | None = None


def wallet(state: Wallet, at: int, as_of: int | None = None, purses: Mapping[str, Purse] | None = None) -> WalletShown:
    """The wallet at an instant: bonuses granted and used strictly before `as_of` (None: all) that expire after `at`.

    `purses`: those as of that instant; None: the running balances.
    """
    granted = [bonus for bonus in state.bonuses if as_of is None or bonus.granted_at < as_of]
    usable = [bonus for bonus in granted if at < bonus.expires_at]
    return WalletShown(
        credits=[
            CreditBalance(program_id=program_id, balance=purse.balance)
            for program_id, purse in sorted((state.purses if purses is None else purses).items())
        ],
        bonuses=[
            BonusShown(
                bonus_id=bonus.bonus_id,
                program_id=bonus.program_id,
                remaining=Money(minor=bonuses.remaining(bonus, at, as_of), currency=bonus.currency),
                expires_at=bonus.expires_at,
            )
            for bonus in sorted(usable, key=lambda bonus: (bonus.expires_at, bonus.bonus_id))
        ],
    )


def purses_before(rows: Iterable[Row], as_of: int) -> dict[str, Purse]:
    """The balances that what lies strictly before an instant makes up, as decided now."""
    purses: dict[str, Purse] = {}
    for row in rows:
        match row:
            case Purchase(credits=None):
                continue
            case Purchase() if row.paid_at < as_of:
                moved = (row.credits or 0) - sum(part.credits for part in row.taken if part.at < as_of)
            case Claim() if row.requested_at < as_of:
                failed = row.status == "failed" and row.settled_at is not None and row.settled_at < as_of
                moved = 0 if failed else -row.credits
            case _:
                continue
        old = purses.get(row.program_id, Purse())
        purses[row.program_id] = Purse(old.balance + moved, old.entries + 1)
    return purses


def claim(row: Claim) -> ClaimShown:
    return ClaimShown(
        claim_id=row.claim_id,
        program_id=row.program_id,
        provider=row.provider,
        gb=row.gb,
        credits=row.credits,
        status=row.status,
        requested_at=row.requested_at,
        settled_at=row.settled_at,
    )


def claim_of(partner_id: str, row: Claim) -> ClaimOfPartner:
    return ClaimOfPartner(partner_id=partner_id, **dict(claim(row)))


# --- the store ------------------------------------------------------------------------------------------------------


def price(gb: int, provider: Provider) -> int:
    """The credits that `gb` GB take: whole ones, rounded up, so that no part of a GB is given away."""
    return ceil(gb * Fraction(provider.redemption_rate))


def store(program: Program, gb: int | None, balance: int) -> StoreShown:
    """What the balance buys at a program version's rates. `gb`: of one claim; None where nothing is claimed."""
    offers = (
        [_offer(name, provider, gb, balance, program.enabled) for name, provider in sorted(program.providers.items())]
        if gb is not None
        else []
    )
    return StoreShown(program_id=program.program_id, balance=balance, offers=offers)


def _offer(name: str, provider: Provider, gb: int, balance: int, enabled: bool) -> Offer:
    rate, needed = provider.redemption_rate, price(gb, provider)
    return Offer(
        provider=name,
        credits_per_gb=int(rate) if rate == int(rate) else decimal_text(rate),
        gb=gb,
        credits=needed,
        claimable=enabled and balance >= needed,
    )


# --- the history ----------------------------------------------------------------------------------------------------


def history(state: Wallet, rows: Iterable[Row], now: int) -> Iterator[Movement]:
    """Every movement of a wallet as decided now, in no order. `now`: when an expiry has come to pass."""
    for moved in bonuses.movements(state, now):
        yield _of_bonus(moved)
    for row in rows:
        match row:
            case Purchase():
                yield from _of_purchase(row)
            case Claim():
                yield from _of_claim(row)


def movement_key(movement: Movement) -> tuple[int, int, str, str]:
    """The order of the history. Unique: a refund and a dispute may have the same id."""
    own = movement.payment_id or movement.claim_id or movement.bonus_id or movement.account_id or ""
    why = f"{movement.reason}:{movement.cause}" if movement.cause else f"{movement.program_id}:{movement.month}"
    return (movement.occurred_at, _ORDER.index(movement.type), own, why)


def _of_bonus(moved: bonuses.Movement) -> Movement:
    ids = {"payment_id": moved.payment_id, "customer_id": moved.customer_id}
    return Movement.model_validate(
        {
            "type": moved.kind,
            "occurred_at": moved.at,
            "program_id": moved.program_id,
            "amount": Money(minor=moved.minor, currency=moved.currency),
            "bonus_id": moved.bonus_id,
            **{name: value for name, value in ids.items() if value is not None},
        }
    )


def _of_purchase(row: Purchase) -> Iterator[Movement]:
    if row.credits is None:
        return
    ids = {"program_id": row.program_id, "payment_id": row.payment_id, "customer_id": row.customer_id}
    yield Movement.model_validate({**ids, "type": "credit.granted", "occurred_at": row.paid_at, "credits": row.credits})
    for part in row.taken:
        if part.credits:
            taken = {"type": "credit.reversed", "occurred_at": part.at, "credits": part.credits}
            yield Movement.model_validate({**ids, **taken, "reason": part.reason, "cause": part.id})


def _of_claim(row: Claim) -> Iterator[Movement]:
    ids = {"program_id": row.program_id, "claim_id": row.claim_id, "provider": row.provider, "gb": row.gb}
    yield Movement.model_validate(
        {**ids, "type": "claim.requested", "occurred_at": row.requested_at, "credits": row.credits}
    )
    if row.settled_at is not None:
        yield Movement.model_validate(
            {**ids, "type": f"claim.{row.status}", "occurred_at": row.settled_at, "credits": row.credits}
        )
