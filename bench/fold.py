"""How much CPU one payment costs: keycrm payments through commission and the ledger, in memory, without Kafka or Redis.

    python bench/fold.py --payments 60000
    python bench/fold.py --rounds 1 --profile commission.sales

The real stages and the real loop fold record bytes that were built before the clock starts: customers bound to
partners, payments, 5 % of them sent twice, some refunded. Everything follows from the seed. What is counted is the
process's CPU time, so that other work on the machine does not show. Garbage collection counts where the folds cause
it, not for going through the log that this script holds.
"""

import argparse
import asyncio
import cProfile
import gc
import pstats
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from hashlib import blake2b

from schemas.events import Event, PartnerActivated, PaymentRefunded, PaymentSucceeded, ReferralAttributed, event_json
from schemas.ids import partition_of
from schemas.moments import DAY, parse_instant
from schemas.money import Money
from schemas.programs import Programs, shipped
from schemas.topics import COMMISSIONS, PARTNERS, PAYMENTS, REFERRALS, SALES, TOPIC_OF
from services.commission.partners import PARTNERS as PARTNERS_STAGE
from services.commission.sales import SALES as SALES_STAGE
from services.payouts import LEDGER
from services.runtime.cell import Cell
from services.runtime.codec import Codec
from services.runtime.memory import MemoryStore
from services.runtime.stage import Record

STAGES = (SALES_STAGE, PARTNERS_STAGE, LEDGER)
HOPS = ((SALES_STAGE, PAYMENTS), (PARTNERS_STAGE, SALES), (LEDGER, COMMISSIONS))
PARTITIONS = 4
BOUND_FROM, PAID_FROM = parse_instant("2025-04-15T00:00:00Z"), parse_instant("2026-01-01T00:00:00Z")
BOUND_DAYS, PAID_DAYS = 260, 166
APPENDED_AT = parse_instant("2030-01-01T00:00:00Z")

Log = dict[tuple[str, int], list[Record]]


def workload(args: argparse.Namespace) -> Iterator[Event]:
    """First what binds the customers, then the payments in order of time, repeats and refunds among them."""
    rng = random.Random(args.seed)
    for p in range(args.partners):
        at = BOUND_FROM - DAY
        active = PartnerActivated(partner_id=f"p{p:05d}", program_id="keycrm", activated_at=at)
        yield Event(f"act-{p}", "/attribution", at, active)
    for c in range(args.customers):
        at = BOUND_FROM + rng.randrange(BOUND_DAYS * DAY) // 1000 * 1000
        bound = ReferralAttributed(
            customer_id=f"c{c:06d}",
            partner_id=f"p{c % args.partners:05d}",
            program_id="keycrm",
            program_version=1,
            method="click",
            attributed_at=at,
        )
        yield Event(f"ref-c{c:06d}", "/attribution", at, bound)
    later: dict[int, list[Event]] = defaultdict(list)
    step = PAID_DAYS * DAY // args.payments // 1000 * 1000
    for i in range(args.payments):
        customer_id = f"c{rng.randrange(args.customers):06d}"
        amount, at = Money(minor=rng.randrange(500, 50_001), currency="USD"), PAID_FROM + i * step
        paid = PaymentSucceeded(
            payment_id=f"pay-{i:08d}",
            customer_id=customer_id,
            account_id=f"a{customer_id}",
            subscription_id=f"s{customer_id}",
            product_id="crm-pro",
            interval="month",
            amount=amount,
        )
        event = Event(f"evt-{i:08d}", "/platform", at, paid)
        yield event
        if rng.random() < args.repeated:
            later[min(args.payments - 1, i + rng.randrange(1, 5_001))].append(event)
        if rng.random() < args.refunded:
            due = min(args.payments - 1, i + rng.randrange(1, 5_001))
            refund = PaymentRefunded(
                payment_id=paid.payment_id, customer_id=customer_id, refund_id=f"rfd-{i:08d}", amount=amount
            )
            later[due].append(Event(f"rfd-evt-{i:08d}", "/platform", PAID_FROM + due * step, refund))
        yield from later.pop(i, ())


def records(args: argparse.Namespace) -> Log:
    log: Log = defaultdict(list)
    for event in workload(args):
        topic = TOPIC_OF[type(event.data)]
        key = topic.key(event.data)
        append(log, topic.name, partition_of(key, PARTITIONS), key.encode(), event_json(event))
    return log


