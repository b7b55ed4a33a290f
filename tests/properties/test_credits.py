"""Credits follow from the set of events: any interleaving of purchases, refunds, claims and program versions, with
repeats and owners that die, gives the balances of an independent reading of the rules, and nothing gets lost between.

Program versions are published at random moments among the purchases, and each process hears of them at its own time.
Source: programs.md, proxy-credits; contract.md, Order.
"""

import random
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import events
from schemas.commands import ActivatePartner, CreatePromoCode, RequestClaim, SettleClaim
from schemas.events import Event, Payload, ProgramPublished
from schemas.ids import derived_id
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.programs import shipped
from schemas.programs.terms import Program, Provider
from services.runtime.simulate import World
from tests import credit_oracle as oracle
from tests.credit_oracle import Buyer, InForce, Purchase
from tests.worlds import told, wallet, world

START = parse_instant("2025-01-01T00:00:00Z")
PARTNERS = ("ann", "bea")
PC = "switched"
TIMES = [(START + days * DAY) for days in (5, 12, 18, 26, 33)]

moments = st.integers(0, 20).map(lambda pairs_of_days: START + pairs_of_days * 2 * DAY)
later = st.integers(6, 20).map(lambda pairs_of_days: START + pairs_of_days * 2 * DAY)
rates = st.sampled_from(["5", "2.5", "7.75", "1", "0.333333333333333333", "0.1", "0"])
quantities = st.sampled_from(["2", "2.59", "1", "0.1", "1000", "3.000000000000000001", "0", None])


def _document(version: InForce) -> Program:
    model = next(program for program in shipped() if program.program_id == "proxy-credits")
    providers = {
        name: Provider(product_rate=Decimal(rate), redemption_rate=Decimal("3.5"))
        for name, rate in version.rates.items()
    }
    return model.model_copy(update={"program_id": PC, "enabled": version.enabled, "providers": providers})


@dataclass(frozen=True)
class History:
    versions: list[InForce]
    buyers: list[Buyer]
    events: list[Event]


def _event(name: str, at: int, data: Payload) -> Event:
    return Event(name, "/platform", at, data)


def _usd(minor: int) -> Money:
    return Money(minor=minor, currency="USD")


@st.composite
def histories(draw: st.DrawFn) -> History:
    providers = st.dictionaries(st.sampled_from(["north", "south"]), rates, min_size=1)
    versions = [InForce(0, True, draw(providers))]
    switch = st.sampled_from([True, True, False])
    versions += draw(st.lists(st.builds(InForce, later, switch, providers), min_size=1, max_size=3))
    buyers: list[Buyer] = []
    made: list[Event] = []
    for number in range(draw(st.integers(2, 6))):
        buyer = Buyer(f"c{number}", draw(st.sampled_from(PARTNERS)), draw(moments.map(lambda at: min(at, TIMES[0]))))
        buyers.append(buyer)
        signup = events.CustomerSignedUp(customer_id=buyer.customer_id, promo_code=f"code-{buyer.partner_id}")
        made.append(_event(f"{buyer.customer_id}-up", buyer.bound_at, signup))
        for purchase in range(draw(st.integers(1, 3))):
            made += _purchase(draw, buyer, f"{buyer.customer_id}-p{purchase}")
    return History(versions, buyers, made)


def _purchase(draw: st.DrawFn, buyer: Buyer, name: str) -> list[Event]:
    family = draw(st.sampled_from([*4 * ["residential"], "datacenter", None]))
    provider = draw(st.sampled_from([*4 * ["north"], "south", "west", None]))
    bought = Purchase(name, draw(moments), draw(st.integers(0, 30)), family, provider, draw(quantities))
    buyer.purchases.append(bought)
    ids: dict[str, Any] = {"payment_id": name, "customer_id": buyer.customer_id}
    paid = {"product_family": family, "provider": provider, "quantity_gb": bought.gb, "amount": _usd(bought.minor)}
    made = [_event(name, bought.at, events.PaymentSucceeded.model_validate({**ids, **paid}))]
    for number in range(draw(st.integers(0, 3))):
        at, minor = draw(moments), draw(st.integers(0, bought.minor + 2))
        bought.losses.append((at, minor))
        refund = events.PaymentRefunded(**ids, refund_id=f"{name}-r{number}", amount=_usd(minor))
        made.append(_event(refund.refund_id, at, refund))
    if draw(st.integers(0, 3)) == 0:
        opened, minor, outcome = (
            draw(moments),
            draw(st.integers(0, bought.minor)),
            draw(st.sampled_from(["won", "lost"])),
        )
        closed = draw(st.none() | moments.map(lambda at: max(at, opened)))
        made.append(
            _event(f"{name}-do", opened, events.PaymentDisputed(**ids, dispute_id=f"{name}-d", amount=_usd(minor)))
        )
        if closed is not None:
            over = events.DisputeClosed.model_validate({**ids, "dispute_id": f"{name}-d", "outcome": outcome})
            made.append(_event(f"{name}-dc", closed, over))
            if outcome == "lost":
                bought.losses.append((closed, minor))
    return made


