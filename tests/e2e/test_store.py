"""A cell's memory on a real server: the commit is all or nothing, fenced, and known again by its writer."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError

from services.runtime.journal import Last
from services.runtime.memory import MemoryStore
from services.runtime.reader import Rebuilding
from services.runtime.redis_client import connect
from services.runtime.redis_reader import RedisReader, rows_keys
from services.runtime.redis_store import RedisCellStore
from services.runtime.simulate import World
from services.runtime.store import Commit, Fenced, Loaded, Moment, Outgoing, Verdict, tag
from tests.conftest import Stack
from tests.journey import journeys
from tests.worlds import OWN, facts, fold_again, world

pytestmark = pytest.mark.infra

Scene = Callable[[RedisCellStore, str], Awaitable[None]]


def _play(stack: Stack, scene: Scene) -> None:
    async def main() -> None:
        redis = connect(stack.redis)
        stage = f"test.{uuid.uuid4().hex}"
        try:
            await scene(RedisCellStore(redis, stage, 0), stage)
        finally:
            await redis.aclose()

    asyncio.run(main())


def _commit(epoch: int, token: str, expected: int = 0, new: int = 1, number: int = 1) -> Commit:
    return Commit(
        epoch,
        token,
        positions={"position:payments": (expected, new)},
        meta={"outbox": number, "edge:a:0:sales": 2**53 + 1},
        states={"c1": b"\x00\xffstate"},
        rows={"p1": {"s:1": b"row", "s:2": None}},
        find={"payment:1": "c1"},
        answers={"cmd": b"{}"},
        outbox=[Outgoing(number, "sales", 0, b"k", b"v", (("h", b"1"),))],
    )


BEGUN = Moment(1, 0)
"""The memory of who opened it first, with nothing committed that counts commits."""


def test_a_commit_keeps_everything_exactly_and_the_next_owner_finds_it(stack: Stack) -> None:
    async def scene(store: RedisCellStore, _: str) -> None:
        opened = await store.open()
        assert (opened.epoch, opened.outbox) == (1, ())
        assert await store.commit(_commit(1, "w:1")) is Verdict.APPLIED
        found = await store.load(["c1", "none"], [("p1", "s:1"), ("p1", "s:2")], ["cmd", "other"], BEGUN)
        assert found.states == {"c1": b"\x00\xffstate"}
        assert found.rows == {("p1", "s:1"): b"row"}
        assert found.answered == {"cmd"}
        again = await store.open()
        assert again.epoch == 2
        assert again.meta["position:payments"] == 1
        assert again.meta["edge:a:0:sales"] == 2**53 + 1
        assert [out.number for out in again.outbox] == [1]
        assert again.outbox[0].headers == (("h", b"1"),)

    _play(stack, scene)


def test_a_scan_goes_through_every_state_in_pieces(stack: Stack) -> None:
    async def scene(store: RedisCellStore, _: str) -> None:
        await store.open()
        assert [states async for states in store.scan(BEGUN) if states] == []
        commit = _commit(1, "w:1")
        commit.states = {f"c{number}": str(number).encode() for number in range(3_000)}
        await store.commit(commit)
        pieces = [states async for states in store.scan(BEGUN)]
        assert {key: blob for states in pieces for key, blob in states.items()} == commit.states
        assert len(pieces) > 2

    _play(stack, scene)


def test_a_former_owner_is_fenced_and_changes_nothing(stack: Stack) -> None:
    async def scene(store: RedisCellStore, _: str) -> None:
        await store.open()
        await store.open()
        assert await store.commit(_commit(1, "old:1")) is Verdict.FENCED
        assert (await store.load(["c1"], [], [], Moment(2, 0))).states == {}
        await store.commit(_commit(2, "new:1"))
        await store.trim(1, 1)  # the former owner's trim as well
        assert len((await store.open()).outbox) == 1

    _play(stack, scene)


@pytest.mark.defence(
    "a batch is decided by the memory that it is committed to",
    "Redis goes back to an older copy and then to a newer one: in between a partner has no account and is refused.",
    where="services/runtime/redis_store.py: _refuse_another",
)
@pytest.mark.parametrize("field", ["epoch", "commits"])
def test_what_is_not_the_owners_memory_is_not_read(stack: Stack, field: str) -> None:
    async def scene(store: RedisCellStore, _: str) -> None:
        await store.open()
        commit = _commit(1, "w:1")
        commit.positions["commits"] = (0, 7)
        await store.commit(commit)
        now = Moment(1, 7)
        assert await store.load_rows("p1", now) == {"s:1": b"row"}
        await store._redis.hincrby(store._key("meta"), field, -1)
        with pytest.raises(Fenced):
            await store.load(["c1"], [], [], now)
        with pytest.raises(Fenced):
            await store.load_rows("p1", now)
        with pytest.raises(Fenced):
            await anext(store.scan(now))
        await store._redis.hincrby(store._key("meta"), field, 1)
        assert (await store.load(["c1"], [], [], now)).states == {"c1": b"\x00\xffstate"}

    _play(stack, scene)


def test_another_position_than_expected_is_fenced(stack: Stack) -> None:
    async def scene(store: RedisCellStore, _: str) -> None:
        await store.open()
        assert await store.commit(_commit(1, "w:1", 0, 5)) is Verdict.APPLIED
        assert await store.commit(_commit(1, "w:2", 4, 6)) is Verdict.FENCED

    _play(stack, scene)


def test_our_own_retry_after_a_lost_reply_is_not_another_writer(stack: Stack) -> None:
    async def scene(store: RedisCellStore, _: str) -> None:
        await store.open()
        assert await store.commit(_commit(1, "w:1")) is Verdict.APPLIED
        assert await store.commit(_commit(1, "w:1")) is Verdict.MINE_ALREADY

    _play(stack, scene)


def test_a_planted_wrong_type_stops_the_commit_before_its_first_write(stack: Stack) -> None:
    async def scene(store: RedisCellStore, stage: str) -> None:
        await store.open()
        redis = connect(stack.redis)
        await redis.set(f"{{{stage}:0}}:rows:p1", "not a hash")
        with pytest.raises(ResponseError, match="REFSTREAM"):
            await store.commit(_commit(1, "w:1"))
        assert (await store.load(["c1"], [], [], BEGUN)).states == {}
        assert "position:payments" not in (await store.open()).meta
        await redis.aclose()

    _play(stack, scene)


def test_a_large_batch_is_one_commit(stack: Stack) -> None:
    async def scene(store: RedisCellStore, _: str) -> None:
        await store.open()
        big = _commit(1, "w:1")
        big.states = {f"c{number}": b"x" * 50 for number in range(9_001)}
        big.rows = {f"p{number}": {f"s:{row}": b"r" for row in range(3)} for number in range(700)}
        big.outbox = [Outgoing(number, "sales", 0, b"k", b"v", ()) for number in range(1, 9_002)]
        assert await store.commit(big) is Verdict.APPLIED
        assert len((await store.load(list(big.states), [], [], BEGUN)).states) == 9_001
        opened = await store.open()
        assert [out.number for out in opened.outbox] == list(range(1, 9_002))
        await store.trim(2, opened.outbox[-1].number)
        assert (await store.open()).outbox == ()

    _play(stack, scene)


@pytest.mark.defence(
    "only its owner empties a cell",
    "A frozen owner that wakes up throws away what its successor has folded.",
    where="services/runtime/redis_store.py: _EMPTY",
)
def test_only_who_knows_a_cell_as_it_is_can_empty_it(stack: Stack) -> None:
    async def scene(store: RedisCellStore, _: str) -> None:
        await store.open()
        commit = _commit(1, "w:1")
        commit.positions["commits"] = (0, 7)
        commit.rows |= {f"p{number}": {"s:1": b"row"} for number in range(2_500)}
        assert await store.commit(commit) is Verdict.APPLIED
        assert not await store.empty(2, 7)
        assert not await store.empty(1, 6)
        assert (await store.load(["c1"], [], [], Moment(1, 7))).states == {"c1": b"\x00\xffstate"}
        assert await store.empty(1, 7)
        found = await store.load(["c1"], [("p1", "s:1"), ("p2499", "s:1")], ["cmd"], BEGUN)
        assert found == Loaded({}, {}, frozenset())
        opened = await store.open()
        assert (opened.epoch, opened.outbox, opened.meta.get("commits")) == (2, (), None)

    _play(stack, scene)


@pytest.mark.defence(
    "who folds a cell from the start empties it first",
    "What an interrupted rebuild left counts as decided, and the cell says less than it said.",
    where="services/runtime/recovery.py: _made_whole",
)
def test_what_stays_of_a_cell_that_was_emptied_half_is_not_folded_on(stack: Stack) -> None:
    """`refstream rebuild` takes a cell's meta alone; whoever opens the cell next empties the rest."""

    async def scene(made: World, store: RedisCellStore, live: MemoryStore) -> None:
        await fold_again(made, *CELL, store)
        await store._redis.unlink(store._key("meta"))
        await fold_again(made, *CELL, store)
        assert await _facts_of(store) == facts(live)

    _play_with_history(stack, scene)


