"""Monthly discounts are a function of the set of events, as of each verification: any interleaving, with repeats and
owners that die, gives what an independent reading of the rules gives; and a month is decided once.

Source: programs.md, active-referrals; contract.md, Order.
"""

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import events
from schemas.commands import ActivatePartner, CreatePromoCode, OrderAccounts, VerifyMonth
from schemas.events import Event, Payload
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.programs import shipped
from schemas.programs.terms import DiscountStep, MonthlyDiscount
from services.rewards.discounts import percent_of, shares
from services.rewards.people import PEOPLE
from services.rewards.verifications import VERIFICATIONS
from services.runtime.simulate import MemoryReader, World
from tests.worlds import told, verify_asked, world

START = parse_instant("2025-01-10T00:00:00Z")
MONTHS = {"2025-01": parse_instant("2025-01-27T22:00:00Z"), "2025-02": parse_instant("2025-02-27T22:00:00Z")}
PARTNERS = ("ann", "bea")
CAP, SCALE = 2, ((1, 5), (2, 40))

MODEL = next(program for program in shipped() if program.program_id == "active-referrals")
SMALL = MODEL.model_copy(
    update={
        "program_id": "small",
        "timezone": "Europe/Kyiv",
        "terms": (
            MonthlyDiscount(
                day=28,
                referrals_per_account=CAP,
                scale=tuple(DiscountStep(from_referrals=least, percent=percent) for least, percent in SCALE),
            ),
        ),
    }
)
"""A small program: two referrals fill a company."""


# --- an independent reading of the rules ----------------------------------------------------------------------------


@dataclass
class Client:
    """What one referred customer did; a subscription (none: any) comes first, its time second."""

    partner: str
    joined: int
    activated: list[tuple[str, int]] = field(default_factory=list)
    cancelled: list[tuple[str, int]] = field(default_factory=list)
    trials: list[tuple[str, int, int]] = field(default_factory=list)
    paid: list[tuple[str | None, int, bool]] = field(default_factory=list)

    def is_active(self, at: int) -> bool:
        return self.joined < at and any(self._holds(sub, at) for sub in ("s1", "s2"))

    def _holds(self, sub: str, at: int) -> bool:
        on = max((t for s, t in self.activated if s == sub and t < at), default=None)
        off = max((t for s, t in self.cancelled if s == sub and t < at), default=None)
        if on is None or (off is not None and off >= on):
            return False
        begun = [(t, ends) for s, t, ends in self.trials if s == sub and t < at]
        since = max(begun)[1] if begun else None
        return any(
            not trial and s in (None, sub) and t < at and (since is None or t >= since) for s, t, trial in self.paid
        )


@dataclass
class Owner:
    """A partner's own side."""

    accounts: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    pending: list[tuple[int, int | None]] = field(default_factory=list)
    orders: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)


def oracle(owner: Owner, clients: Iterable[Client], at: int) -> tuple[int, list[tuple[str, int, int]], bool]:
    """(active, [(account, counted, percent)], withheld) of a partner at a verification."""
    active = sum(client.is_active(at) for client in clients)
    if any(begun < at and (ended is None or ended >= at) for begun, ended in owner.pending):
        return active, [], True
    opened = {a: c for a, (c, closed) in owner.accounts.items() if c < at and (closed is None or closed >= at)}
    chosen = max((order for order in owner.orders if order[0] < at), default=(0, ()))[1]
    queue = [a for a in chosen if a in opened] + sorted(set(opened) - set(chosen), key=lambda a: (opened[a], a))
    given_out, left = [], active
    for account in queue:
        counted, left = min(CAP, left), left - min(CAP, left)
        percent = 40 if counted == 2 else 5 if counted == 1 else 0
        given_out += [(account, counted, percent)] if percent else []
    return active, given_out, False


# --- histories ------------------------------------------------------------------------------------------------------


@dataclass
class History:
    owners: dict[str, Owner]
    clients: list[Client]
    events: list[Event]


def _event(name: str, at: int, data: Payload) -> Event:
    return Event(name, "/platform", at, data)


def _command(name: str, partner: str, **more: Any) -> dict[str, Any]:
    own = {"command_id": name, "body_hash": "-", "caller": "platform:platform", "partner_id": partner}
    return {**own, "program_id": "small", **more}


