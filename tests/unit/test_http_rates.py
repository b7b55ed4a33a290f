"""Rate limits: one caller is refused, nobody else notices, and counting costs next to nothing."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient
from limits.aio.storage import MemoryStorage
from redis.exceptions import ConnectionError as RedisUnreachable

from services.runtime.http import Problem, TheCaller, TheVisitor, service_app
from services.runtime.http.rates import REFUSAL_DELAY_SECONDS, WINDOW_SECONDS, RateLimits, counting_client, network_of
from services.runtime.settings import Settings
from tests.http_fakes import FakeReader, bearer, resources_over, settings

router = APIRouter()


@router.get("/own")
async def own(who: TheCaller) -> dict[str, str]:
    return {}


@router.get("/public")
async def public(visitor: TheVisitor) -> dict[str, str]:
    return {}


class Counting(MemoryStorage):
    """A dictionary that counts how often it was asked, or is out of reach."""

    asked, is_away = 0, False

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        self.asked += 1
        if self.is_away:
            raise RedisUnreachable
        return await super().acquire_sliding_window_entry(key, limit, expiry, amount)


def limits(storage: MemoryStorage, **rates: int) -> RateLimits:
    return RateLimits(settings(**{f"rate_limit_{kind}": rate for kind, rate in rates.items()}), storage)


@contextmanager
def app(address: str = "192.0.2.1", **rates: int) -> Iterator[TestClient]:
    """An app that allows so many requests a second, over a window of 30 s."""
    has = resources_over(FakeReader(), rates=limits(MemoryStorage(), **rates))
    with TestClient(service_app("payouts", settings(), router, (), has), client=(address, 4711)) as client:
        yield client


def statuses(client: TestClient, number: int, path: str = "/payouts/own", **who: str) -> list[int]:
    return [client.get(path, headers=bearer(**who) if who else {}).status_code for _ in range(number)]


def test_a_caller_is_refused_beyond_its_limit_with_a_problem_that_says_when_to_come_back() -> None:
    with app(partner=1) as client:
        assert statuses(client, WINDOW_SECONDS, sub="p-1") == [200] * WINDOW_SECONDS
        refused = client.get("/payouts/own", headers=bearer(sub="p-1"))
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert refused.headers["content-type"] == "application/problem+json"
        assert 1 <= int(refused.headers["Retry-After"]) <= WINDOW_SECONDS


def test_a_refused_caller_is_nobody_elses_business() -> None:
    with app(partner=1, trusted=1, public=1) as client:
        assert statuses(client, WINDOW_SECONDS + 1, sub="p-1")[-1] == 429
        for other in ({"sub": "p-2"}, {"role": "admin", "sub": "p-1"}, {"role": "platform", "sub": "p-1"}):
            assert statuses(client, 1, **other) == [200]
        assert statuses(client, 1, "/payouts/public") == [200]


def test_a_visitor_is_counted_by_address_whatever_headers_say() -> None:
    with app(public=1) as client:
        assert statuses(client, WINDOW_SECONDS + 1, "/payouts/public")[-1] == 429
        assert client.get("/payouts/public", headers={"X-Forwarded-For": "192.0.2.9"}).status_code == 429


def test_zero_is_no_limit() -> None:
    with app(partner=0, public=0) as client:
        assert set(statuses(client, 200, sub="p-1") + statuses(client, 200, "/payouts/public")) == {200}


def test_a_wrong_token_counts_for_nobody() -> None:
    with app(partner=1) as client:
        for _ in range(2 * WINDOW_SECONDS):
            assert client.get("/payouts/own", headers=bearer(secret="x" * 40)).status_code == 401
        assert statuses(client, 1, sub="p-1") == [200]


def test_health_is_not_counted() -> None:
    with app(public=1) as client:
        for name in ("healthz", "readyz", "metrics"):
            assert set(statuses(client, WINDOW_SECONDS + 5, f"/payouts/{name}")) == {200}


async def _accepted(number: int, *rates: RateLimits) -> int:
    """How many of so many requests at once are let through, spread over processes."""
    calls = (rates[each % len(rates)].count("partner", "p-1") for each in range(number))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, Problem) for answer in answers if answer is not None)
    return answers.count(None)


async def test_requests_at_once_get_exactly_the_limit() -> None:
    assert await _accepted(5000, limits(MemoryStorage(), partner=100)) == 100 * WINDOW_SECONDS


async def test_processes_share_a_limit() -> None:
    storage = MemoryStorage()
    assert await _accepted(5000, *(limits(storage, partner=100) for _ in range(3))) == 100 * WINDOW_SECONDS


async def test_most_requests_ask_nobody_whether_they_are_let_through_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.runtime.http.rates.REFUSAL_SECONDS", WINDOW_SECONDS)  # however slow the machine is
    storage = Counting()
    await _accepted(3 * 100 * WINDOW_SECONDS, limits(storage, partner=100))
    assert storage.asked == 101


async def test_refusals_come_a_moment_late_and_hold_up_nobody_else() -> None:
    rates = limits(MemoryStorage(), partner=1)
    assert await _accepted(WINDOW_SECONDS, rates) == WINDOW_SECONDS
    began = time.monotonic()
    refused = asyncio.create_task(_accepted(50, rates))
    await asyncio.sleep(0)
    await rates.count("partner", "p-2")
    assert time.monotonic() - began < REFUSAL_DELAY_SECONDS
    assert await refused == 0
    assert REFUSAL_DELAY_SECONDS <= time.monotonic() - began < 10 * REFUSAL_DELAY_SECONDS


async def test_when_nothing_can_be_counted_requests_go_on() -> None:
    storage = Counting()
    storage.is_away = True
    assert await _accepted(5000, limits(storage, partner=100)) == 5000


async def test_a_redis_that_is_away_costs_a_request_next_to_nothing() -> None:
    own = Settings(redis="redis://127.0.0.1:1", rate_limit_partner=1)
    redis = counting_client(own)
    began = time.monotonic()
    await RateLimits.over(own, redis).count("partner", "p-1")
    assert time.monotonic() - began < 1
    await redis.aclose()


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_neighbours_in_one_network_are_one_visitor(address: str, network: str) -> None:
    assert network_of(address) == network
