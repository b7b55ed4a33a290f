"""`refstream bench path`: W2, everything customers of all five programs do, through all four services."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from schemas import events
from schemas.events import Event, Payload, event_json
from schemas.moments import DAY, SECOND, micros
from schemas.money import Money
from schemas.programs import shipped
from schemas.programs.terms import Credits, Share
from schemas.topics import COMMISSIONS, DEAD_LETTERS, REFERRALS, REWARDS, TOPIC_OF
from services.cli.bench.commission import started
from services.cli.bench.folding import Folded, Output, until_folded
from services.cli.bench.lab import Lab
from services.cli.bench.load import publish
from services.cli.bench.result import Run
from services.cli.bench.workload import SEED, Record
from services.cli.demo.data import Partner
from services.cli.demo.platform import Platform, several
from services.cli.demo.steps import Steps
from services.cli.service import Service

EVERY, SAID = tuple(Service), (REFERRALS, COMMISSIONS, REWARDS)
PARTNERS_PER_PROGRAM = 8
MINUTE, HOUR = 60 * SECOND, 3_600 * SECOND
DAYS_AGO, BETWEEN_PAYMENTS = 100, 20 * DAY
PAYMENTS_EACH, REFUNDED = 3, 0.05


@dataclass(frozen=True, slots=True)
class Options:
    customers: int
    workers: int = 1


@dataclass(slots=True)
class Facts:
    """Records by topic, in the order in which they are published; `paid`: the payments that must be decided."""

    records: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    paid: set[str] = field(default_factory=set)
    count: int = 0

    def add(self, at: int, payload: Payload, source: str = "/platform") -> None:
        topic, self.count = TOPIC_OF[type(payload)], self.count + 1
        event = Event(f"bench-{self.count}", source, at, payload)
        self.records[topic.name].append((topic.key(payload), event_json(event)))


def measure(options: Options, steps: Steps) -> Run:
    """Partners join over HTTP; then all that customers do is published and folded by fresh workers.

    Errors: StackRefused, DemoFailed.
    """
    with Lab() as lab:
        now = micros(lab.settings.now())
        partners = tuple(_partners(now))
        with steps.step(f"{len(partners)} partners join, each with a link"):
            running = lab.work(EVERY)
            lab.await_ready(running)
            lab.serve()
            codes = asyncio.run(_join(lab, partners))
            lab.stop()
        with steps.step("clicks, signups, accounts, subscriptions, payments and refunds are on Kafka") as step:
            facts = made(options.customers, partners, codes, now)
            for topic, records in facts.records.items():
                asyncio.run(publish(lab.settings, topic, records))
            step.said = f"{facts.count:,} events are on Kafka"
        with steps.step("folding") as step:
            workers = lab.work(EVERY, options.workers)
            looked = until_folded(lab, EVERY, SAID, lambda: started(workers), lambda sample: step.left(sample.unread))
            folded = asyncio.run(looked)
            step.said = f"{facts.count:,} events folded in {folded.seconds:.1f} s"
        return _run(options, facts, folded, asyncio.run(_lacking(lab, facts, options.customers)))


def _run(options: Options, facts: Facts, folded: Folded, fault: str) -> Run:
    payments = options.customers * PAYMENTS_EACH
    workers = sum(spent for name, spent in folded.cpu_seconds.items() if name.endswith("worker"))
    figures = {
        "seconds": folded.seconds,
        "events_per_s": facts.count / folded.seconds,
        "payments_per_s": payments / folded.seconds,
        "workers_cpu_per_event_us": workers / facts.count * 1e6,
        "cpu_of_others_seconds": max(0.0, folded.others_cpu_seconds),
    }
    return Run(
        label=f"{options.customers:,} customers, {facts.count:,} events",
        figures={name: round(value, 3) for name, value in figures.items()},
        cpu_seconds=folded.cpu_seconds,
        peak_memory_mb=folded.peak_memory_mb,
        over_time=folded.over_time,
        fault=fault,
    )


# --- partners -------------------------------------------------------------------------------------------------------


def _partners(now: int) -> Iterator[Partner]:
    for program in shipped():
        for number in range(PARTNERS_PER_PROGRAM):
            name = f"{program.program_id}-p{number}"
            joined_at = now - (DAYS_AGO + 1) * DAY
            yield Partner(name, program.program_id, f"{name}-account", name, f"{name}@partners.example", joined_at)


async def _join(lab: Lab, partners: Sequence[Partner]) -> Mapping[str, str]:
    """Partner id → the code of its link."""
    facts = Facts()
    for partner in partners:
        own = {"customer_id": partner.partner_id}
        facts.add(partner.joined_at, events.CustomerSignedUp(**own, email=partner.email))
        facts.add(partner.joined_at, events.AccountCreated(**own, account_id=partner.account_id))
    for topic, records in facts.records.items():
        await publish(lab.settings, topic, records)
    await until_folded(lab, EVERY, SAID, lambda: 0.0)
    async with Platform(lab.url, lab.settings) as platform:
        codes = await several(platform.activate, partners, lambda: None)
    await until_folded(lab, EVERY, SAID, lambda: 0.0)
    return {partner.partner_id: code for partner, code in zip(partners, codes, strict=True)}


# --- customers ------------------------------------------------------------------------------------------------------


def made(customers: int, partners: Sequence[Partner], codes: Mapping[str, str], now: int) -> Facts:
    """All that the customers do, from the seed; `now` only moves it. Pure."""
    rng, facts = random.Random(SEED), Facts()  # noqa: S311 (a seed to repeat)
    currency = {program.program_id: program.currency for program in shipped()}
    priced = {program.program_id for program in shipped() if program.term(Share) or program.term(Credits)}
    for number in range(customers):
        partner, customer = rng.choice(partners), f"c{number:06d}"
        at = now - DAYS_AGO * DAY + rng.randrange(20 * DAY)
        code, program = codes[partner.partner_id], partner.program_id
        _arrive(facts, partner, customer, code, at)
        for payment in range(PAYMENTS_EACH):
            paid_at = at + 3 * HOUR + payment * BETWEEN_PAYMENTS
            amount = Money(minor=rng.randrange(500, 50_001), currency=currency[program])
            payment_id = f"{customer}-pay{payment}"
            facts.add(paid_at, _payment(payment_id, customer, program, amount))
            if program in priced:
                facts.paid.add(payment_id)
            if rng.random() < REFUNDED:
                own = {"payment_id": payment_id, "customer_id": customer}
                refund = events.PaymentRefunded(**own, refund_id=f"{payment_id}-r", amount=amount)
                facts.add(paid_at + HOUR, refund)
    return facts


def _arrive(facts: Facts, partner: Partner, customer: str, code: str, at: int) -> None:
    """Click, signup, account and subscription."""
    brought_by = {"partner_id": partner.partner_id, "program_id": partner.program_id}
    facts.add(at, events.ClickRecorded(visitor_id=f"v-{customer}", code=code, **brought_by), "/attribution")
    own = {"customer_id": customer}
    click = events.Click(code=code, clicked_at=at)
    signed_up = events.CustomerSignedUp(**own, email=f"{customer}@customers.example", clicks=(click,))
    facts.add(at + HOUR, signed_up)
    facts.add(at + HOUR + MINUTE, events.AccountCreated(**own, account_id=f"a-{customer}"))
    plan = {"subscription_id": f"s-{customer}", "product_id": "standard"}
    facts.add(at + 2 * HOUR, events.SubscriptionActivated(**own, **plan, interval="month"))


def _payment(payment_id: str, customer: str, program: str, amount: Money) -> events.PaymentSucceeded:
    bought = {"subscription_id": f"s-{customer}", "product_id": "standard"}
    if program == "proxy-credits":
        bought = {"product_family": "residential", "provider": "packetstream", "quantity_gb": "5"}
    return events.PaymentSucceeded.model_validate(
        {"payment_id": payment_id, "customer_id": customer, "account_id": f"a-{customer}", "amount": amount, **bought}
    )


async def _lacking(lab: Lab, facts: Facts, customers: int) -> str:
    """What was not decided as it must be; empty where all was."""
    async with Output(lab.settings, DEAD_LETTERS) as dead:
        refused = await dead.readable()
    said = [f"{refused} dead letters"] if refused else []
    async with Output(lab.settings, *SAID) as output:
        events_said = [orjson.loads(value) for value in await output.values()]
    bound = sum(event["type"] == "referral.attributed" for event in events_said)
    said += [f"{bound} of {customers} customers are bound"] if bound != customers else []
    lacking = facts.paid - {event["data"].get("payment_id") for event in events_said}
    said += [f"{len(lacking)} payments are not decided, one is {min(lacking)}"] if lacking else []
    return ", ".join(said)
