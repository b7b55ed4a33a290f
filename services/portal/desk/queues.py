"""What waits for an administrator: withdrawals, retention claims, deposits, claims of data."""

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from schemas.ids import Id
from services.portal.client import ApiRefused
from services.portal.desk.pages import DeskPage
from services.portal.visit import Form, TheAdmin, Visit

router = APIRouter()
MOST = 50


@dataclass(frozen=True, slots=True)
class Queue:
    """`path`: the list it shows; `waiting`: the states in which something waits."""

    name: str
    title: str
    path: str
    waiting: tuple[str, ...]


QUEUES = (
    Queue("withdrawals", "Withdrawals to pay", "/payouts/withdrawals", ("processing",)),
    Queue("deposits", "Deposits to confirm", "/payouts/deposits", ("pending", "invoiced")),
    Queue("claims", "Data to give", "/rewards/claims", ("requested",)),
    Queue("retention", "Claims of clients", "/attribution/retention-claims", ("requested",)),
)


def _page(visit: Visit) -> DeskPage:
    async def load() -> dict[str, Any]:
        lists = await asyncio.gather(*(items(visit, queue) for queue in QUEUES))
        return {"waiting": dict(zip((queue.name for queue in QUEUES), lists, strict=True))}

    return DeskPage(visit, "queues", "desk/queues", load)


async def items(visit: Visit, queue: Queue) -> list[dict[str, Any]]:
    """The first of those who wait."""
    found: list[dict[str, Any]] = (await visit.api.get(queue.path, status=queue.waiting, limit=MOST))["items"]
    return found


@router.get("/admin/queues")
async def queues(visit: TheAdmin) -> Response:
    return await _page(visit).shown()


@router.get("/admin/queues/live")
async def live(visit: TheAdmin) -> Response:
    return await _page(visit).followed()


@router.get("/admin/queues/withdrawals.csv")
async def for_the_bank(visit: TheAdmin) -> Response:
    content = await visit.api.csv("/payouts/withdrawals", status="processing")
    headers = {"Content-Disposition": 'attachment; filename="withdrawals.csv"'}
    return Response(content, 200, headers, "text/csv; charset=utf-8")


@router.post("/admin/queues/withdrawals/pay")
async def pay(visit: TheAdmin) -> Response:
    """One or several. One that was settled meanwhile stops nothing: the others are paid, and then it is told."""

    async def act(form: Form) -> None:
        refused: ApiRefused | None = None
        for withdrawal_id in form.all("withdrawal_id"):
            try:
                await visit.api.post("/payouts/withdrawals/{}/pay", withdrawal_id, key=f"{form['key']}-{withdrawal_id}")
            except ApiRefused as error:
                refused = error
        if refused is not None:
            raise refused

    return await _page(visit).tried(act, "paid")


@router.post("/admin/queues/withdrawals/{withdrawal_id}/reject")
async def reject(visit: TheAdmin, withdrawal_id: Id) -> Response:
    async def act(form: Form) -> None:
        body = {"reason": form["reason"]}
        await visit.api.post("/payouts/withdrawals/{}/reject", withdrawal_id, body=body, key=form["key"])

    return await _page(visit).tried(act, "rejected")


@router.post("/admin/queues/deposits/{deposit_id}/confirm")
async def confirm(visit: TheAdmin, deposit_id: Id) -> Response:
    async def act(form: Form) -> None:
        await visit.api.post("/payouts/deposits/{}/confirm", deposit_id, key=form["key"])

    return await _page(visit).tried(act, "confirmed")


@router.post("/admin/queues/claims/{claim_id}")
async def settle(visit: TheAdmin, claim_id: Id) -> Response:
    async def act(form: Form) -> None:
        body = {"status": form["status"]}
        await visit.api.post("/rewards/claims/{}/settle", claim_id, body=body, key=form["key"])

    return await _page(visit).tried(act, "settled")


@router.post("/admin/queues/retention/{claim_id}/approve")
async def approve(visit: TheAdmin, claim_id: Id) -> Response:
    async def act(form: Form) -> None:
        await visit.api.post("/attribution/retention-claims/{}/approve", claim_id, key=form["key"])

    return await _page(visit).tried(act, "approved")


@router.post("/admin/queues/retention/{claim_id}/reject")
async def refuse(visit: TheAdmin, claim_id: Id) -> Response:
    async def act(form: Form) -> None:
        body = {"reason": form["reason"]}
        await visit.api.post("/attribution/retention-claims/{}/reject", claim_id, body=body, key=form["key"])

    return await _page(visit).tried(act, "rejected")
