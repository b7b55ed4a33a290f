"""What commission shows of a partner: commissions and the tier. Pure."""

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict, Field

from schemas.ids import Id
from schemas.moments import Instant
from schemas.money import Money, Rate
from schemas.programs.terms import Program, Share
from services.commission.partners import tier_of
from services.commission.saying import reversals
from services.commission.state import Client, Place, Row, Sale, commission_id
from services.runtime.profiles import Profile


class Commission(BaseModel):
    """What one payment earned. `amount` is the accrual, `reversed` what was taken back of it since."""

    model_config = ConfigDict(frozen=True)
    commission_id: Id
    payment_id: Id
    program_id: Id
    customer_id: Id
    customer_name: str | None
    account_id: Id | None
    account_name: str | None
    base: Money = Field(description="what was paid")
    rate: Rate
    amount: Money
    reversed: Money
    available_at: Instant
    occurred_at: Instant


class NextTier(BaseModel):
    model_config = ConfigDict(frozen=True)
    clients: int = Field(description="paying clients from which the rate holds", examples=[6])
    rate: Rate


class TierShown(BaseModel):
    """Where a partner stands on the ladder of rates."""

    model_config = ConfigDict(frozen=True)
    program_id: Id
    paying_clients: int = Field(examples=[5])
    rate: Rate
    next: NextTier | None = Field(description="null on the highest tier")


def accrued(rows: Mapping[str, Row], as_of: int | None) -> list[Sale]:
    """The payments that earn as decided now, made before `as_of`."""
    return [
        row
        for row in rows.values()
        if isinstance(row, Sale) and row.said.accrued and (as_of is None or row.paid_at < as_of)
    ]


def place(sale: Sale) -> Place:
    """The order of a partner's commissions."""
    return sale.place


def commission(sale: Sale, customer: Profile, as_of: int | None) -> Commission:
    """One commission as it stood at `as_of`: reversals strictly before it count."""
    taken, _ = reversals(sale, sale.said.amount)
    gone = sum(back.minor for back in taken if as_of is None or back.at < as_of)
    return Commission(
        commission_id=commission_id(sale.payment_id),
        payment_id=sale.payment_id,
        program_id=sale.program_id,
        customer_id=sale.customer_id,
        customer_name=customer.contact.name,
        account_id=sale.account_id,
        account_name=customer.accounts.get(sale.account_id or ""),
        base=Money(minor=sale.minor, currency=sale.currency),
        rate=sale.said.rate,
        amount=Money(minor=sale.said.amount, currency=sale.currency),
        reversed=Money(minor=gone, currency=sale.currency),
        available_at=sale.available_at,
        occurred_at=sale.paid_at,
    )


def clients_before(rows: Iterable[Row], program_id: str, as_of: int) -> int:
    """Paying clients under a program whose first payment that accrued lies before an instant."""
    return sum(1 for row in rows if isinstance(row, Client) and row.program_id == program_id and row.first[0] < as_of)


def tier(program: Program, clients: int) -> TierShown:
    """The tier of so many paying clients; rate 0 in a program that pays no share."""
    share = program.term(Share)
    if share is None:
        return TierShown(program_id=program.program_id, paying_clients=clients, rate="0", next=None)
    following = next((step for step in share.tiers if step.from_clients > clients and step.from_clients > 1), None)
    return TierShown(
        program_id=program.program_id,
        paying_clients=clients,
        rate=tier_of(share.tiers, clients).rate,
        next=NextTier(clients=following.from_clients, rate=following.rate) if following else None,
    )
