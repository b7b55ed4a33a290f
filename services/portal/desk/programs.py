"""Programs: switched on and off, edited in a form that is made from the document's schema, compared, published."""

import json
from functools import cache
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.responses import Response

from schemas.ids import Id
from schemas.moments import WIRE
from schemas.programs.differences import differences
from schemas.programs.terms import Program, faults
from services.portal.client import ApiRefused
from services.portal.desk.form import Forms
from services.portal.desk.pages import DeskPage, with_menu
from services.portal.visit import Form, TheAdmin, Visit, go

router = APIRouter()
_PROGRAM = "/attribution/programs/{}"
LEFT_OUT = frozenset({"program_id", "version", "effective_at"})


@cache
def forms() -> Forms:
    return Forms(Program.model_json_schema(), LEFT_OUT)


@router.get("/admin/programs")
async def programs(visit: TheAdmin) -> Response:
    async def load() -> dict[str, Any]:
        return {"documents": [each async for each in visit.api.every("/attribution/programs")]}

    return visit.page("desk/programs.html", **await with_menu(load, "programs"))


def _page(visit: Visit, program_id: str, edited: dict[str, Any] | None = None) -> DeskPage:
    async def load() -> dict[str, Any]:
        """`version` in the address: an earlier one, to look at."""
        latest = await visit.api.get(_PROGRAM, program_id)
        asked = visit.request.query_params.get("version")
        looked = await visit.api.get(_PROGRAM, program_id, version=asked) if asked else None
        return {
            "document": latest,
            "nodes": forms().nodes(edited or latest),
            "looked": looked,
            "looked_json": json.dumps(looked, indent=2, ensure_ascii=False) if looked else "",
        }

    return DeskPage(visit, "programs", "desk/program", load, f"/admin/programs/{program_id}")


@router.get("/admin/programs/{program_id}")
async def program(visit: TheAdmin, program_id: Id) -> Response:
    return await _page(visit, program_id).shown()


@router.get("/admin/programs/{program_id}/live")
async def live(visit: TheAdmin, program_id: Id) -> Response:
    return await _page(visit, program_id).followed()


@router.post("/admin/programs/{program_id}/switch")
async def switch(visit: TheAdmin, program_id: Id) -> Response:
    """On or off, as the form says: two who press at once do not undo each other."""

    async def act(form: Form) -> None:
        latest = await visit.api.get(_PROGRAM, program_id)
        wished = form["enabled"] == "true"
        if latest["enabled"] != wished:
            body = _next(latest | {"enabled": wished})
            await visit.api.put(_PROGRAM, program_id, body=body)

    return await _page(visit, program_id).tried(act, "switched")


@router.post("/admin/programs/{program_id}/difference")
async def difference(visit: TheAdmin, program_id: Id) -> Response:
    """What the form would change; nothing is published yet."""
    form = await visit.form()
    latest = await visit.api.get(_PROGRAM, program_id)
    edited = {"program_id": program_id, "version": latest["version"]} | forms().read(form.fields)

    async def act() -> Response:
        after = _checked(edited)
        found = differences(Program.model_validate(latest), after)
        context = {"document": latest, "found": found, "edited": json.dumps(after.as_document())}
        return visit.page("desk/difference.html", **await with_menu(lambda: _given(context), "programs"))

    page = _page(visit, program_id, edited)
    return await page.tried_with(form, act)


@router.post("/admin/programs/{program_id}/publish")
async def publish(visit: TheAdmin, program_id: Id) -> Response:
    """The document whose difference was looked at, unless another version came meanwhile."""
    form = await visit.form()

    async def act() -> Response:
        latest = await visit.api.get(_PROGRAM, program_id)
        if str(latest["version"]) != form["version"]:
            raise ApiRefused(409, "changed_meanwhile", "Another version was published meanwhile.")
        try:
            document = json.loads(form["document"])
        except ValueError:
            raise ApiRefused(422, "invalid", "The document cannot be read.") from None
        await visit.api.put(_PROGRAM, program_id, body=_next(document))
        return go(f"/admin/programs/{program_id}", "published")

    return await _page(visit, program_id).tried_with(form, act)


async def _given(context: dict[str, Any]) -> dict[str, Any]:
    return context


def _next(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a next version, in force from its publication on."""
    return {name: value for name, value in document.items() if name not in ("version", "effective_at")}


def _checked(document: dict[str, Any]) -> Program:
    """Errors: ApiRefused 422 that names each field at fault."""
    try:
        return Program.model_validate(document, context=WIRE)
    except ValidationError as error:
        raise ApiRefused(422, "invalid", "The document is not valid.", tuple(faults(error))) from None