def _command(name: str, **fields: object) -> dict[str, object]:
    return {"command_id": name, "body_hash": "-", "caller": "partner:x", "program_id": PC, **fields}


def _claims(rng: random.Random) -> list[Event]:
    """Claims, and what becomes of some of them; a settlement may come before its claim and is refused then."""
    made = []
    for number in range(rng.randint(0, 6)):
        partner, name, at = rng.choice(PARTNERS), f"claim-{number}", START + rng.randint(0, 60) * DAY
        asked = RequestClaim.model_validate(_command(name, partner_id=partner, provider=rng.choice(["north", "south"])))
        made.append(_event(name, at, asked))
        for turn in range(rng.randint(0, 2)):
            settle = {**_command(f"{name}-s{turn}", partner_id=partner), "fulfil": rng.random() < 0.5}
            del settle["program_id"]
            settled = SettleClaim.model_validate({**settle, "claim_id": derived_id("claim", name)})
            made.append(_event(f"{name}-s{turn}", at + DAY, settled))
    return made


def _published(history: History) -> list[Event]:
    """The later versions as they are on the log: in order, whatever lies between."""
    return [
        Event(
            derived_id("published", PC, number),
            "/attribution",
            version.since,
            ProgramPublished(
                program_id=PC, version=number, effective_at=version.since, document=_document(version).as_document()
            ),
        )
        for number, version in enumerate(history.versions[1:], 2)
    ]


def _played(history: History, seed: int, crashes: float) -> World:
    rng = random.Random(seed)
    made = world(seed, partitions=3, crashes=crashes, programs=(_document(history.versions[0]),))
    on = [
        _event(f"on-{p}", 0, ActivatePartner.model_validate(_command(f"on-{p}", partner_id=p, accepted_terms=True)))
        for p in PARTNERS
    ]
    codes = [
        _event(f"code-{p}", 1, CreatePromoCode.model_validate(_command(f"k-{p}", partner_id=p, code=f"code-{p}")))
        for p in PARTNERS
    ]
    for phase in (on, codes):
        made.publish(*phase)
        made.run()
    order: list[Event | None] = [*history.events, *(history.events if seed % 3 == 0 else ()), *_claims(rng)]
    order += [None] * (len(history.versions) - 1)
    rng.shuffle(order)
    versions = iter(_published(history))
    for event in order:
        made.publish(event if event is not None else next(versions))
        if rng.random() < 0.2:
            made.run()
    return made.run()


def _sum(found: list[dict[str, Any]], before: int | None = None) -> int:
    return sum(e["data"]["credits"] for e in found if before is None or parse_instant(e["time"]) < before)


def _check_wallets(history: History, made: World) -> None:
    said = told(made, "rewards")
    for partner in PARTNERS:
        own = [event for event in said if event["data"]["partner_id"] == partner]
        of = {
            kind: [event for event in own if event["type"] == kind]
            for kind in ("credit.granted", "credit.reversed", "claim.requested", "claim.failed")
        }
        earned = oracle.earned(history.versions, history.buyers, partner)
        balance = earned - _sum(of["claim.requested"]) + _sum(of["claim.failed"])
        there = bool(of["claim.requested"]) or oracle.has_entry(history.versions, history.buyers, partner)
        assert wallet(made, partner) == ([{"program_id": PC, "balance": balance}] if there else [])
        assert _sum(of["credit.granted"]) - _sum(of["credit.reversed"]) == earned
        for at in TIMES:
            then = oracle.earned(history.versions, history.buyers, partner, at)
            then += _sum(of["claim.failed"], at) - _sum(of["claim.requested"], at)
            assert ([credit["balance"] for credit in wallet(made, partner, at)] or [0]) == [then]


def _check_trail(history: History, made: World) -> None:
    """Per purchase granted − reversed is what is left, never below zero; declines and grants cover every purchase."""
    left: dict[str, int] = {}
    for event in told(made, "rewards"):
        if event["type"] in ("credit.granted", "credit.reversed"):
            sign = 1 if event["type"] == "credit.granted" else -1
            payment_id = event["data"]["payment_id"]
            left[payment_id] = left.get(payment_id, 0) + sign * event["data"]["credits"]
            assert left[payment_id] >= 0
    declined: dict[str, str] = {}
    for event in told(made, "commissions"):
        assert event["type"] in ("commission.declined", "activity.changed")
        if event["type"] == "commission.declined":
            declined[event["data"]["payment_id"]] = event["data"]["reason"]
    for buyer in history.buyers:
        for purchase in buyer.purchases:
            reason, _ = oracle.decide(history.versions, buyer, purchase)
            name = purchase.payment_id
            assert left.get(name, 0) == oracle.left(history.versions, buyer, purchase)
            assert (declined[name] if reason else name in left) == (reason or True)


@pytest.mark.parametrize("crashes", [0.0, 0.2])
def test_wallets_follow_from_the_set_of_events_and_versions(crashes: float) -> None:
    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(history=histories(), seed=st.integers(0, 10**6))
    def holds(history: History, seed: int) -> None:
        made = _played(history, seed, crashes)
        _check_wallets(history, made)
        _check_trail(history, made)

    holds()
