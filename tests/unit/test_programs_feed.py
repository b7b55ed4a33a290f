"""Asking where the programs topic ends: a question for all who wait, never one from before somebody called."""

import asyncio
from typing import Any

from services.runtime.programs import ProgramsFeed
from tests.worlds import settings


class Broker:
    """Answers each question when it is told to."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[dict[Any, int]]] = []

    async def end_offsets(self, partitions: list[Any]) -> dict[Any, int]:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_all_who_call_before_a_question_share_it_and_who_calls_after_it_gets_another() -> None:
    async def main() -> None:
        feed, broker = ProgramsFeed(settings()), Broker()
        feed._looker = broker
        first = asyncio.create_task(feed.catch_up())
        await _turns()
        others = [asyncio.create_task(feed.catch_up()) for _ in range(50)]
        await _turns()
        assert len(broker.asked) == 1
        broker.asked[0].set_result({})
        await _turns()
        assert first.done()
        assert not any(other.done() for other in others), "what was asked before they called says nothing to them"
        assert len(broker.asked) == 2
        broker.asked[1].set_result({})
        await asyncio.gather(*others)
        assert len(broker.asked) == 2

    asyncio.run(main())


def test_one_who_gives_up_leaves_the_others_their_answer() -> None:
    async def main() -> None:
        feed, broker = ProgramsFeed(settings()), Broker()
        feed._looker = broker
        gone, left = (asyncio.create_task(feed.catch_up()) for _ in range(2))
        await _turns()
        gone.cancel()
        await _turns()
        broker.asked[0].set_result({})
        await left
        assert len(broker.asked) == 1

    asyncio.run(main())
