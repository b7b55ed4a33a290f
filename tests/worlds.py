"""The system in memory with the shipped programs published, and what it shows."""

import asyncio
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from schemas.events import Event, ProgramPublished, event_json, parse_event
from schemas.moments import micros, parse_instant
from schemas.programs import shipped
from schemas.programs.terms import Program
from schemas.topics import COMMISSIONS, JOURNALS, SALES
from services import attribution, commission, payouts, rewards
from services.payouts import ledger
from services.rewards import views
from services.rewards.day_timer import Due, asked_days, days_reached
from services.rewards.rules import WALLETS
from services.rewards.verifications import VERIFICATIONS
from services.runtime import recovery
from services.runtime.cell import Cell
from services.runtime.memory import MemoryStore
from services.runtime.recovery import MemoryLogReader
from services.runtime.settings import Settings
from services.runtime.simulate import MemoryReader, World
from services.runtime.stage import Stage
from services.runtime.store import CellStore
from tests.journey import Journey, matches, missing

SECRETS = {"1": "an old secret that nobody outside of the tests ever sees"}


EXAMPLES = sorted((Path(__file__).parent.parent / "docs" / "examples").glob("*.json"))
"""Documents of programs that are not shipped; each has a journey of its name in `tests/golden/examples`."""


def examples() -> tuple[Program, ...]:
    return tuple(Program.model_validate_json(path.read_bytes()) for path in EXAMPLES)


@cache
def settings() -> Settings:
    return Settings.model_validate({"auth_secret": "x" * 40, "click_secrets": SECRETS})


def all_stages() -> tuple[Stage[Any, Any], ...]:
    return tuple(s for service in (attribution, commission, payouts, rewards) for s in service.stages(settings()))


def world(
    seed: int = 0,
    *,
    partitions: int = 2,
    crashes: float = 0.0,
    losses: float = 0.0,
    programs: tuple[Program, ...] = (),
) -> World:
    """A world where the shipped programs (and further ones) are in force."""
    return in_force(World(all_stages(), partitions=partitions, seed=seed, crashes=crashes, losses=losses), programs)


def in_force(made: World, programs: tuple[Program, ...] = ()) -> World:
    """Publish the shipped programs, and further ones."""
    for program in (*shipped(), *programs):
        document = ProgramPublished(
            program_id=program.program_id, version=1, effective_at=0, document=program.as_document()
        )
        made.publish(Event(f"{program.program_id}:1", "/attribution", 0, document))
    return made.run()


def verify_asked(made: World) -> World:
    """Do the timer's work: let the days come of the months that somebody asked for, until nobody waits."""
    while days := asyncio.run(_days_asked(made)):
        for due in days:
            reach_day(made, due)
    return made


async def _days_asked(made: World) -> list[Due]:
    known = {program_id: await MemoryReader(made).state(VERIFICATIONS, program_id) for program_id in made.programs}
    return [Due(each, day) for each, state in known.items() for day in asked_days(made.programs, each, state)]


def reach_day(made: World, due: Due) -> World:
    """Say in every partition that a day has come, as a worker's timer does, and fold what follows."""
    for partition, event in enumerate(days_reached(due, made.partitions)):
        made.publish(event, partition=partition)
    return made.run()


def told(made: World, *topics: str) -> list[dict[str, Any]]:
    """Everything on the topics that the platform reads, as JSON."""
    names = topics or ("partners", "referrals", "commissions", "rewards", "payouts", "programs")
    return [orjson.loads(event_json(event)) for name in names for event in made.events(name)]


def reads_as_written(made: World) -> None:
    """Whoever validates what commission said reads the same: what is `made` has every field, in order and valid."""
    for (topic, _), records in made.log.items():
        if topic in (SALES.name, COMMISSIONS.name):
            for record in records:
                assert event_json(parse_event(record.value)) == record.value


def balance(
    made: World, partner_id: str, program_id: str, currency: str = "USD", at: int | None = None
) -> dict[str, int] | None:
    """A partner's balance in minor units, by the ledger's full sum; None where nothing happened."""
    rows = asyncio.run(MemoryReader(made).rows(payouts.LEDGER, partner_id))
    until = micros(settings().now()) if at is None else at
    book = ledger.balance(rows.values(), until, at).get((program_id, currency))
    return book and shown(book)


def shown(book: ledger.Figures) -> dict[str, int]:
    """The fields of one balance in minor units."""
    fields = ("accrued", "reversed", "processing", "paid", "topped_up", "deposits", "spent")
    return {name: getattr(book.sums, name) for name in fields} | {"pending": book.pending, "available": book.available}