moments = st.one_of(
    st.integers(0, 110).map(lambda half_days: START + half_days * DAY // 2),
    st.sampled_from([at + late for at in MONTHS.values() for late in (-1, 0, 1)]),
)


@st.composite
def histories(draw: st.DrawFn) -> History:
    made: list[Event] = []
    owners = {partner: _owner(draw, partner, made) for partner in PARTNERS}
    clients = [_client(draw, f"c{number}", made) for number in range(draw(st.integers(0, 7)))]
    return History(owners, clients, made)


def _owner(draw: st.DrawFn, partner: str, made: list[Event]) -> Owner:
    owner = Owner()
    for name in (f"{partner}-a", f"{partner}-b", f"{partner}-c")[: draw(st.integers(0, 3))]:
        at = draw(moments.map(lambda at: min(at, START + 20 * DAY)))
        closed = draw(st.none() | moments)
        owner.accounts[name] = (at, closed)
        made.append(_event(name, at, events.AccountCreated(customer_id=partner, account_id=name)))
        if closed is not None:
            made.append(_event(f"{name}x", closed, events.AccountClosed(customer_id=partner, account_id=name)))
    for number in range(draw(st.integers(0, 1))):
        name, begun, ended = f"{partner}-p{number}", draw(moments), draw(st.none() | moments)
        owner.pending.append((begun, ended))
        amount = Money(minor=100, currency="USD")
        pending = events.PaymentPending(payment_id=name, customer_id=partner, amount=amount)
        made.append(_event(name, begun, pending))
        if ended is not None:
            succeeded = events.PaymentSucceeded(payment_id=name, customer_id=partner, amount=amount)
            failed = events.PaymentFailed(payment_id=name, customer_id=partner)
            made.append(_event(f"{name}e", ended, succeeded if draw(st.booleans()) else failed))
    for number, at in enumerate(draw(st.lists(moments, max_size=2, unique=True))):
        chosen = tuple(draw(st.permutations([f"{partner}-a", f"{partner}-b", "foreign"])))
        owner.orders.append((at, chosen))
        fields = _command(f"{partner}-o{number}", partner, account_ids=chosen, effective_at=at)
        made.append(_event(f"{partner}-o{number}", at, OrderAccounts.model_validate(fields)))
    return owner


def _client(draw: st.DrawFn, cid: str, made: list[Event]) -> Client:
    client = Client(draw(st.sampled_from(PARTNERS)), draw(moments.map(lambda at: min(at, START + 20 * DAY))))
    signup = events.CustomerSignedUp(customer_id=cid, promo_code=f"code-{client.partner}")
    made.append(_event(cid, client.joined, signup))
    for sub in ("s1", "s2")[: draw(st.integers(1, 2))]:
        ids = {"customer_id": cid, "subscription_id": f"{cid}-{sub}"}
        for at in draw(st.lists(moments, min_size=1, max_size=2, unique=True)):
            client.activated.append((sub, at))
            step = events.SubscriptionActivated(**ids, product_id="pro", interval="month")
            made.append(_event(f"{cid}{sub}on{at}", at, step))
        for at in draw(st.lists(moments, max_size=1, unique=True)):
            client.cancelled.append((sub, at))
            made.append(_event(f"{cid}{sub}off{at}", at, events.SubscriptionCancelled(**ids)))
        for at in draw(st.lists(moments, max_size=2, unique=True)):
            ends = at + draw(st.integers(0, 30)) * DAY
            client.trials.append((sub, at, ends))
            trial = events.TrialStarted.model_validate({**ids, "product_id": "pro", "trial_ends_at": ends})
            made.append(_event(f"{cid}{sub}t{at}", at, trial))
    for number in range(draw(st.integers(0, 3))):
        sub, at, is_trial = draw(st.sampled_from(["s1", "s2", None])), draw(moments), draw(st.sampled_from([0, 0, 1]))
        client.paid.append((sub, at, bool(is_trial)))
        paid = events.PaymentSucceeded(
            payment_id=f"{cid}-p{number}",
            customer_id=cid,
            subscription_id=sub and f"{cid}-{sub}",
            trial=bool(is_trial),
            amount=Money(minor=1, currency="USD"),
        )
        made.append(_event(f"{cid}-p{number}", at, paid))
    return client


# --- the system -----------------------------------------------------------------------------------------------------


def _played(history: History, seed: int, crashes: float) -> World:
    made = world(seed, partitions=3, crashes=crashes, programs=(SMALL,))
    for partner in PARTNERS:
        on = _command(f"on-{partner}", partner, accepted_terms=True)
        made.publish(_event(f"on-{partner}", START - DAY, ActivatePartner.model_validate(on)))
    made.run()
    for partner in PARTNERS:
        promo = _command(f"promo-{partner}", partner, code=f"code-{partner}")
        made.publish(_event(f"promo-{partner}", START, CreatePromoCode.model_validate(promo)))
    made.run()
    order = list(history.events)
    random.Random(seed).shuffle(order)
    made.publish(*order, *(order if seed % 3 == 0 else ()))
    return made.run()


def _verify(made: World, month: str, ask: str) -> World:
    fields = {"command_id": ask, "body_hash": "-", "caller": "admin:admin", "partner_id": "small", "month": month}
    made.publish(_event(ask, parse_instant("2026-01-01T00:00:00Z"), VerifyMonth.model_validate(fields)))
    return verify_asked(made.run())


def _decided(made: World, partner: str, month: str) -> tuple[int, list[tuple[str, int, int]], bool]:
    person = asyncio.run(MemoryReader(made).state(PEOPLE, partner))
    (found,) = [each for each in person.verifications if each.month == month]
    given_out = [(each.account_id, each.referrals_counted, each.percent) for each in found.discounts]
    return found.active_referrals, given_out, found.withheld


def _answer(made: World, ask: str) -> dict[str, Any]:
    answer = asyncio.run(MemoryReader(made).answers((VERIFICATIONS,), [ask])).get(ask)
    assert answer is not None and answer.status == 200
    return answer.body


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories(), seed=st.integers(0, 10**6), crashes=st.sampled_from([0.0, 0.2]))
def test_a_verification_follows_from_the_set_of_events(history: History, seed: int, crashes: float) -> None:
    made = _played(history, seed, crashes)
    for month, at in MONTHS.items():
        _verify(made, month, f"ask-{month}")
        wanted = {
            partner: oracle(owner, [each for each in history.clients if each.partner == partner], at)
            for partner, owner in history.owners.items()
        }
        for partner, expected in wanted.items():
            got = _decided(made, partner, month)
            assert got == expected, (partner, month)
            assert sum(counted for _, counted, _ in got[1]) <= got[0]
        counts = _answer(made, f"ask-{month}")
        assert counts["partners"] == len(PARTNERS)
        assert counts["assigned"] == sum(len(given_out) for _, given_out, _ in wanted.values())
        assert counts["withheld"] == sum(withheld for _, _, withheld in wanted.values())
    said = [event for event in told(made, "rewards") if event["type"].startswith("discount.")]
    assert len({event["id"] for event in said}) == len(said)
    lapsed = sum(event["type"] == "discount.lapsed" for event in said)
    assert lapsed == sum(_answer(made, f"ask-{month}")["lapsed"] for month in MONTHS)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories(), later=histories(), seed=st.integers(0, 10**6))
