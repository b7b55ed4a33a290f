"""A cell's memory on a real server: the commit is all or nothing, fenced, and known again by its writer."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest
from redis.exceptions import ResponseError

from services.runtime.store import Commit, Outgoing, RedisCellStore, Verdict, connect
from tests.conftest import Stack

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


def test_a_commit_keeps_everything_exactly_and_the_next_owner_finds_it(stack: Stack) -> None:
    async def scene(store: RedisCellStore, _: str) -> None:
        opened = await store.open()
        assert (opened.epoch, opened.outbox) == (1, ())
        assert await store.commit(_commit(1, "w:1")) is Verdict.APPLIED
        found = await store.load(["c1", "none"], [("p1", "s:1"), ("p1", "s:2")], ["cmd", "other"])
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
        assert [states async for states in store.scan() if states] == []
        commit = _commit(1, "w:1")
        commit.states = {f"c{number}": str(number).encode() for number in range(3_000)}
        await store.commit(commit)
        pieces = [states async for states in store.scan()]
        assert {key: blob for states in pieces for key, blob in states.items()} == commit.states
        assert len(pieces) > 2

    _play(stack, scene)


def test_a_former_owner_is_fenced_and_changes_nothing(stack: Stack) -> None:
    async def scene(store: RedisCellStore, _: str) -> None:
        await store.open()
        await store.open()
        assert await store.commit(_commit(1, "old:1")) is Verdict.FENCED
        assert (await store.load(["c1"], [], [])).states == {}
        await store.commit(_commit(2, "new:1"))
        await store.trim(1, 1)  # the former owner's trim as well
        assert len((await store.open()).outbox) == 1

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
        assert (await store.load(["c1"], [], [])).states == {}
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
        assert len((await store.load(list(big.states), [], [])).states) == 9_001
        opened = await store.open()
        assert [out.number for out in opened.outbox] == list(range(1, 9_002))
        await store.trim(2, opened.outbox[-1].number)
        assert (await store.open()).outbox == ()

    _play(stack, scene)
