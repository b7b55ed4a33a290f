"""All faults at once over the whole system in one process (`simulation.py`): a thousand seeds, each one whole story.

A seed draws one or two golden journeys, how their inputs meet, what fails and when. Everything comes to rest then,
and: the journeys' own expectations hold; every cell, folded again from the log alone, is the live one byte for byte;
what was sent twice is the same under the same number, and no number is missing; the books of every partner add up.

`make test` plays 1,000 seeds, REFSTREAM_FAULTS=long 100,000, in REFSTREAM_SIMULATION_PROCESSES processes. One alone:

    REFSTREAM_SEED=123 .venv/bin/pytest tests/faults/test_simulation.py -k one_seed
"""

import asyncio
import logging
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import chain, zip_longest
from multiprocessing import get_context
from typing import Any

import pytest

from schemas.events import Event
from schemas.topics import JOURNALS
from services import payouts
from services.payouts import ledger
from services.runtime import recovery
from services.runtime.cell import EDGE_HEADER, NUMBER_HEADER, Cell
from services.runtime.journal import Last
from services.runtime.memory import MemoryStore
from services.runtime.simulate import MemoryReader, World
from services.runtime.stage import Stage
from services.runtime.store import Commit, Outgoing, Verdict
from tests.faults.rounds import KINDS, SEED, machine, rounds_of
from tests.faults.simulation import (
    COPY,
    DEATH,
    EMPTIED,
    FREEZE,
    LAPSED,
    LINK_CUT,
    RESTORED,
    SENT_AGAIN,
    THAW,
    FaultyWorld,
    Owner,
)
from tests.journey import Journey, journeys
from tests.worlds import (
    all_stages,
    check,
    examples,
    facts,
    fold_again,
    follows_from_the_log,
    in_force,
    trail_adds_up,
    verify_asked,
)

KIND = KINDS["simulation"]
PROCESSES = int(os.environ.get("REFSTREAM_SIMULATION_PROCESSES", os.cpu_count() or 1))
SEEDS_A_ROUND, PORTION = 2_000, 25
ENOUGH_SEEDS = 1_000
MOST_FAULTS = 25
FAR = 2**53
"""An instant after everything."""


@cache
def _journeys() -> list[Journey]:
    return journeys()


@cache
def _stages() -> tuple[Stage[Any, Any], ...]:
    return all_stages()


def play(seed: int, kinds: Sequence[str] | None = None) -> World:
    """The story of one seed, and whether it ends as it must. `kinds` of faults: None: as the seed draws them."""
    rng = random.Random(seed)
    told = rng.sample(_journeys(), rng.choice((1, 1, 2)))
    faults, partitions = rng.randint(0, MOST_FAULTS), rng.randint(2, 4)
    made = FaultyWorld(_stages(), partitions=partitions, seed=seed, faults=faults, kinds=kinds)
    in_force(made, examples())
    for phases in zip_longest(*(journey.phases() for journey in told), fillvalue=[]):
        made.publish(*_met(phases, rng))
        verify_asked(made.run())
    for journey in told:
        check(journey, made)
    _nothing_is_missing(made)
    _books_add_up(made)
    follows_from_the_log(made)
    return made


def _met(phases: tuple[list[Event], ...], rng: random.Random) -> list[Event]:
    """The events of several in one order that keeps each one's own."""
    turns = [number for number, phase in enumerate(phases) for _ in phase]
    rng.shuffle(turns)
    events = [iter(phase) for phase in phases]
    return [next(events[number]) for number in turns]


def _nothing_is_missing(made: World) -> None:
    """No edge has a hole, and what stands twice under a number is the same."""
    for (topic, partition), records in made.log.items():
        said: dict[bytes, list[tuple[bytes | None, bytes | None]]] = {}
        for record in records:
            headers = dict(record.headers)
            if EDGE_HEADER in headers:
                known, number = said.setdefault(headers[EDGE_HEADER], []), int(headers[NUMBER_HEADER])
                assert number <= len(known) + 1, (topic, partition, headers)
                if number > len(known):
                    known.append((record.key, record.value))
                assert known[number - 1] == (record.key, record.value), (topic, partition, headers)


def _books_add_up(made: World) -> None:
    """What was said of a payment is what stands; a partner's running totals are the sums over all rows."""
    trail_adds_up(made)
    reader = MemoryReader(made)

    async def look() -> None:
        async for partner_id, person in reader.all_states(payouts.LEDGER):
            rows = await reader.rows(payouts.LEDGER, partner_id)
            summed = ledger.balance(rows.values(), FAR)
            running = ledger.totals(person, FAR) or {}
            assert {book: running[book] for book in summed} == summed, partner_id

    asyncio.run(look())


# --- all seeds ------------------------------------------------------------------------------------------------------


def test_one_seed() -> None:
    play(SEED)


def test_whatever_fails_at_once_the_outcome_is_what_the_journeys_promise() -> None:
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        for round_ in rounds_of(KIND, machine(), SEEDS_A_ROUND):
            first = SEED + (round_.number - 1) * SEEDS_A_ROUND
            portions = [range(first, first + round_.times)[at : at + PORTION] for at in range(0, round_.times, PORTION)]
            failed = dict(chain.from_iterable(pool.map(failures, portions)))
            assert not failed, "\n".join(
                f"{why}\n    REFSTREAM_SEED={seed} .venv/bin/pytest tests/faults/test_simulation.py -k one_seed"
                for seed, why in failed.items()
            )


