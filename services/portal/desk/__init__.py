"""The administrator's desk."""

from fastapi import APIRouter
from starlette.responses import Response

from services.portal.visit import TheAdmin

router = APIRouter()


@router.get("/admin")
async def home(visit: TheAdmin) -> Response:
    return visit.page("desk.html")
