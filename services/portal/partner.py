"""A partner's pages: which there are, each with its address, and the first one."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import RedirectResponse, Response

from schemas.ids import Id
from services.portal import terms
from services.portal.client import ApiRefused
from services.portal.pages import followed, shown, tried
from services.portal.visit import Form, ThePartner, Visit, go

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Program:
    """A program that the partner takes part in. `document`: the version in force."""

    program_id: str
    name: str
    document: dict[str, Any]
    activated_at: str

    def has(self, *kinds: str) -> bool:
        return terms.has(self.document, *kinds)


Load = Callable[[Visit, Program], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Page:
    """`load`: what it shows, from the APIs. `kinds`: it is there in programs with such terms; none: in every one."""

    name: str
    title: str
    load: Load
    kinds: tuple[str, ...] = ()


PAGES: dict[str, Page] = {}
"""Every page of a program by name; the modules beside this one add theirs."""

ORDER = ("start", "referrals", "payouts", "statistics", "store", "companies", "clients")
"""Of the menu."""


def add(name: str, title: str, *kinds: str) -> Callable[[Load], Load]:
    """Makes a function that loads figures a page."""

    def added(load: Load) -> Load:
        PAGES[name] = Page(name, title, load, kinds)
        return load

    return added


def menu(program: Program) -> list[Page]:
    pages = (PAGES[name] for name in ORDER)
    return [page for page in pages if not page.kinds or program.has(*page.kinds)]


async def programs_of(visit: Visit) -> list[dict[str, Any]]:
    """Every program that the partner can see."""
    found: list[dict[str, Any]] = (await visit.api.get("/attribution/partners/{}/programs", visit.sub))["programs"]
    return found


def entered(programs: list[dict[str, Any]]) -> list[Program]:
    """Those that the partner takes part in."""
    return [
        Program(each["program_id"], each["name"] or each["program_id"], each["document"], each["activated_at"])
        for each in programs
        if each["activated_at"]
    ]


ProgramId = Annotated[Id, Path()]


class Standing:
    """A partner in one of its programs, on one of its pages."""

    def __init__(self, visit: Visit, page: Page, program_id: str) -> None:
        self.visit, self._page, self._program_id = visit, page, program_id

    async def load(self) -> dict[str, Any]:
        """Errors: ApiRefused 404 for a program that the partner is not in, or that has no such page."""
        mine = entered(await programs_of(self.visit))
        program = next((each for each in mine if each.program_id == self._program_id), None)
        if program is None or self._page not in menu(program):
            raise ApiRefused(404, "not_found", "There is no such thing here.")
        standing = {"program": program, "programs": mine, "page": self._page, "menu": menu(program)}
        return standing | await self._page.load(self.visit, program)

    async def shown(self) -> Response:
        return await shown(self.visit, self._page.name, self.load)

    async def followed(self) -> Response:
        return await followed(self.visit, self._page.name, self.load)

    async def tried(self, act: Callable[[Form], Awaitable[Any]], done: str) -> Response:
        """A form of the page: what it asks for is done and told, or refused with its reason. Errors: FormRefused."""
        form = await self.visit.form()

        async def acted() -> Response:
            await act(form)
            return go(f"/portal/{self._program_id}/{self._page.name}", done)

        return await tried(self.visit, self._page.name, self.load, acted, form)


def standing(visit: Visit, name: str, program_id: str) -> Standing:
    """Errors: ApiRefused 404 for a page that is none."""
    if name not in PAGES:
        raise ApiRefused(404, "not_found", "There is no such thing here.")
    return Standing(visit, PAGES[name], program_id)


# --- the first page -------------------------------------------------------------------------------------------------


@router.get("/portal")
async def home(visit: ThePartner) -> Response:
    """The partner's one program, or the choice."""
    programs = await programs_of(visit)
    mine = entered(programs)
    if len(mine) == 1 and "choose" not in visit.request.query_params:
        return RedirectResponse(f"/portal/{mine[0].program_id}/start", 303)
    return await _choice(visit, programs)


async def _choice(visit: Visit, programs: list[dict[str, Any]], code: str = "", status: int = 200) -> Response:
    told = {each["program_id"]: terms.sentences(each["document"], visit.words) for each in programs}
    return visit.page("home.html", status, choice=programs, told=told, programs=entered(programs), code=code)


@router.post("/portal/activate")
async def activate(visit: ThePartner) -> Response:
    form = await visit.form()
    body = {"program_id": form["program_id"], "accepted_terms": form["accepted_terms"] == "yes"}
    try:
        await visit.api.post("/attribution/partners/{}/activations", visit.sub, body=body, key=form["key"])
    except ApiRefused as refused:
        if refused.status != 409:
            raise
        return await _choice(visit, await programs_of(visit), refused.code, 409)
    return go(f"/portal/{body['program_id']}/start", "activated")


# --- each page of a program -----------------------------------------------------------------------------------------
# The modules' own routes come before these two: see `services/portal/app.py`.

by_name = APIRouter()


@by_name.get("/portal/{program_id}/{name}")
async def page(visit: ThePartner, program_id: ProgramId, name: str) -> Response:
    return await standing(visit, name, program_id).shown()


@by_name.get("/portal/{program_id}/{name}/live")
async def live(visit: ThePartner, program_id: ProgramId, name: str) -> Response:
    return await standing(visit, name, program_id).followed()