def failures(seeds: Sequence[int]) -> list[tuple[int, str]]:
    """Those seeds that do not end as they must, with the reason."""
    logging.disable(logging.ERROR)  # everything that can be told of a fault is
    return [(seed, why) for seed in seeds if (why := _why(seed))]


def _why(seed: int, kinds: Sequence[str] | None = None) -> str:
    """Why a seed does not end as it must; nothing where it does."""
    try:
        play(seed, kinds)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:500]}"
    return ""


# --- copies of no single moment -------------------------------------------------------------------------------------


def test_a_copy_whose_parts_are_of_several_moments_is_thrown_away_where_it_shows() -> None:
    """What a cell knows of itself is older than its states; folding on says other things than were said."""
    shown = sum(asyncio.run(_mended(play(seed, kinds=()))) for seed in range(1, 11))
    assert shown > 10, shown


async def _mended(made: World) -> int:
    """How many cells of a world at rest were found out, each with its memory put together from two moments."""
    found_out = 0
    for (stage, partition), live in made.stores.items():
        entries = len(made.log[JOURNALS[stage].name, partition])
        if entries < 2:
            continue
        older, torn = MemoryStore(), _CountsEmptyings()
        await fold_again(made, stage, partition, older, entries // 2)
        await fold_again(made, stage, partition, torn)
        torn.meta, torn.outbox, torn.emptied = older.meta, older.outbox, 0
        try:
            await fold_again(made, stage, partition, torn)
        except AssertionError:
            continue  # other contents of the same records: told in the log, and by `refstream verify`
        if torn.emptied:
            found_out += 1
            assert facts(torn) == facts(live), (stage, partition)
    return found_out


class _CountsEmptyings(MemoryStore):
    emptied = 0

    async def empty(self, epoch: int, commits: int) -> bool:
        self.emptied += 1
        return await super().empty(epoch, commits)


# --- it can fail ----------------------------------------------------------------------------------------------------


def _without_the_fence(patch: pytest.MonkeyPatch) -> None:
    async def commit(self: MemoryStore, commit: Commit) -> Verdict:
        commit.epoch = self.epoch
        commit.positions = {name: (self.meta.get(name, 0), new) for name, (_, new) in commit.positions.items()}
        return await _commit(self, commit)

    patch.setattr(MemoryStore, "commit", commit)


def _without_the_count_of_commits(patch: pytest.MonkeyPatch) -> None:
    async def commit(self: MemoryStore, commit: Commit) -> Verdict:
        commit.positions.pop("commits", None)
        return await _commit(self, commit)

    patch.setattr(MemoryStore, "commit", commit)


def _without_the_writer_token(patch: pytest.MonkeyPatch) -> None:
    async def commit(self: MemoryStore, commit: Commit) -> Verdict:
        self.token = ""
        return await _commit(self, commit)

    patch.setattr(MemoryStore, "commit", commit)


def _without_numbers_per_edge(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cell, "_is_next_of_its_edge", lambda *_: True)


def _without_sending_the_outbox_again(patch: pytest.MonkeyPatch) -> None:
    async def opened(*arguments: Any) -> list[Outgoing]:
        await _opened(*arguments)
        return []

    patch.setattr(recovery, "opened", opened)


def _without_the_journal(patch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any) -> Last:
        return Last()

    patch.setattr(recovery, "last_entry", nothing)
    patch.setattr(Cell, "_refuse_a_short_log", lambda *_: None)


def _with_the_journal_after_what_it_tells_of(patch: pytest.MonkeyPatch) -> None:
    def parts(owner: Owner, outgoing: Sequence[Outgoing]) -> list[Sequence[Outgoing]]:
        return sorted(_parts(owner, outgoing), key=lambda part: part[0].topic.startswith("journal"))

    patch.setattr(Owner, "_parts", parts)


def _without_asking_whether_an_entry_counts(patch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any) -> None:
        pass

    patch.setattr(recovery, "confirm", nothing)


def _without_the_run_of_the_server(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryStore, "is_ready", property(lambda self: self._ready > 0))


def _without_looking_at_the_memory_that_is_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryStore, "_refuse_another", lambda *_: None)


def _without_the_chain(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cell, "_is_of_the_chain", lambda *_: True)


_commit, _opened, _parts = MemoryStore.commit, recovery.opened, Owner._parts


@pytest.mark.parametrize(
    ("taken_out", "kinds"),
    [
        (_without_the_fence, (FREEZE, THAW)),
        (_without_the_count_of_commits, (COPY, RESTORED)),
        (_without_the_writer_token, (LINK_CUT,)),
        (_without_numbers_per_edge, (SENT_AGAIN,)),
        (_without_sending_the_outbox_again, (DEATH,)),
        (_without_the_journal, (EMPTIED,)),
        (_with_the_journal_after_what_it_tells_of, (EMPTIED,)),
        (_without_asking_whether_an_entry_counts, (FREEZE, THAW, EMPTIED)),
        (_without_the_run_of_the_server, (COPY, RESTORED, LAPSED, DEATH)),
        (_without_looking_at_the_memory_that_is_read, (COPY, LAPSED)),
        (_without_the_chain, (COPY, RESTORED, LAPSED, DEATH)),
    ],
)
def test_without_one_defence_some_seed_fails(
    taken_out: Callable[[pytest.MonkeyPatch], None], kinds: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_out(monkeypatch)
    why = next(filter(None, (_why(seed, kinds) for seed in range(1, ENOUGH_SEEDS + 1))), "")
    assert why
    assert not why.startswith(
        ("AttributeError", "NameError", "TypeError")
    )  # what was taken out has another name by now


def test_the_same_seed_is_the_same_story() -> None:
    assert play(SEED).log == play(SEED).log