def dead_letters(made: World) -> list[dict[str, str]]:
    """The headers of everything that could not count."""
    letters = [record for number in range(made.partitions) for record in made.log["dead-letters", number]]
    return [{name: value.decode() for name, value in record.headers} for record in letters]


def check(journey: Journey, made: World) -> None:
    """Whether all came out that a journey promises, and nothing that it excludes."""
    events = told(made)
    assert missing(journey.expected("out"), events) == []
    for unwanted in journey.expected("none"):
        assert [event for event in events if matches(unwanted, event)] == []
    for letter in journey.expected("dead"):
        assert any(matches(letter, headers) for headers in dead_letters(made)), letter
    for wanted in journey.expected("balance"):
        _check_balance(made, dict(wanted))
    for wanted in journey.expected("wallet"):
        as_of = None if "as_of" not in wanted else parse_instant(wanted["as_of"])
        assert wallet(made, wanted["partner_id"], as_of) == wanted["credits"]


def _check_balance(made: World, wanted: dict[str, object]) -> None:
    partner_id, program_id, currency = (str(wanted.pop(name)) for name in ("partner_id", "program_id", "currency"))
    as_of = wanted.pop("as_of", None)
    got = balance(made, partner_id, program_id, currency, None if as_of is None else parse_instant(as_of))
    assert got is not None
    assert {name: got[name] for name in wanted} == wanted


def wallet(made: World, partner_id: str, as_of: int | None = None) -> list[dict[str, Any]]:
    """The credits of a partner's wallet, as the API shows them; by the running balances, or as of an instant."""
    reader = MemoryReader(made)
    state = asyncio.run(reader.state(WALLETS, partner_id))
    rows = asyncio.run(reader.rows(WALLETS, partner_id))
    purses = None if as_of is None else views.purses_before(rows.values(), as_of)
    shown = views.wallet(state, micros(settings().now()) if as_of is None else as_of, as_of, purses)
    return [credit.model_dump() for credit in shown.credits]


def quick_balance(made: World, partner_id: str, at: int) -> dict[tuple[str, str], tuple[int, int, int]]:
    """The balances that the running totals give: (accrued, reversed, available) per program and currency."""
    person = asyncio.run(MemoryReader(made).state(payouts.LEDGER, partner_id))
    figures = ledger.totals(person, at) or {}
    return {book: (of.sums.accrued, of.sums.reversed, of.available) for book, of in figures.items()}


def trail_adds_up(made: World) -> None:
    """Per payment, what the topic says adds up to what stands."""
    left: dict[str, int] = {}
    stands: dict[str, int] = {}
    for event in told(made, "commissions"):
        data, sign = event["data"], {"accrued": 1, "adjusted": 1, "reversed": -1}.get(event["type"].split(".")[1], 0)
        if sign:
            payment = data["payment_id"]
            left[payment] = left.get(payment, 0) + sign * data["amount"]["minor"]
            standing = data["standing"]
            stands[payment] = standing["amount"]["minor"] - sum(r["amount"]["minor"] for r in standing["reversals"])
    assert left == stands


OWN = ("epoch", "ready", "sent")
"""Fields of a cell's meta that are an owner's and no fact."""


def follows_from_the_log(made: World) -> None:
    """Whether every cell, folded again from the log alone, is the live one, byte for byte."""

    async def look() -> None:
        for name, live in made.stores.items():
            assert facts(await _folded_again(made, *name)) == facts(live), name

    asyncio.run(look())


async def _folded_again(made: World, stage: str, partition: int) -> MemoryStore:
    store = MemoryStore()
    await fold_again(made, stage, partition, store)
    return store


async def fold_again(made: World, stage: str, partition: int, store: CellStore, entries: int | None = None) -> None:
    """Let a cell's memory be what the log says, up to so many entries of the cell's journal; None: all of them."""
    own = JOURNALS[stage].name, partition
    log = {**made.log, own: made.log[own][:entries]}
    reader = MemoryLogReader(log, partition)
    cell = Cell(made.stages[stage], partition, made.partitions, store, lambda: made.programs, made.stages, made.codec)
    await recovery.opened(cell, reader, reader.tell)
    assert not cell.said_differently


def facts(store: MemoryStore) -> Mapping[str, Any]:
    """Everything of a cell's memory that follows from the log."""
    meta = {name: value for name, value in store.meta.items() if name not in OWN}
    rows = {key: rows for key, rows in store.rows.items() if rows}
    return {"meta": meta, "states": store.states, "rows": rows, "find": store.find, "answers": store.answers}
