"""Requests that race for one balance over HTTP: one gets it. And limits that hold over real Redis."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from services.cli.token import Role, signed
from services.runtime.http import Problem
from services.runtime.http.rates import PREFIX, WINDOW_SECONDS, RateLimits, counting_client
from tests.conftest import Stack
from tests.e2e.conftest import Running

pytestmark = pytest.mark.infra

EARNED, ASKED = 2000, 1500
"""Minor units: of what there is, two requests cannot both have theirs."""


class Racer:
    """A partner of message-help with 20.00 EUR."""

    def __init__(self, running: Running, name: str) -> None:
        self._running, self.name = running, name
        self._own = {"authorization": f"Bearer {signed(running.settings, Role.partner, name)}"}

    async def earn(self, folder: Path) -> None:
        platform = {"authorization": f"Bearer {signed(self._running.settings, Role.platform, 'platform')}"}
        joins = {"partner_id": self.name, "program_id": "message-help", "accepted_terms": True}
        joins["activated_at"] = "2026-01-01T00:00:00Z"
        async with self._client() as client:
            answer = await client.post(
                "/attribution/partners", json=joins, headers={**platform, "idempotency-key": self.name}
            )
            assert answer.status_code == 201, answer.text
            path = f"/attribution/partners/{self.name}/links"
            link = await client.post(
                path, json={"program_id": "message-help"}, headers={**self._own, "idempotency-key": "link"}
            )
            client_id, code = f"{self.name}-client", link.json()["code"]
            lines = (
                ("customer.signed_up", "2026-01-03T00:00:00Z", {"clicks": [{"code": code, "clicked_at": CLICKED}]}),
                ("payment.succeeded", "2026-01-04T00:00:00Z", {"payment_id": f"{client_id}-1", "amount": eur(10_000)}),
            )
            file = folder / "events.jsonl"
            file.write_text(
                "\n".join(
                    json.dumps(
                        {
                            "specversion": "1.0",
                            "id": f"{self.name}-{kind}",
                            "source": "/t",
                            "type": kind,
                            "time": at,
                            "data": {"customer_id": client_id, **data},
                        }
                    )
                    for kind, at, data in lines
                )
            )
            published = self._running.refstream("publish", str(file))
            assert published.returncode == 0, published.stderr
            async with asyncio.timeout(20):
                while await self.available(client) != EARNED:
                    await asyncio.sleep(0.1)

    async def available(self, client: httpx.AsyncClient) -> int | None:
        answer = await client.get(f"/payouts/partners/{self.name}/balance", headers=self._own)
        books = answer.json()["balances"]
        return int(books[0]["available"]["minor"]) if books else None

    async def race(self, number: int, *, one_key: bool = False) -> list[httpx.Response]:
        """So many withdrawals at once, each decided."""
        async with self._client() as client:
            keys = ["one" if one_key else f"race-{each}" for each in range(number)]
            return await asyncio.gather(*(self._withdraw(client, key) for key in keys))

    async def _withdraw(self, client: httpx.AsyncClient, key: str) -> httpx.Response:
        body = {"program_id": "message-help", "amount": eur(ASKED), "destination": "UA90 3052"}
        path, headers = f"/payouts/partners/{self.name}/withdrawals", {**self._own, "idempotency-key": key}
        answer = await client.post(path, json=body, headers=headers)
        async with asyncio.timeout(60):
            while answer.status_code == 202:
                await asyncio.sleep(0.5)
                answer = await client.get(answer.headers["location"], headers=self._own)
        return answer

    def _client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=100)
        return httpx.AsyncClient(base_url=self._running.url, timeout=60, limits=limits, trust_env=False)


CLICKED = "2026-01-02T00:00:00Z"


def eur(minor: int) -> dict[str, Any]:
    return {"minor": minor, "currency": "EUR"}


async def _one_wins(running: Running, folder: Path, number: int) -> None:
    racer = Racer(running, f"racer-{number}")
    await racer.earn(folder)
    answers = await racer.race(number)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: number - 1}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"insufficient_balance"}
    shown = running.get(f"/payouts/partners/{racer.name}/balance")["balances"][0]
    assert (shown["available"], shown["processing"]) == (eur(EARNED - ASKED), eur(ASKED))


async def test_of_200_withdrawals_at_once_exactly_one_is_accepted(running: Running, tmp_path: Path) -> None:
    await _one_wins(running, tmp_path, 200)


@pytest.mark.long
async def test_of_1000_withdrawals_at_once_exactly_one_is_accepted(running: Running, tmp_path: Path) -> None:
    await _one_wins(running, tmp_path, 1000)


async def test_one_key_at_once_is_one_withdrawal(running: Running, tmp_path: Path) -> None:
    racer = Racer(running, "racer-key")
    await racer.earn(tmp_path)
    answers = await racer.race(50, one_key=True)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1


async def test_a_limit_holds_over_processes_that_share_a_redis(stack: Stack) -> None:
    own = stack.settings.model_copy(update={"rate_limit_partner": 20})
    clients = [counting_client(own) for _ in range(3)]
    processes = [RateLimits.over(own, client) for client in clients]
    calls = (processes[each % 3].count("partner", "limited") for each in range(1000))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, Problem) and answer.code == "rate_limited" for answer in answers if answer)
    assert 0.98 * 20 * WINDOW_SECONDS <= answers.count(None) <= 20 * WINDOW_SECONDS + 20
    async with Redis.from_url(stack.redis) as redis:
        keys = [key async for key in redis.scan_iter(f"{PREFIX}:*limited*")]
        assert keys and all([0 < await redis.ttl(key) <= 2 * WINDOW_SECONDS for key in keys])
    for client in clients:
        await client.aclose()
