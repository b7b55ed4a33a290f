"""All four APIs over one system in memory: the real apps, the real stages, two partners with the same past.

`OWN` and `FOREIGN` are partners of every shipped program, each with a link, a client who paid and everything that a
partner can have; nobody has the id `ABSENT`.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from types import ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from schemas import events
from schemas.events import Event, Payload
from schemas.moments import DAY, format_instant, micros
from schemas.money import Money
from schemas.programs import shipped
from services import attribution, commission, payouts, rewards
from services.attribution import api as attribution_api
from services.attribution import programs_api
from services.commission import api as commission_api
from services.payouts import api as payouts_api
from services.rewards import api as rewards_api
from services.runtime.http import Commands, Resources
from services.runtime.http.app import takes_commands
from services.runtime.http.rates import RateLimits
from services.runtime.metrics import Metrics
from services.runtime.simulate import MemoryReader, World
from tests.http_fakes import bearer, settings

OWN, FOREIGN, ABSENT = "own-1", "foreign-1", "absent-1"
APIS: dict[str, ModuleType] = {
    "attribution": attribution_api,
    "commission": commission_api,
    "rewards": rewards_api,
    "payouts": payouts_api,
}
METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


@dataclass
class FourApis:
    """What a test publishes and asks. Every request that may need an Idempotency-Key has its own."""

    world: World
    clients: dict[str, TestClient] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def documents(self) -> dict[str, dict[str, Any]]:
        """The OpenAPI documents, by service."""
        return {name: client.app.openapi() for name, client in self.clients.items()}  # type: ignore[attr-defined]

    @property
    def operations(self) -> dict[str, dict[str, Any]]:
        """Every operation of every document, like `GET /payouts/partners/{partner_id}/balance`."""
        return {
            f"{method.upper()} {path}": operation
            for document in self.documents.values()
            for path, item in document["paths"].items()
            for method, operation in item.items()
            if method in METHODS
        }

    def happened(self, *payloads: Payload, at: int) -> None:
        self.world.publish(*(Event(f"e{next(self._numbers)}", "/t", at, data) for data in payloads))
        self.world.run()

    def call(self, method: str, path: str, role: str | None, sub: str = "", **other: Any) -> Response:
        """`role`: None for no token; a partner's `sub` is OWN unless it is given."""
        headers = {"idempotency-key": f"k-{next(self._numbers)}", **other.pop("headers", {})}
        if role is not None:
            headers |= bearer(role, sub or (OWN if role == "partner" else role))
        return self.clients[path.split("/")[1]].request(method, path, headers=headers, follow_redirects=False, **other)

    @property
    def written(self) -> int:
        """How many records there are on all topics."""
        return sum(map(len, self.world.log.values()))


@contextmanager
def four_apis(rates: RateLimits | None = None) -> Iterator[FourApis]:
    """Open for as long as the block; nothing waits for an activation that never comes."""
    own = settings(public_url="https://go.example.com")
    stages = (attribution.stages(own), commission.stages(own), rewards.stages(own), payouts.STAGES)
    made = FourApis(World([stage for each in stages for stage in each]))
    reader: Any = MemoryReader(made.world)
    feed: Any = made.world.feed

    async def write(event: Event, key: str) -> None:
        made.world.publish(event)
        await made.world._run()

    with ExitStack() as opened, pytest.MonkeyPatch.context() as patch:
        for api in (payouts_api, rewards_api):
            patch.setattr(api, "ACTIVATION_LOOKS", 1)
        patch.setattr(programs_api, "PUBLICATION_LOOKS", 1)
        for name, api in APIS.items():
            commands = None
            if takes_commands(name):
                commands = Commands(name, own, reader, write, Metrics("api"), wait_seconds=0.3)
            more: dict[str, Any] = {"write_click": write} if name == "attribution" else {}
            has = Resources(own, reader, feed, commands, rates=rates)
            app = api.create_app(own, has, **more)
            made.clients[name] = opened.enter_context(TestClient(app, raise_server_exceptions=False))
        yield made


