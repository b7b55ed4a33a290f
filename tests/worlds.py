"""The system in memory with the shipped programs published, and what it shows."""

import asyncio
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from schemas.events import Event, ProgramPublished, event_json
from schemas.moments import micros
from schemas.programs import shipped
from schemas.programs.terms import Program
from services import attribution, commission, payouts, rewards
from services.payouts import ledger
from services.rewards import views
from services.rewards.day_timer import Due, asked_days, days_reached
from services.rewards.rules import WALLETS
from services.rewards.verifications import VERIFICATIONS
from services.runtime.settings import Settings
from services.runtime.simulate import MemoryReader, World
from services.runtime.stage import Stage

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
    made = World(all_stages(), partitions=partitions, seed=seed, crashes=crashes, losses=losses)
    for program in (*shipped(), *programs):
        document = ProgramPublished(
            program_id=program.program_id, version=1, effective_at=0, document=program.as_document()
        )
        made.publish(Event(f"{program.program_id}:1", "/attribution", 0, document))
    return made.run()


def verify_asked(made: World) -> World:
    """Do the timer's work: let the days come of the months that somebody asked for, until nobody waits."""
    while True:
        days: list[Due] = []
        for program_id in made.programs:
            known = asyncio.run(MemoryReader(made).state(VERIFICATIONS, program_id))
            days += [Due(program_id, day) for day in asked_days(made.programs, program_id, known)]
        if not days:
            return made
        for due in days:
            reach_day(made, due)


def reach_day(made: World, due: Due) -> World:
    """Say in every partition that a day has come, as a worker's timer does, and fold what follows."""
    for partition, event in enumerate(days_reached(due, made.partitions)):
        made.publish(event, partition=partition)
    return made.run()


def told(made: World, *topics: str) -> list[dict[str, Any]]:
    """Everything on the topics that the platform reads, as JSON."""
    names = topics or ("partners", "referrals", "commissions", "rewards", "payouts", "programs")
    return [orjson.loads(event_json(event)) for name in names for event in made.events(name)]


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


def wallet(made: World, partner_id: str, as_of: int | None = None) -> list[dict[str, Any]]:
    """The credits of a partner's wallet, as the API shows them; by the running balances, or as of an instant."""
    reader = MemoryReader(made)
    state = asyncio.run(reader.state(WALLETS, partner_id))
    rows = asyncio.run(reader.rows(WALLETS, partner_id))
    purses = None if as_of is None else views.purses_before(rows.values(), as_of)
    shown = views.wallet(state, micros(settings().now()) if as_of is None else as_of, purses)
    return [credit.model_dump() for credit in shown.credits]


def quick_balance(made: World, partner_id: str, at: int) -> dict[tuple[str, str], tuple[int, int, int]]:
    """The balances that the running totals give: (accrued, reversed, available) per program and currency."""
    person = asyncio.run(MemoryReader(made).state(payouts.LEDGER, partner_id))
    figures = ledger.totals(person, at) or {}
    return {book: (of.sums.accrued, of.sums.reversed, of.available) for book, of in figures.items()}
