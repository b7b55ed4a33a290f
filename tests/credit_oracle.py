"""An independent reading of the rules for credits: slow, from the whole set of events at once.

Shares no code with the services, so that a misreading shows as a difference.
"""

from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(frozen=True)
class InForce:
    """A program version: in force from `since` on, unless a higher number is too."""

    since: int
    enabled: bool
    rates: dict[str, str]


@dataclass
class Purchase:
    payment_id: str
    at: int
    minor: int
    family: str | None
    provider: str | None
    gb: str | None
    losses: list[tuple[int, int]] = field(default_factory=list)
    """Refunds and lost disputes: when, how much."""


@dataclass
class Buyer:
    customer_id: str
    partner_id: str
    bound_at: int
    purchases: list[Purchase] = field(default_factory=list)


FAMILY = "residential"


def decide(versions: list[InForce], buyer: Buyer, purchase: Purchase) -> tuple[str | None, int]:
    """The first reason why a purchase earns nothing, or None; and the credits that it earns."""
    if purchase.at < buyer.bound_at:
        return "not_referred", 0
    version = versions[0]
    for later in versions[1:]:
        if later.since <= purchase.at:
            version = later
    if not version.enabled:
        return "program_disabled", 0
    if purchase.family != FAMILY:
        return "other_family", 0
    earlier = [
        other
        for other in buyer.purchases
        if other.family == FAMILY and buyer.bound_at <= other.at
        if (other.at, other.payment_id) < (purchase.at, purchase.payment_id)
    ]
    if earlier:
        return "not_first_purchase", 0
    if purchase.gb is None or purchase.provider not in version.rates:
        return "no_rate", 0
    exact = Fraction(purchase.gb) * Fraction(version.rates[purchase.provider])
    return None, exact.numerator // exact.denominator


def left(versions: list[InForce], buyer: Buyer, purchase: Purchase, before: int | None = None) -> int:
    """The credits that are left of a purchase, by what lies strictly before an instant."""
    _, earned = decide(versions, buyer, purchase)
    if before is not None and purchase.at >= before:
        return 0
    lost = sum(minor for at, minor in purchase.losses if before is None or max(at, purchase.at) < before)
    lost = min(lost, purchase.minor)
    if lost == 0:
        return earned
    return earned - earned * lost // purchase.minor


def earned(versions: list[InForce], buyers: list[Buyer], partner_id: str, before: int | None = None) -> int:
    """What a partner's purchases come to, claims aside."""
    return sum(left(versions, b, p, before) for b in buyers if b.partner_id == partner_id for p in b.purchases)


def has_entry(versions: list[InForce], buyers: list[Buyer], partner_id: str) -> bool:
    """Whether any purchase of a partner's customers is credited, be it with nothing."""
    return any(decide(versions, b, p)[0] is None for b in buyers if b.partner_id == partner_id for p in b.purchases)