def with_partners(apis: FourApis) -> dict[str, dict[str, str]]:
    """Publish the programs, and give OWN and FOREIGN the same past. Answers both partners' ids, by path parameter.

    Withdrawals have no minimum here.
    """
    for program in shipped():
        document = program.as_document() | {"payouts": {**program.as_document()["payouts"], "minimums": []}}
        put = apis.call("PUT", f"/attribution/programs/{program.program_id}", "admin", json=document)
        assert put.status_code == 200
    return {partner: _partner(apis, partner) for partner in (OWN, FOREIGN)}


def _partner(apis: FourApis, partner: str) -> dict[str, str]:
    now = micros(settings().now())
    joined, client, account = now - 60 * DAY, f"{partner}-client", f"{partner}-account"
    apis.happened(events.CustomerSignedUp(customer_id=partner), at=joined - DAY)
    apis.happened(events.AccountCreated(customer_id=partner, account_id=account), at=joined - DAY)
    for program in shipped():
        body: dict[str, Any] = {"partner_id": partner, "program_id": program.program_id, "accepted_terms": True}
        body["activated_at"] = format_instant(joined)
        assert apis.call("POST", "/attribution/partners", "platform", json=body).status_code == 201

    def made(path: str, body: dict[str, Any], name: str) -> str:
        answer = apis.call("POST", path, "partner", partner, json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()[name])

    code = made(f"/attribution/partners/{partner}/links", {"program_id": "keycrm"}, "code")
    clicked = events.Click(code=code, clicked_at=now - 2 * DAY)
    apis.happened(events.CustomerSignedUp(customer_id=client, clicks=(clicked,)), at=now - DAY)
    apis.happened(events.AccountCreated(customer_id=client, account_id=f"{client}-crm"), at=now - DAY)
    apis.happened(_payment(f"{partner}-payment", client, 500_000, account_id=f"{client}-crm"), at=now - DAY // 2)
    buys = made(f"/attribution/partners/{partner}/links", {"program_id": "proxy-credits"}, "code")
    clicked = events.Click(code=buys, clicked_at=now - 2 * DAY)
    apis.happened(events.CustomerSignedUp(customer_id=f"{client}-2", clicks=(clicked,)), at=now - DAY)
    bought = {"product_family": "residential", "provider": "packetstream", "quantity_gb": "50"}
    apis.happened(_payment(f"{partner}-purchase", f"{client}-2", 14_000, **bought), at=now - DAY // 2)
    apis.happened(events.CustomerSignedUp(customer_id=f"{client}-3"), at=now - DAY)

    usd = {"minor": 1000, "currency": "USD"}
    payouts = f"/payouts/partners/{partner}"
    withdrawal = {"program_id": "keycrm", "amount": usd, "destination": "UA903052992990004149"}
    deposit = {"program_id": "message-help", "amount": {"minor": 100_000, "currency": "EUR"}, "method": "card"}
    claim = {"program_id": "proxy-credits", "provider": "packetstream"}
    retention = {"program_id": "message-help", "customer_id": f"{client}-3", "evidence": "a letter"}
    return {
        "partner_id": partner,
        "customer_id": client,
        "payment_id": f"{partner}-payment",
        "account_id": account,
        "code": code,
        "withdrawal_id": made(f"{payouts}/withdrawals", withdrawal, "withdrawal_id"),
        "deposit_id": made(f"{payouts}/deposits", deposit, "deposit_id"),
        "claim_id": made(f"/rewards/partners/{partner}/claims", claim, "claim_id"),
        "retention_id": made(f"/attribution/partners/{partner}/retention-claims", retention, "claim_id"),
    }


def _payment(payment_id: str, customer_id: str, minor: int, **more: Any) -> events.PaymentSucceeded:
    amount = Money(minor=minor, currency="USD")
    return events.PaymentSucceeded(payment_id=payment_id, customer_id=customer_id, amount=amount, **more)
