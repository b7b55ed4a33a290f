"""W1 by refstream and by what one could take instead, on one machine, in turns: `make bench-peers`.

    .venv/bin/python bench/peers/run.py --payments 20000 --rounds 1 --peer refstream --peer postgres

Each run has a Kafka of its own, that is warm and holds the input before the peer starts; the clock runs from the first
record that is consumed to the last output that is readable. Every output is held against the program. What is shown is
each figure's median over the rounds. Easier than refstream's duty: Kafka Streams, Faust and the PostgreSQL worker
decide in the order of arrival, put by or drop a payment that comes before its referral, and keep no ledger and no
refunds. Faust folds the referrals before its clock starts, and its payments are published while it runs, since its
tables lose what was not written yet when it is stopped; all others find both on Kafka, and fold both by the clock.
"""

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import orjson
import postgres
import streams
from aiokafka.admin import AIOKafkaAdminClient

from schemas.topics import COMMISSIONS, PAYMENTS, REFERRALS
from services.cli.bench import commission
from services.cli.bench.chart import rates
from services.cli.bench.command import leave
from services.cli.bench.folding import LOOK_SECONDS, Folded, Output, Sample
from services.cli.bench.lab import Lab, Running
from services.cli.bench.load import publish
from services.cli.bench.result import Run, result, show, write
from services.cli.bench.workload import TIERS, Decided, Record, Workload, half_even
from services.cli.demo.steps import Steps
from services.local.refusal import StackRefused

HERE = Path(__file__).parent
BUILD = HERE.parent.parent / "build" / "peers"
PYTHON = BUILD / "bin" / "python"
QUIET_SECONDS, QUIET_AFTER_KILL_SECONDS = 5.0, 30.0
"""Nothing more comes when all is there and so long nothing came."""
STUCK_SECONDS, GIVEN_UP = 240.0, 0.5
GROUP = "w1"


@dataclass(frozen=True, slots=True)
class Peer:
    """`start` starts its worker in a lab. `before`: what must run beside it. `copies`: it decides nothing."""

    name: str
    start: Callable[[Lab], Running]
    before: Callable[[Lab], object] = lambda lab: None
    referrals_first: bool = False
    copies: bool = False


def _streams(guarantee: str) -> Callable[[Lab], Running]:
    def start(lab: Lab) -> Running:
        cache, kafka = lab.settings.cache_path, lab.settings.kafka_bootstrap()
        return lab.run("worker", streams.command(cache, BUILD, kafka, guarantee, lab.folder / "state"))

    return start


def _faust(store: str) -> Callable[[Lab], Running]:
    def start(lab: Lab) -> Running:
        own = {"PEER_KAFKA": lab.settings.kafka_bootstrap(), "PEER_STORE": store}
        command = [str(PYTHON), str(HERE / "faust_worker.py"), "-L", "uvloop", "worker", "-l", "warn", "--without-web"]
        return lab.run("worker", command, own | {"PEER_STATE": str(lab.folder / "faust")})

    return start


def _postgres(lab: Lab) -> Running:
    dsn = f"host={lab.folder / 'postgres'} user=postgres dbname=postgres"
    return lab.run("worker", [str(PYTHON), str(HERE / "postgres_worker.py"), lab.settings.kafka_bootstrap(), dsn])


def _copy(*arguments: str) -> Callable[[Lab], Running]:
    def start(lab: Lab) -> Running:
        library, *more = arguments
        command = [str(PYTHON), str(HERE / "copy_loop.py"), library, lab.settings.kafka_bootstrap(), *more]
        return lab.run("worker", command)

    return start


REFSTREAM = "refstream"
PEERS = (
    Peer("kafka-streams", _streams("exactly_once_v2")),
    Peer("faust-memory", _faust("memory://"), referrals_first=True),
    Peer("faust-rocksdb", _faust("rocksdb://?driver=rocksdict"), referrals_first=True),
    Peer("postgres", _postgres, before=postgres.start),
    Peer("copy-confluent", _copy("confluent"), copies=True),
    Peer("copy-confluent-transactions", _copy("confluent", "--transactions"), copies=True),
    Peer("copy-aiokafka", _copy("aiokafka"), copies=True),
)
ALL = {REFSTREAM: None, **{peer.name: peer for peer in PEERS}}


# --- one run --------------------------------------------------------------------------------------------------------


