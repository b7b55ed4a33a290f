"""What the desk's pages have in common."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response

from services.portal import pages
from services.portal.visit import Form, Visit, go

MENU = {
    "": "Desk",
    "queues": "Queues",
    "programs": "Programs",
    "partners": "Partners",
    "purchases": "Purchases",
    "dead-letters": "Dead letters",
    "health": "Health",
}
"""Every page by the end of its address, in the order of the menu."""

Load = Callable[[], Awaitable[dict[str, Any]]]


async def with_menu(load: Load, name: str) -> dict[str, Any]:
    return {"desk_menu": MENU, "here": name} | await load()


class DeskPage:
    """One page of the desk: its place in the menu, its template, what it loads, and its address."""

    def __init__(self, visit: Visit, name: str, template: str, load: Load, address: str = "") -> None:
        self._visit, self._name, self._template, self._load = visit, name, template, load
        self._address = address or f"/admin/{name}"

    async def load(self) -> dict[str, Any]:
        return {"address": self._address} | await with_menu(self._load, self._name)

    async def shown(self) -> Response:
        return await pages.shown(self._visit, self._template, self.load)

    async def followed(self, look_seconds: float = pages.LOOK_SECONDS) -> Response:
        return await pages.followed(self._visit, self._template, self.load, look_seconds)

    async def tried(self, act: Callable[[Form], Awaitable[Any]], done: str) -> Response:
        """A form of the page. Errors: FormRefused."""
        form = await self._visit.form()

        async def acted() -> Response:
            await act(form)
            return go(self._address, done)

        return await self.tried_with(form, acted)

    async def tried_with(self, form: Form, act: Callable[[], Awaitable[Response]]) -> Response:
        """A form that was read already, and what answers it."""
        return await pages.tried(self._visit, self._template, self.load, act, form)