def test_a_month_is_decided_once_whatever_arrives_later(history: History, later: History, seed: int) -> None:
    made = _played(history, seed, 0.1)
    _verify(made, "2025-01", "first")
    before, decided = told(made, "rewards"), {partner: _decided(made, partner, "2025-01") for partner in PARTNERS}
    made.publish(*later.events)
    made.run()
    _verify(made, "2025-01", "again")
    assert _answer(made, "again") == _answer(made, "first")
    assert {partner: _decided(made, partner, "2025-01") for partner in PARTNERS} == decided
    assert told(made, "rewards") == before


@given(active=st.integers(0, 100), companies=st.lists(st.text(min_size=1), max_size=6, unique=True))
def test_referrals_are_handed_out_in_order_up_to_the_limit(active: int, companies: list[str]) -> None:
    terms = MODEL.term(MonthlyDiscount)
    assert terms is not None
    given_out = shares(terms, active, companies)
    counted = [each.referrals_counted for each in given_out]
    assert [each.account_id for each in given_out] == companies
    assert sum(counted) == min(active, terms.referrals_per_account * len(companies))
    assert all(each == terms.referrals_per_account for each in counted[: active // terms.referrals_per_account])
    assert [each.percent for each in given_out] == [percent_of(terms, each) for each in counted]