def measure(peer: Peer, payments: int, customers: int, kill: bool, steps: Steps) -> Run:
    workload = Workload(payments, customers)
    expected = payments + workload.repeated if peer.copies else payments
    with Lab(programs=False) as lab:
        with steps.step(f"{peer.name}: the input is on Kafka"):
            peer.before(lab)
            asyncio.run(publish(lab.settings, REFERRALS.name, workload.referrals()))
            if peer.referrals_first:
                worker = peer.start(lab)
                asyncio.run(_until_bound(lab, workload.customers))
            else:
                asyncio.run(publish(lab.settings, PAYMENTS.name, workload.payments()))
                worker = peer.start(lab)
        with steps.step(f"{peer.name}: folding") as step:
            payments_to_come = workload.payments() if peer.referrals_first else ()
            run = asyncio.run(_followed(lab, peer, worker, expected, kill, payments_to_come))
            step.said = f"{peer.name}: {payments:,} payments in {run.figures['seconds']:.1f} s"
        with steps.step(f"{peer.name}: every output held against the program"):
            return asyncio.run(_checked(lab, peer, workload, run))


async def _until_bound(lab: Lab, referrals: int) -> None:
    """Return when the peer's group has committed all referrals."""
    admin = AIOKafkaAdminClient(**lab.settings.kafka_client_options())
    await admin.start()
    deadline = time.monotonic() + STUCK_SECONDS
    try:
        while True:
            lab.refuse_dead()
            committed = await admin.list_consumer_group_offsets(GROUP)
            if sum(at.offset for tp, at in committed.items() if tp.topic == REFERRALS.name) >= referrals:
                return
            if time.monotonic() > deadline:
                raise StackRefused("the referrals are not folded")
            await asyncio.sleep(0.5)
    finally:
        await admin.close()


async def _followed(lab: Lab, peer: Peer, worker: Running, expected: int, kill: bool, to_come: Iterable[Record]) -> Run:
    """From the start of the worker until nothing more comes. `to_come`: payments that are published meanwhile."""
    folded, killed_at, moved = Folded(began=float("inf")), 0.0, time.monotonic()
    async with Output(lab.settings, COMMISSIONS) as output, asyncio.TaskGroup() as beside:
        beside.create_task(publish(lab.settings, PAYMENTS.name, to_come))
        while True:
            now = time.monotonic()
            if folded.began > now and (at := _first(worker)) is not None:
                folded.began = at
            sample = Sample(now, await output.readable(), 0, lab.usage.look())
            if folded.samples and sample.readable != folded.samples[-1].readable:
                moved = now
            folded.samples.append(sample)
            if kill and not killed_at and sample.readable >= commission.KILLED_AT * expected:
                lab.kill([worker])
                killed_at, worker = time.monotonic(), peer.start(lab)
            quiet = QUIET_AFTER_KILL_SECONDS if kill else QUIET_SECONDS
            if sample.readable >= expected and now - moved > quiet:
                break
            if now - moved > STUCK_SECONDS:
                if sample.readable > GIVEN_UP * expected:
                    break  # what is missing is a finding about the peer
                raise StackRefused(f"{peer.name} has said {sample.readable} of {expected}:\n{worker.child.log_tail()}")
            lab.refuse_dead()
            await asyncio.sleep(max(0.0, LOOK_SECONDS - (time.monotonic() - now)))
    figures = _figures(folded, expected)
    if killed_at:
        figures |= commission.output_again(folded, killed_at)
    return Run(
        label=peer.name,
        figures=figures,
        cpu_seconds=folded.cpu_seconds,
        peak_memory_mb=folded.peak_memory_mb,
        over_time=folded.over_time,
    )


def _first(worker: Running) -> float | None:
    """When the peer says that it consumed its first record, on the monotonic clock."""
    lines = worker.child.log.read_text(errors="replace").splitlines()
    told = [int(line.split()[1]) / 1000 for line in lines if line.startswith("FIRST ")]
    return time.monotonic() - (time.time() - told[0]) if told else None


def _figures(folded: Folded, expected: int) -> dict[str, float]:
    return {
        "seconds": folded.seconds,
        "payments_per_s": expected / folded.seconds,
        "warm_payments_per_s": folded.warm_rate(expected),
        "cpu_per_payment_us": folded.cpu_seconds["worker"] / expected * 1e6,
        "cpu_of_others_seconds": max(0.0, folded.others_cpu_seconds),
    }


async def _checked(lab: Lab, peer: Peer, workload: Workload, run: Run) -> Run:
    async with Output(lab.settings, COMMISSIONS) as output:
        values = await output.values()
    if peer.copies:
        lacking = workload.count + workload.repeated - len(values)
        return run.model_copy(update={"fault": f"{lacking} missing" if lacking > 0 else ""})
    decided = Decided.of(workload, values)
    wrong = decided.wrong + _mispriced(values)
    figures = run.figures | {
        "missing": decided.missing,
        "decided_twice": decided.duplicates,
        "repeated_records": decided.again,
        "wrong": wrong,
    }
    # What a peer repeats after a kill is a finding about it; a peer that prices wrongly is a fault of ours.
    return run.model_copy(update={"figures": figures, "fault": f"{wrong} wrong {decided.first_wrong}" if wrong else ""})


