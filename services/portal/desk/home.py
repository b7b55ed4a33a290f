"""The first page of the desk: how much waits in each queue, and the search by any id."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from services.portal.desk.pages import DeskPage, with_menu
from services.portal.desk.queues import MOST, QUEUES, items
from services.portal.visit import TheAdmin, Visit

router = APIRouter()

OF_PARTNER = "/admin/partners/{partner_id}"
THINGS = (
    ("partner", "/attribution/partners/{}", ""),
    ("customer", "/attribution/customers/{}/decision", "/admin/customers/{q}"),
    ("payment", "/commission/payments/{}/decision", "/admin/payments/{q}"),
    ("program", "/attribution/programs/{}", "/admin/programs/{q}"),
    ("code", "/attribution/codes/{}", ""),
    ("withdrawal", "/payouts/withdrawals/{}", ""),
    ("deposit", "/payouts/deposits/{}", ""),
    ("claim", "/rewards/claims/{}", ""),
    ("retention", "/attribution/retention-claims/{}", ""),
)
"""What an id may name: where it is looked up, and the page about it; none: the partner's."""


def _page(visit: Visit) -> DeskPage:
    async def load() -> dict[str, Any]:
        lists = await asyncio.gather(*(items(visit, queue) for queue in QUEUES))
        return {"queues": [(queue, len(found)) for queue, found in zip(QUEUES, lists, strict=True)], "most": MOST}

    return DeskPage(visit, "", "desk/home", load, "/admin")


@router.get("/admin")
async def home(visit: TheAdmin) -> Response:
    return await _page(visit).shown()


@router.get("/admin/live")
async def live(visit: TheAdmin) -> Response:
    return await _page(visit).followed()


@router.get("/admin/search")
async def search(visit: TheAdmin, q: str = "") -> Response:
    """Whatever an id may name; a name or an e-mail finds partners."""
    q = q.strip()

    async def load() -> dict[str, Any]:
        if not q:
            return {"q": q, "found": [], "partners": []}
        partners, *answers = await asyncio.gather(
            visit.api.get("/attribution/partners", search=q, limit=20),
            *(visit.api.get(path, q) for _, path, _ in THINGS),
            return_exceptions=True,
        )
        found = [
            (kind, (address or OF_PARTNER).format(q=q, partner_id=answer.get("partner_id")))
            for (kind, _, address), answer in zip(THINGS, answers, strict=True)
            if not isinstance(answer, BaseException)
        ]
        listed = [] if isinstance(partners, BaseException) else partners["items"]
        return {"q": q, "found": found, "partners": listed}

    return visit.page("desk/search.html", **await with_menu(load, ""))
