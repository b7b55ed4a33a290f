"""How the services are, and dead letters. No API tells these: Kafka is asked, as the commands `status` and
`dead-letters` ask it, so the pages run with the operator's rights there."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import KafkaError
from fastapi import APIRouter
from starlette.responses import Response

from services.portal.client import ApiRefused
from services.portal.desk.pages import DeskPage
from services.portal.visit import Form, TheAdmin, Visit
from services.runtime.dead_letters import LetterRefused, again, chosen, find_letters, letters_at, publish_again
from services.runtime.lag import Lag, lags
from services.runtime.settings import Settings
from services.runtime.stages import stages_of

router = APIRouter()
LOOK_SECONDS = 3.0
SHOWN = 100
SERVICES = ("attribution", "commission", "rewards", "payouts")


def _settings(visit: Visit) -> Settings:
    settings: Settings = visit.request.app.state.settings
    return settings


# --- health ---------------------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """Looks at the services again and again; the second look tells how fast they fold."""

    settings: Settings
    looked_at: float = 0.0
    folded: dict[str, int] = field(default_factory=dict)

    async def look(self) -> list[dict[str, Any]]:
        """Each service's lag, and events a second since the last look. Errors: ApiRefused where Kafka is away."""
        reads = {
            service: sorted({topic.name for stage in stages_of(service, self.settings) for topic in stage.reads})
            for service in SERVICES
        }
        try:
            found = await lags(self.settings, reads)
        except (KafkaError, OSError):
            raise ApiRefused(503, "unavailable", "Kafka does not answer.") from None
        now = time.monotonic()
        rows = [self._row(service, [each for each in found if each.service == service], now) for service in SERVICES]
        self.looked_at = now
        return rows

    def _row(self, service: str, of: list[Lag], now: float) -> dict[str, Any]:
        folded, before = sum(each.folded for each in of), self.folded.get(service)
        self.folded[service] = folded
        rate = None if before is None else round((folded - before) / (now - self.looked_at))
        behind = Counter[str]()
        for each in of:
            behind[each.topic] += each.lag
        topics = [(topic, lag) for topic, lag in behind.most_common() if lag]
        return {"service": service, "lag": sum(behind.values()), "topics": topics, "rate": rate}


async def _verified(visit: Visit) -> dict[str, Any]:
    """What `refstream verify` found last of each service, and the latest verified month of each program."""
    runs = asyncio.gather(*(visit.api.get(f"/{service}/verification") for service in SERVICES))
    told, months = await asyncio.gather(runs, _verified_months(visit))
    return {"runs": {service: run["last"] for service, run in zip(SERVICES, told, strict=True)}, "verified": months}


async def _verified_months(visit: Visit) -> list[dict[str, Any]]:
    """The latest verified month of each program that has monthly discounts."""
    monthly = [
        each["program_id"]
        async for each in visit.api.every("/attribution/programs")
        if any(term["kind"] == "monthly_discount" for term in each["terms"])
    ]
    found = [(await visit.api.get("/rewards/verifications", program_id=each))["verifications"] for each in monthly]
    return [
        {"program_id": program_id, "latest": months[0] if months else None}
        for program_id, months in zip(monthly, found, strict=True)
    ]


@router.get("/admin/health")
async def health(visit: TheAdmin) -> Response:
    """At once, without Kafka's figures: they follow."""

    async def load() -> dict[str, Any]:
        return {"services": None} | await _verified(visit)

    return await DeskPage(visit, "health", "desk/health", load).shown()


@router.get("/admin/health/live")
async def health_live(visit: TheAdmin) -> Response:
    watch = Watch(_settings(visit))

    async def load() -> dict[str, Any]:
        return {"services": await watch.look()} | await _verified(visit)

    return await DeskPage(visit, "health", "desk/health", load).followed(LOOK_SECONDS)


# --- dead letters ---------------------------------------------------------------------------------------------------


def _letters(visit: Visit) -> DeskPage:
    """At once, without Kafka's records: they are asked for by the page."""

    async def load() -> dict[str, Any]:
        return {"count": None}

    return DeskPage(visit, "dead-letters", "desk/letters", load)


async def _found(visit: Visit) -> list[dict[str, Any]]:
    """All, the newest first. Errors: ApiRefused where Kafka is away."""
    try:
        return [letter.row() for letter in reversed(await find_letters(_settings(visit), chosen()))]
    except (KafkaError, OSError):
        raise ApiRefused(503, "unavailable", "Kafka does not answer.") from None


@router.get("/admin/dead-letters")
async def dead_letters(visit: TheAdmin) -> Response:
    return await _letters(visit).shown()


@router.get("/admin/dead-letters/list")
async def listed(visit: TheAdmin) -> Response:
    return visit.page("desk/letters.part.html", letters=(await _found(visit))[:SHOWN])


@router.get("/admin/dead-letters/live")
async def dead_letters_live(visit: TheAdmin) -> Response:
    async def load() -> dict[str, Any]:
        return {"count": len(await _found(visit))}

    return await DeskPage(visit, "dead-letters", "desk/letters", load).followed(LOOK_SECONDS)


@router.post("/admin/dead-letters/replay")
async def replay(visit: TheAdmin) -> Response:
    """Published again, each to the topic that it came from; what is still wrong becomes a dead letter again."""

    async def act(form: Form) -> None:
        settings = _settings(visit)
        try:
            found = await letters_at(settings, form.all("position"))
            await publish_again(settings, [again(letter) for letter in found])
        except LetterRefused:
            raise ApiRefused(409, "not_replayable", "The letter cannot be played again.") from None
        except (KafkaError, OSError):
            raise ApiRefused(503, "unavailable", "Kafka does not answer.") from None

    return await _letters(visit).tried(act, "replayed")
