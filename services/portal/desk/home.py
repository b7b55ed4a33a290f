"""The first page of the desk: how much waits in each queue, and the search by any id."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from services.portal.desk.pages import DeskPage, with_menu
from services.portal.desk.queues import MOST, QUEUES, items
from services.portal.visit import TheAdmin, Visit

router = APIRouter()


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
        looked = (
            (f"/admin/partners/{q}", "partner", visit.api.get("/attribution/partners/{}", q)),
            (f"/admin/customers/{q}", "customer", visit.api.get("/attribution/customers/{}/decision", q)),
            (f"/admin/payments/{q}", "payment", visit.api.get("/commission/payments/{}/decision", q)),
            (f"/admin/programs/{q}", "program", visit.api.get("/attribution/programs/{}", q)),
        )
        partners, *answers = await asyncio.gather(
            visit.api.get("/attribution/partners", search=q, limit=20),
            *(answer for _, _, answer in looked),
            return_exceptions=True,
        )
        found = [
            (address, kind)
            for (address, kind, _), answer in zip(looked, answers, strict=True)
            if not isinstance(answer, BaseException)
        ]
        listed = [] if isinstance(partners, BaseException) else partners["items"]
        return {"q": q, "found": found, "partners": listed}

    return visit.page("desk/search.html", **await with_menu(load, ""))