@pytest.mark.defence(
    "a cell that does not follow from its journal is folded anew",
    "A copy of Redis that is no single moment's stops the cell, and nothing opens it again.",
    where="services/runtime/recovery.py: _made_whole",
)
def test_a_copy_of_no_single_moment_is_thrown_away_and_folded_anew(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    """A cell whose meta is older than its states would say other things than it said."""

    async def scene(made: World, store: RedisCellStore, live: MemoryStore) -> None:
        await fold_again(made, *CELL, store, entries=2)  # the claim, and a commit
        older = await store._redis.dump(store._key("meta"))
        await fold_again(made, *CELL, store)
        await store._redis.restore(store._key("meta"), 0, older, replace=True)
        await fold_again(made, *CELL, store)
        assert "folding all of it again" in caplog.text
        assert await _facts_of(store) == facts(live)

    _play_with_history(stack, scene)


@pytest.mark.defence(
    "an answer is given when it is on the log",
    "Redis is lost, the command is decided anew and otherwise: somebody was told what never was.",
    where="services/runtime/redis_reader.py: answers",
)
def test_an_answer_is_given_when_it_is_on_the_log(stack: Stack) -> None:
    async def scene(made: World, store: RedisCellStore, live: MemoryStore) -> None:
        await fold_again(made, *CELL, store)
        reader, command = RedisReader(1, store._redis, made.codec), next(iter(live.answers))
        for sent, told in ((0, False), (2**53, True)):
            await store._redis.hset(store._key("meta"), "sent", sent)
            assert (command in await reader.answers([made.stages[CELL[0]]], [command])) is told

    _play_with_history(stack, scene)


def test_keys_are_found_by_how_a_name_begins(stack: Stack) -> None:
    async def scene(made: World, store: RedisCellStore, live: MemoryStore) -> None:
        await fold_again(made, *CELL, store)
        reader, stage = RedisReader(1, store._redis, made.codec), made.stages[CELL[0]]
        names = {"retention:1": "ann", "retention:2": "ann", "retention:3": "bea", "other:retention:4": "cy"}
        await store._redis.hset(store._key("find"), mapping=names)
        assert await reader.keys_of(stage, "retention:") == {"ann", "bea"}
        await store.open(Last(number=2**53))
        with pytest.raises(Rebuilding):
            await reader.keys_of(stage, "retention:")

    _play_with_history(stack, scene)


@pytest.mark.defence(
    "a cell is read in the run of Redis alone in which its owner found it whole",
    "After a failover somebody sees an older balance, and a signup is decided by what no longer holds.",
    where="services/runtime/redis_reader.py: ask",
)
def test_a_cell_is_read_in_the_run_of_the_server_alone_in_which_its_owner_found_it_whole(stack: Stack) -> None:
    """Another run of the server may hold an older copy."""

    async def scene(store: RedisCellStore, stage: str) -> None:
        redis = connect(stack.redis)
        try:
            opened = await store.open()
            commit = _commit(1, "w:1")
            commit.positions["commits"] = (0, 1)
            await store.commit(commit)
            with pytest.raises(Rebuilding):  # nobody has looked yet
                await store.peek(stage, 0, "c1")
            assert await store.whole(opened.epoch, 1)
            assert await store.peek(stage, 0, "c1") == b"\x00\xffstate"
            await redis.hset(f"{tag(stage, 0)}:meta", "ready", "another run")
            with pytest.raises(Rebuilding):
                await store.peek(stage, 0, "c1")
            with pytest.raises(Fenced):
                await store.whole(opened.epoch - 1, 1)  # a former owner knows nothing of it
            with pytest.raises(Rebuilding):
                await store.peek(stage, 0, "c1")
            assert not await store.whole(opened.epoch, 2)  # what is there is older than what its owner has committed
            assert not await store.whole(opened.epoch + 1, 0)
            with pytest.raises(Rebuilding):
                await store.peek(stage, 0, "c1")
            assert await store.whole(opened.epoch, 1)
            assert await store.peek(stage, 0, "c1") == b"\x00\xffstate"
            await redis.hset(f"{tag(stage, 0)}:meta", "ready", "0")
            await store.whole(opened.epoch, 1)  # it is behind its journal, whatever run this is
            with pytest.raises(Rebuilding):
                await store.peek(stage, 0, "c1")
        finally:
            await redis.aclose()

    _play(stack, scene)


@pytest.mark.defence(
    "a cell that is being rebuilt is not read",
    "Somebody sees a balance that lacks its last payments, and spends by it.",
    where="services/runtime/redis_reader.py: ask",
)
def test_a_cell_that_is_behind_its_journal_is_not_read(stack: Stack) -> None:
    async def scene(made: World, store: RedisCellStore, live: MemoryStore) -> None:
        reader, stage = RedisReader(1, store._redis, made.codec), made.stages[CELL[0]]
        key = next(iter(live.states))
        await fold_again(made, *CELL, store)
        assert await reader.state(stage, key) != stage.empty
        await store.open(Last(number=2**53))
        with pytest.raises(Rebuilding):
            await reader.state(stage, key)

    _play_with_history(stack, scene)


CELL = "attribution.people", 0


def _play_with_history(stack: Stack, scene: Callable[[World, RedisCellStore, MemoryStore], Awaitable[None]]) -> None:
    made = world(partitions=1)
    for journey in [each for each in journeys() if each.name in ("keycrm-tiers", "keycrm-several-partners")]:
        for phase in journey.phases():
            made.publish(*phase)
            made.run()

    async def main() -> None:
        redis = connect(f"{stack.redis.removesuffix('/0')}/1")  # the cell's name is one that others use
        try:
            await scene(made, RedisCellStore(redis, *CELL), made.stores[CELL])
        finally:
            await redis.flushdb()
            await redis.aclose()

    asyncio.run(main())


async def _facts_of(store: RedisCellStore) -> dict[str, Any]:
    """What Redis holds of a cell, as `facts` has it of a memory."""

    async def of(name: str) -> dict[str, bytes]:
        return {key.decode(): blob for key, blob in (await store._redis.hgetall(store._key(name))).items()}

    prefix = store._key("rows:")
    names = [name.removeprefix(prefix) async for name in rows_keys(store._redis, store._tag)]
    meta = {name: int(value) for name, value in (await of("meta")).items() if name not in (*OWN, "token")}
    answers = {name: blob.partition(b":")[2] for name, blob in (await of("answers")).items()}
    rows = {name: await of(f"rows:{name}") for name in names}
    find = {name: key.decode() for name, key in (await of("find")).items()}
    return {"meta": meta, "states": await of("state"), "rows": rows, "find": find, "answers": answers}