def _mispriced(values: Iterable[bytes]) -> int:
    """Outputs whose rate does not follow from the partner's paying clients until then, in the outputs' own order.

    One that is there twice counts as its first.
    """
    clients: dict[str, set[str]] = defaultdict(set)
    seen: set[str] = set()
    wrong = 0
    for event in map(orjson.loads, values):
        data = event["data"]
        if event["type"] != "commission.accrued" or data["payment_id"] in seen:
            continue
        seen.add(data["payment_id"])
        own = clients[data["partner_id"]]
        own.add(data["customer_id"])
        percent = next(percent for least, percent in TIERS if len(own) >= least)
        wrong += data["amount"]["minor"] != half_even(data["base"]["minor"] * percent, 100)
    return wrong


# --- all of them ----------------------------------------------------------------------------------------------------


def middle(runs: list[Run]) -> Run:
    """Each figure's median; over time, and at fault, as the run with the middle rate and the first one at fault."""

    def of(each: list[dict[str, float]]) -> dict[str, float]:
        return {name: round(median(one[name] for one in each if name in one), 3) for name in each[0]}

    by_rate = sorted(runs, key=lambda run: run.figures["payments_per_s"])
    rounds = {f"payments_per_s_round_{n}": round(run.figures["payments_per_s"], 1) for n, run in enumerate(runs, 1)}
    return Run(
        label=runs[0].label,
        figures=of([run.figures for run in runs]) | (rounds if len(runs) > 1 else {}),
        cpu_seconds=of([run.cpu_seconds for run in runs]),
        peak_memory_mb=of([run.peak_memory_mb for run in runs]),
        over_time=by_rate[(len(runs) - 1) // 2].over_time,
        fault=next((run.fault for run in runs if run.fault), ""),
    )


def _one(name: str, args: argparse.Namespace, kill: bool, steps: Steps) -> Run:
    peer = ALL[name]
    if peer is not None:
        run = measure(peer, args.payments, args.customers, kill, steps)
        return run.model_copy(update={"label": f"{name}, killed"}) if kill else run
    options = commission.Options(args.payments, args.customers)
    run = commission.measure(replace(options, kill=kill), steps)
    cpu = run.figures["commission_cpu_per_payment_us"] + run.figures["ledger_cpu_per_payment_us"]
    label = f"{name}, killed" if kill else name
    return run.model_copy(update={"label": label, "figures": run.figures | {"cpu_per_payment_us": cpu}})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--payments", type=int, default=500_000)
    parser.add_argument("--customers", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured, in turns")
    parser.add_argument("--peer", action="append", choices=list(ALL), help="only this one; may be given several times")
    parser.add_argument(
        "--once",
        action="append",
        choices=list(ALL),
        default=[],
        help="this one in one round, and not killed",
    )
    parser.add_argument("--kill", action="store_true", help="at last each once more, its worker killed in the middle")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder of the result")
    args = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, leave)
    names, steps = args.peer or list(ALL), Steps()
    try:
        found = _measured(names, args, steps)
    except StackRefused as refused:
        print(f"bench-peers: {refused}", file=sys.stderr)
        return 1
    told = f"make bench-peers ARGS='--payments {args.payments} --customers {args.customers} --rounds {args.rounds}"
    told += "".join(f" --peer {name}" for name in args.peer or ()) + "".join(f" --once {name}" for name in args.once)
    told += " --kill'" if args.kill else "'"
    versions = {"PostgreSQL": postgres.version()} if "postgres" in names else {}
    outcome = result("peers", told, found, versions)
    show(steps.console, outcome)
    file = write(outcome, args.out)
    over_time = {run.label: run.over_time for run in found if not run.label.startswith("copy")}
    file.with_suffix(".svg").write_text(rates("W1: records readable per second", over_time), encoding="utf-8")
    print(f"Written to {file}.")
    return 1 if outcome.fault else 0


def _measured(names: list[str], args: argparse.Namespace, steps: Steps) -> list[Run]:
    if "postgres" in names:
        postgres.binaries()  # better refused now than after an hour
    runs: dict[str, list[Run]] = {name: [] for name in names}
    often = [name for name in names if name not in args.once]
    for number in range(args.rounds):
        for name in often if number else names:
            runs[name].append(_one(name, args, False, steps))
    found = [middle(of) for of in runs.values()]
    if args.kill:
        found += [_one(name, args, True, steps) for name in often if not name.startswith("copy")]
    return found


if __name__ == "__main__":
    sys.exit(main())
