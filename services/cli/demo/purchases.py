"""proxy-credits in the demo: friends who buy data, the credits that this is worth, and the claims on them. Pure.

The promise is a small reading of its own of the program; it shares no code with the services.
Source: programs.md, proxy-credits.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from schemas.moments import DAY, format_instant
from services.cli.demo.data import HOUR, Partner, Refund
from services.cli.demo.lines import Fact, money
from services.cli.demo.scene import member

PROGRAM_ID, PROVIDER, FAMILY = "proxy-credits", "packetstream", "residential"
PRODUCT_RATE, REDEMPTION_RATE = 5, 10

Settling = Literal["fulfil", "fail"]
Ending = Literal["fulfilled", "failed", "insufficient_credits"]


@dataclass(frozen=True, slots=True)
class Purchase:
    """`gigabytes`: as the platform writes them."""

    payment_id: str
    at: int
    minor: int
    gigabytes: str
    family: str = FAMILY
    refunds: tuple[Refund, ...] = ()


@dataclass(frozen=True, slots=True)
class Friend:
    """Somebody who signed up through the link of `partner_id`, and bought."""

    customer_id: str
    email: str
    partner_id: str
    signed_up_at: int
    purchases: tuple[Purchase, ...]


@dataclass(frozen=True, slots=True)
class Played:
    """`claims`: who tries to claim, in this order, and what the platform then does."""

    partners: tuple[Partner, ...]
    friends: tuple[Friend, ...]
    claims: tuple[tuple[str, Settling], ...]


@dataclass(slots=True)
class CreditPromise:
    """What a partner is promised, in whole credits."""

    friends: int = 0
    granted: int = 0
    taken_back: int = 0
    claimed: int = 0

    @property
    def balance(self) -> int:
        return self.granted - self.taken_back - self.claimed


def played(run: str, now: int) -> Played:
    """Partners and friends who show a rule each. Deterministic in its arguments."""
    start = (now - 60 * DAY) // 1000 * 1000
    shows = (
        "first residential purchase earns, no other; one claim given, one failed",
        "A brought B: credits for what B buys",
        "B brought C: credits for what C buys, B's alone; claims until they are used up",
        "refund of 25 % takes back its share, in whole credits",
    )
    first, a, b, refunded = (
        member(run, f"proxy{number}", PROGRAM_ID, start - number * DAY, text) for number, text in enumerate(shows, 1)
    )
    b = Partner(b.partner_id, PROGRAM_ID, b.account_id, b.name, b.email, start, b.shows, is_brought=True)
    friends = (
        _friend(run, 1, first, start, (500, "5", "datacenter"), (900, "2", FAMILY), (1800, "4", FAMILY)),
        _friend(run, 2, first, start, (2000, "4.5", FAMILY)),
        Friend(b.partner_id, b.email, a.partner_id, start, (_purchase(b.partner_id, 1, start, 900, "2", FAMILY),)),
        _friend(run, 3, b, start, (1350, "3", FAMILY)),
        _refunded(_friend(run, 4, refunded, start, (1200, "2", FAMILY)), 300),
    )
    own = first.partner_id, b.partner_id, refunded.partner_id
    claims: tuple[tuple[str, Settling], ...] = (
        (own[0], "fulfil"),
        (own[0], "fail"),
        (own[1], "fulfil"),
        (own[1], "fulfil"),
        (own[2], "fulfil"),
    )
    return Played((first, a, b, refunded), friends, claims)


def _friend(run: str, number: int, partner: Partner, start: int, *bought: tuple[int, str, str]) -> Friend:
    customer_id = f"{run}.proxy-friend{number}"
    purchases = (_purchase(customer_id, index, start + 3 * DAY, *each) for index, each in enumerate(bought, 1))
    email = f"proxy-friend{number}@{run}.example"
    return Friend(customer_id, email, partner.partner_id, start + 2 * DAY, tuple(purchases))


def _purchase(customer_id: str, number: int, since: int, minor: int, gigabytes: str, family: str) -> Purchase:
    return Purchase(f"{customer_id}.p{number}", since + number * DAY, minor, gigabytes, family)


def _refunded(friend: Friend, minor: int) -> Friend:
    (own,) = friend.purchases
    refund = Refund(f"{own.payment_id}.r1", own.at + DAY, minor)
    changed = Purchase(own.payment_id, own.at, own.minor, own.gigabytes, own.family, (refund,))
    return Friend(friend.customer_id, friend.email, friend.partner_id, friend.signed_up_at, (changed,))


def facts(friends: Iterable[Friend], codes: Mapping[str, str]) -> Iterator[Fact]:
    """What the friends did, as a platform writes it."""
    for friend in friends:
        own = {"customer_id": friend.customer_id}
        click = {"code": codes[friend.partner_id], "clicked_at": format_instant(friend.signed_up_at - HOUR)}
        yield friend.signed_up_at, "customer.signed_up", own | {"email": friend.email, "clicks": [click]}
        for bought in friend.purchases:
            of = own | {"payment_id": bought.payment_id}
            what = {"product_family": bought.family, "provider": PROVIDER, "quantity_gb": bought.gigabytes}
            yield bought.at, "payment.succeeded", of | what | {"amount": money(bought.minor, "USD")}
            for refund in bought.refunds:
                back = {"refund_id": refund.refund_id, "amount": money(refund.minor, "USD")}
                yield refund.at, "payment.refunded", of | back


# --- the promise ----------------------------------------------------------------------------------------------------


def promises(made: Played) -> tuple[dict[str, CreditPromise], list[Ending]]:
    """What every partner is promised when all claims were tried, and how each of the claims ends."""
    promised = {partner.partner_id: CreditPromise() for partner in made.partners}
    for friend in made.friends:
        own = promised[friend.partner_id]
        own.friends += 1
        residential = [each for each in friend.purchases if each.family == FAMILY]
        for first in sorted(residential, key=lambda each: (each.at, each.payment_id))[:1]:
            earned = int(Fraction(first.gigabytes) * PRODUCT_RATE)
            own.granted += earned
            own.taken_back += earned * sum(refund.minor for refund in first.refunds) // first.minor
    endings: list[Ending] = []
    for partner_id, settling in made.claims:
        own = promised[partner_id]
        if own.balance < REDEMPTION_RATE:
            endings.append("insufficient_credits")
        elif settling == "fail":
            endings.append("failed")
        else:
            own.claimed += REDEMPTION_RATE
            endings.append("fulfilled")
    return promised, endings
