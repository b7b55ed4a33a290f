"""What a partner paid for clients earns nothing, in every order in which it can be learnt; and prices only fall.

Source: programs.md, message-help; contract.md, Order.
"""

import random
from dataclasses import dataclass
from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import events
from schemas.commands import ActivatePartner, CreatePromoCode
from schemas.events import Event, Payload
from schemas.internal import ClientPaid
from schemas.moments import DAY, parse_instant
from schemas.money import Money, share
from schemas.programs import shipped
from schemas.programs.terms import ClientDiscount, IntegrationFamily, Share, Tier
from services.runtime.simulate import World
from tests.worlds import balance, told, world

START = parse_instant("2025-01-01T00:00:00Z")
TIERS = ((1, "0.20"), (2, "0.30"))
PROGRAM = next(program for program in shipped() if program.program_id == "message-help").model_copy(
    update={
        "program_id": "integrated",
        "terms": (Share(tiers=tuple(Tier(from_clients=n, rate=Decimal(rate)) for n, rate in TIERS)),),
    }
)


@dataclass(frozen=True)
class Paid:
    """A payment of a customer. `by`: who says so: the platform, the partner's account, or both under one id."""

    customer: int
    days: int
    minor: int
    by: str


PAYMENTS = st.lists(
    st.builds(
        Paid,
        customer=st.integers(0, 2),
        days=st.integers(0, 20),
        minor=st.integers(1, 9_999),
        by=st.sampled_from(["platform", "platform", "partner", "both"]),
    ),
    max_size=8,
)


def _said(number: int, paid: Paid, bound: bool) -> list[tuple[str, int, Payload]]:
    """The events of one payment. Half of the clients are known to payouts as bound before they are to commission."""
    own, customer, at = f"p{number}", f"c{paid.customer}", START + paid.days * DAY
    amount = Money(minor=paid.minor, currency="EUR")
    said: list[tuple[str, int, Payload]] = []
    if paid.by != "partner":
        said.append((own, at, events.PaymentSucceeded(payment_id=own, customer_id=customer, amount=amount)))
    if paid.by != "platform":
        ids = {"payment_id": own, "customer_id": customer, "partner_id": "ann", "program_id": "integrated"}
        price = {"list_price": amount, "discount_rate": "0", "charged": amount, "from_bonus": amount}
        client = ClientPaid(**ids, **price, program_version=1, integration="amo", interval="month", bound=bound)
        said.append((f"{own}-client", at, client))
    return said


def _played(payments: list[Paid], seed: int, crashes: float) -> World:
    made = world(seed, partitions=3, crashes=crashes, programs=(PROGRAM,))
    same = {"command_id": "on", "body_hash": "-", "caller": "platform:platform", "partner_id": "ann"}
    made.publish(
        Event(
            "on", "/t", 0, ActivatePartner.model_validate({**same, "program_id": "integrated", "accepted_terms": True})
        )
    )
    made.run()
    code = {**same, "command_id": "promo", "program_id": "integrated", "code": "ann-code"}
    made.publish(Event("promo", "/t", 0, CreatePromoCode.model_validate(code)))
    made.run()
    # c0 and c1 are ann's from the 5th day on, c2 is nobody's
    signups: list[tuple[str, int, Payload]] = [
        (
            f"up{n}",
            START + 5 * DAY,
            events.CustomerSignedUp(customer_id=f"c{n}", promo_code="ann-code" if n < 2 else None),
        )
        for n in range(3)
    ]
    events_of = [said for number, paid in enumerate(payments) for said in _said(number, paid, paid.customer < 1)]
    everything = signups + events_of
    random.Random(seed).shuffle(everything)
    cut = random.Random(seed).randint(0, len(everything))
    for part in (everything[:cut], everything[cut:]):
        made.publish(*(Event(name, "/t", at, data) for name, at, data in part))
        made.run()
    return made


def _accrued(payments: list[Paid]) -> int:
    """An independent reading: only what the clients paid themselves since they were bound, at the rate by clients."""
    earning = sorted(
        (paid.days, f"p{number}", paid)
        for number, paid in enumerate(payments)
        if paid.by == "platform" and paid.customer < 2 and paid.days >= 5
    )
    total, clients = 0, set[int]()
    for _, _, paid in earning:
        clients.add(paid.customer)
        total += share(paid.minor, Decimal([rate for least, rate in TIERS if least <= len(clients)][-1]))
    return total


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(payments=PAYMENTS, seed=st.integers(0, 10**6), crashes=st.sampled_from([0.0, 0.2]))
def test_what_a_partner_pays_earns_nothing_in_whatever_order_it_is_learnt(
    payments: list[Paid], seed: int, crashes: float
) -> None:
    made = _played(payments, seed, crashes)
    got = balance(made, "ann", "integrated", "EUR")
    assert (got["accrued"] if got else 0) == _accrued(payments)
    assert not got or got["reversed"] == 0
    last: dict[str, str] = {}
    for event in told(made, "commissions"):
        if "payment_id" in event["data"]:
            last.setdefault(event["data"]["payment_id"], "")
    assert set(last) == {f"p{number}" for number in range(len(payments))}
    undone = {
        event["data"]["payment_id"]
        for event in told(made, "commissions")
        if event["data"].get("reason") == "integrator_paid"
    }
    assert undone == {f"p{number}" for number, paid in enumerate(payments) if paid.by != "platform"}


FAMILIES = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 100)), min_size=1, max_size=5, unique_by=lambda step: step[0]
).map(
    lambda steps: IntegrationFamily(
        integrations=("amo",),
        discounts=tuple(
            ClientDiscount(from_clients=clients, rate=Decimal(rate) / 100)
            for clients, rate in zip(sorted(c for c, _ in steps), sorted(r for _, r in steps), strict=True)
        ),
    )
)


@given(FAMILIES, st.integers(0, 40), st.integers(0, 10**9))
def test_one_client_more_never_costs_more(family: IntegrationFamily, clients: int, price: int) -> None:
    names = [f"c{number}" for number in range(clients + 1)]
    before, after = family.rate(len(set(names[:-1]))), family.rate(len(set(names)))
    assert before <= after
    assert share(price, 1 - after) <= share(price, 1 - before) <= price
