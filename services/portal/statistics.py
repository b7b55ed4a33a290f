"""Statistics: clicks and signups of a period, beside the period before it."""

import asyncio
from datetime import date, timedelta
from typing import Any

from fastapi import APIRouter

from services.portal.client import ApiRefused
from services.portal.partner import Program, add
from services.portal.visit import Visit

router = APIRouter()
DAYS, MOST_DAYS = 30, 3660


@add("statistics", "Statistics")
async def load(visit: Visit, program: Program) -> dict[str, Any]:
    """`from` and `to` in the address: the first day and the last; without them the last 30 days."""
    query = visit.request.query_params
    until = _day("to", query.get("to")) or visit.today()
    since = _day("from", query.get("from")) or until - timedelta(days=DAYS - 1)
    length = (until - since).days + 1
    if not 1 <= length <= MOST_DAYS:
        raise ApiRefused(422, "invalid", "The period ends before it begins, or is too long.")
    before = since - timedelta(days=length)
    own = {"program_id": program.program_id}
    here, earlier = await asyncio.gather(
        visit.api.get(_PATH, visit.sub, **own, from_=f"{since}", to=f"{until + timedelta(days=1)}"),
        visit.api.get(_PATH, visit.sub, **own, from_=f"{before}", to=f"{since}"),
    )
    known = {each["date"]: (each["clicks"], each["signups"]) for each in here["series"]}
    days = [known.get(f"{since + timedelta(days=number)}", (0, 0)) for number in range(length)]
    return {"here": here, "earlier": earlier, "days": days, "since": f"{since}", "until": f"{until}"}


_PATH = "/attribution/partners/{}/statistics"


def _day(name: str, text: str | None) -> date | None:
    """Errors: ApiRefused 422."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise ApiRefused(422, "invalid", "Write a day, like 2026-02-28.", ((name, ""),)) from None
