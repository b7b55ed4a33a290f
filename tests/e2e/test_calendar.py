"""The day that verifies a month comes by itself; what passed while a stack was down is caught up."""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from schemas import events
from schemas.events import Event, Payload
from schemas.moments import DAY, format_instant, micros
from schemas.money import Money
from schemas.programs import shipped
from services.cli.token import Role, signed
from tests.conftest import AUTH_SECRET, DATA_SECRETS, Stack
from tests.e2e.conftest import Running
from tests.over_kafka import publish

pytestmark = pytest.mark.infra

AHEAD = timedelta(days=95)
PROGRAM, PARTNER = "calendar-test", "calendar-partner"


@contextmanager
def up(stack: Stack, ahead: timedelta) -> Iterator[Running]:
    """A refstream whose clock is ahead, on the session's servers."""
    with tempfile.TemporaryDirectory() as folder:
        own = {name: value for name, value in os.environ.items() if not name.startswith("REFSTREAM_")}
        own |= {
            "REFSTREAM_KAFKA": stack.kafka,
            "REFSTREAM_REDIS": stack.redis,
            "REFSTREAM_DATA_DIR": folder,
            "REFSTREAM_PORT": "0",
            "REFSTREAM_AUTH_SECRET": AUTH_SECRET,
            "REFSTREAM_DATA_SECRETS": json.dumps(DATA_SECRETS),
            "REFSTREAM_SESSION_SECONDS": "2",
            "REFSTREAM_CLOCK_OFFSET": str(int(ahead.total_seconds())),
        }
        running = Running("", stack.settings, own)
        started = running.refstream("up", "--detach")
        try:
            assert started.returncode == 0, started.stdout + started.stderr
            url = next(line.split()[1] for line in started.stdout.splitlines() if line.startswith("API"))
            yield Running(url, stack.settings.model_copy(update={"clock_offset": int(ahead.total_seconds())}), own)
        finally:
            running.refstream("down")


def send(running: Running, method: str, path: str, body: dict[str, Any], role: Role) -> Any:
    token = signed(running.settings, role, role.value)
    headers = {"authorization": f"Bearer {token}", "idempotency-key": path}
    answer = httpx.request(method, running.url + path, json=body, headers=headers, timeout=20, trust_env=False)
    answer.raise_for_status()
    return answer.json()


def discounts(running: Running, **query: str) -> Any:
    return running.get(f"/rewards/partners/{PARTNER}/discounts", **query)


def until(what: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def happened() -> list[Event]:
    """Five customers that the partner brought last year, all active; one company."""
    at = micros(datetime.now(UTC)) - 300 * DAY

    def event(name: str, data: Payload) -> Event:
        return Event(f"{PROGRAM}-{name}", "/test", at, data)

    made = [event("company", events.AccountCreated(customer_id=PARTNER, account_id="calendar-company"))]
    for number in range(5):
        own = f"calendar-c{number}"
        sub = {"customer_id": own, "subscription_id": f"{own}-s"}
        paid = Money(minor=1000, currency="USD")
        made += [
            event(f"{own}-up", events.CustomerSignedUp(customer_id=own, promo_code="CALENDAR")),
            event(f"{own}-on", events.SubscriptionActivated(**sub, product_id="pro", interval="month")),
            event(f"{own}-paid", events.PaymentSucceeded(**sub, payment_id=f"{own}-p", amount=paid)),
        ]
    return made


def test_days_that_passed_during_an_outage_are_verified_one_after_the_other(stack: Stack) -> None:
    with up(stack, timedelta()) as running:
        document = next(program for program in shipped() if program.program_id == "active-referrals").as_document()
        document = {**document, "program_id": PROGRAM}
        send(running, "PUT", f"/attribution/programs/{PROGRAM}", document, Role.admin)
        time.sleep(1)
        since = format_instant(micros(datetime.now(UTC)) - 400 * DAY)
        partner = {"partner_id": PARTNER, "program_id": PROGRAM, "accepted_terms": True, "activated_at": since}
        send(running, "POST", "/attribution/partners", partner, Role.platform)
        token = signed(running.settings, Role.partner, PARTNER)
        code = httpx.post(
            f"{running.url}/attribution/partners/{PARTNER}/promo-codes",
            json={"program_id": PROGRAM, "code": "CALENDAR"},
            headers={"authorization": f"Bearer {token}", "idempotency-key": "calendar"},
            timeout=20,
            trust_env=False,
        )
        assert code.status_code == 201
        asyncio.run(publish(stack.settings, happened()))
        until(lambda: discounts(running)["active_referrals"] == 5)
        first = discounts(running)["month"]
    with up(stack, AHEAD) as running:
        invoice = {"invoice_id": "calendar-i", "issued_at": format_instant(micros(running.settings.now()))}
        body = {**invoice, "amount": {"minor": 1000, "currency": "USD"}}

        def used() -> bool:
            try:
                answer = send(running, "POST", "/rewards/accounts/calendar-company/discount/use", body, Role.platform)
            except httpx.HTTPStatusError as error:
                assert error.response.status_code == 503
                return False
            return bool(answer["percent"] == 5)

        until(used)
        (assigned,) = discounts(running, month=first)["assignments"]
        assert (assigned["referrals_counted"], assigned["percent"], assigned["status"]) == (5, 5, "lapsed")
        assert discounts(running)["assignments"][0]["status"] == "preview"