def append(
    log: Log,
    topic: str,
    partition: int,
    key: bytes | None,
    value: bytes | None,
    headers: tuple[tuple[str, bytes], ...] = (),
) -> None:
    at = log[topic, partition]
    at.append(Record(topic, partition, len(at), key, value, APPENDED_AT, headers))


async def fold(log: Log, cells: dict[tuple[str, int], Cell], stage: str, topic: str, batch: int) -> float:
    """CPU seconds of folding a topic in one stage, its partitions in turn. What it says goes to the log, uncounted."""
    gc.collect()
    gc.freeze()
    spent = 0.0
    longest = max(len(log[topic, partition]) for partition in range(PARTITIONS))
    for start in range(0, longest, batch):
        for partition in range(PARTITIONS):
            cell, fetched = cells[stage, partition], log[topic, partition][start : start + batch]
            began = time.process_time()
            outgoing = await cell.fold(topic, fetched)
            spent += time.process_time() - began
            for out in outgoing:
                append(log, out.topic, out.partition, out.key, out.value, out.headers)
            await cell.trim(outgoing)
    return spent


async def play(args: argparse.Namespace, given: Log) -> tuple[dict[str, float], dict[str, int], str]:
    """One run over a log: CPU seconds and records by stage, and a digest of what was said in the end."""
    log: Log = defaultdict(list, {name: list(at) for name, at in given.items()})
    programs = Programs.of(*shipped())
    cells: dict[tuple[str, int], Cell] = {}
    for stage in STAGES:
        for partition in range(PARTITIONS):
            cell = cells[stage.name, partition] = Cell(
                stage,
                partition,
                PARTITIONS,
                MemoryStore(),
                lambda: programs,
                {each.name: each for each in STAGES},
                Codec(),
            )
            await cell.open()
    await fold(log, cells, SALES_STAGE.name, REFERRALS.name, args.batch)
    await fold(log, cells, PARTNERS_STAGE.name, PARTNERS.name, args.batch)
    spent: dict[str, float] = {}
    folded: dict[str, int] = {}
    for stage, topic in HOPS:
        profile = cProfile.Profile() if args.profile == stage.name else None
        if profile:
            profile.enable()
        spent[stage.name] = await fold(log, cells, stage.name, topic.name, args.batch)
        if profile:
            profile.disable()
            pstats.Stats(profile).sort_stats(args.sort).print_stats(args.lines)
        folded[stage.name] = sum(len(log[topic.name, partition]) for partition in range(PARTITIONS))
    said = blake2b(digest_size=8)
    for partition in range(PARTITIONS):
        for record in log[COMMISSIONS.name, partition]:
            said.update(record.value or b"")
    return spent, folded, said.hexdigest()


async def run(args: argparse.Namespace) -> None:
    log = records(args)
    rounds = [await play(args, log) for _ in range(args.rounds)]
    for name, folded in rounds[0][1].items():
        spent = min(spent[name] for spent, _, _ in rounds)
        each = spent / args.payments * 1e6
        print(f"{name:22} {folded:8} records  {each:7.1f} µs per payment  {folded / spent:9.0f} records/s")
    print(f"what was said: {' '.join({said for _, _, said in rounds})}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--payments", type=int, default=30_000)
    parser.add_argument("--customers", type=int, help="default: a tenth of the payments")
    parser.add_argument("--partners", type=int, help="default: a 25th of the customers")
    parser.add_argument("--repeated", type=float, default=0.05, help="share of the payments that are sent twice")
    parser.add_argument("--refunded", type=float, default=0.02, help="share of the payments that are refunded")
    parser.add_argument("--rounds", type=int, default=3, help="how often; the least counts")
    parser.add_argument("--batch", type=int, default=500, help="records in a fetch")
    parser.add_argument("--seed", type=int, default=20261123)
    parser.add_argument("--profile", choices=[stage.name for stage, _ in HOPS], help="print a profile of one stage")
    parser.add_argument("--sort", default="tottime", help="the profile's order: tottime, cumtime, ncalls")
    parser.add_argument("--lines", type=int, default=40, help="lines of the profile")
    args = parser.parse_args()
    args.customers = args.customers or max(1, args.payments // 10)
    args.partners = args.partners or max(1, args.customers // 25)
    asyncio.run(run(args))


if __name__ == "__main__":
    main()
