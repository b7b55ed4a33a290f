"""What rewards' API shows of a wallet."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from schemas.moments import DAY, SECOND, format_instant, micros, parse_instant
from services.rewards.api import create_app
from services.rewards.rules import WALLETS
from services.rewards.state import Bonus, BonusUse, Wallet
from tests.http_fakes import FakeReader, bearer, resources_over, settings

GRANTED = parse_instant("2025-05-01T00:00:00Z")
EXPIRES = GRANTED + 60 * DAY


@pytest.fixture
def client() -> Iterator[TestClient]:
    reader = FakeReader()
    bonus = Bonus("bon_1", "message-help", "EUR", GRANTED, 50_000, 50_000, EXPIRES)
    reader.by_key[(WALLETS.name, "p-1")] = Wallet(("message-help",), (bonus,))
    with TestClient(create_app(settings(), resources_over(reader))) as client:
        yield client


@pytest.mark.parametrize(
    ("at", "there"), [(GRANTED, False), (GRANTED + 1, True), (EXPIRES - 1, True), (EXPIRES, False)]
)
def test_wallet_holds_a_bonus_from_its_grant_until_it_expires(client: TestClient, at: int, there: bool) -> None:
    answer = client.get("/rewards/partners/p-1/wallet", params={"as_of": format_instant(at)}, headers=bearer())
    shown = {
        "bonus_id": "bon_1",
        "program_id": "message-help",
        "remaining": {"minor": 50_000, "currency": "EUR"},
        "expires_at": format_instant(EXPIRES),
    }
    assert answer.json() == {"credits": [], "bonuses": [shown] if there else []}


def test_history_holds_the_grant_of_a_bonus_and_what_expired_of_it(client: TestClient) -> None:
    answer = client.get("/rewards/partners/p-1/history", headers=bearer())
    amount = {"minor": 50_000, "currency": "EUR"}
    same = {"program_id": "message-help", "bonus_id": "bon_1", "amount": amount}
    assert answer.json() == {
        "items": [
            {"type": "bonus.expired", "occurred_at": format_instant(EXPIRES), **same},
            {"type": "bonus.granted", "occurred_at": format_instant(GRANTED), **same},
        ],
        "next_cursor": None,
    }


def test_wallet_of_a_partner_without_anything_is_empty_and_a_foreign_one_absent(client: TestClient) -> None:
    empty = client.get("/rewards/partners/p-2/wallet", headers=bearer(sub="p-2"))
    assert (empty.status_code, empty.json()) == (200, {"credits": [], "bonuses": []})
    assert client.get("/rewards/partners/p-2/wallet", headers=bearer()).status_code == 404


def test_wallet_shows_what_is_left_of_a_bonus_at_a_time(client: TestClient) -> None:
    use = BonusUse(GRANTED + DAY, 30_000, "cp_1", "c-1")
    bonus = Bonus("bon_1", "message-help", "EUR", GRANTED, 50_000, 20_000, EXPIRES, (use,))
    reader = client.app.state.resources.reader  # type: ignore[attr-defined]
    reader.by_key[(WALLETS.name, "p-1")] = Wallet(("message-help",), (bonus,))
    left = {}
    for at in (use.at, use.at + 1):
        answer = client.get("/rewards/partners/p-1/wallet", params={"as_of": format_instant(at)}, headers=bearer())
        left[at] = answer.json()["bonuses"][0]["remaining"]["minor"]
    assert left == {use.at: 50_000, use.at + 1: 20_000}


def test_wallet_and_history_without_a_time_hold_what_a_clock_ahead_of_ours_has_dated(client: TestClient) -> None:
    now = micros(settings().now())
    soon = now + 120 * SECOND
    use = BonusUse(soon, 30_000, "cp_1", "c-1")
    bonus = Bonus("bon_1", "message-help", "EUR", soon, 50_000, 20_000, soon + 60 * DAY, (use,))
    reader = client.app.state.resources.reader  # type: ignore[attr-defined]
    reader.by_key[(WALLETS.name, "p-1")] = Wallet(("message-help",), (bonus,))

    def get(page: str, **query: str) -> Any:
        return client.get(f"/rewards/partners/p-1/{page}", params=query, headers=bearer()).json()

    assert [each["remaining"]["minor"] for each in get("wallet")["bonuses"]] == [20_000]
    assert get("wallet", as_of=format_instant(now))["bonuses"] == []
    assert {each["type"] for each in get("history")["items"]} == {"bonus.granted", "bonus.used"}
