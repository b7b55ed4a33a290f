"""Asking the APIs, as the signed-in user."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import httpx

log = logging.getLogger(__name__)

DECIDED_SECONDS = 10.0
PAUSE_SECONDS = 0.2
TRIES, AGAIN_SECONDS = 3, 0.5
"""An API that is being rebuilt, or whose Redis is slow, answers 503 and is asked again: nothing happens twice, since a
command keeps its key. A PUT has none."""
PAGE = 100


class ApiRefused(Exception):
    """An answer that is a problem. `code` is the API's; `errors`: (field, message) of each field at fault."""

    def __init__(self, status: int, code: str, detail: str, errors: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(code)
        self.status, self.code, self.detail, self.errors = status, code, detail, errors


class Api:
    """The four APIs as one user. Paths hold `{}` where an id goes; every method raises ApiRefused.

    `token`: makes one, for each request anew, since an open page outlives any token.
    """

    def __init__(self, http: httpx.AsyncClient, token: Callable[[], str]) -> None:
        self._http, self._token = http, token

    async def get(self, path: str, *ids: str, **query: Any) -> dict[str, Any]:
        return _content(await self._ask("GET", _path(path, ids), query))

    async def csv(self, path: str, *ids: str, **query: Any) -> bytes:
        """What an API gives as CSV."""
        answer = await self._ask("GET", _path(path, ids), query, headers={"Accept": "text/csv"})
        _content(answer, as_json=False)
        return answer.content

    async def every(self, path: str, *ids: str, **query: Any) -> AsyncIterator[dict[str, Any]]:
        """All items of a list, page after page."""
        cursor: str | None = None
        while True:
            page = await self.get(path, *ids, **query, limit=PAGE, cursor=cursor)
            for item in page["items"]:
                yield item
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def post(self, path: str, *ids: str, body: dict[str, Any] | None = None, key: str = "") -> dict[str, Any]:
        """What was decided on a command. `key`: of the form, so that a form sent twice is one command."""
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return await self._decision(await self._ask("POST", _path(path, ids), {}, body or {}, headers))

    async def put(self, path: str, *ids: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._decision(await self._ask("PUT", _path(path, ids), {}, body))

    async def _decision(self, answer: httpx.Response) -> dict[str, Any]:
        """The decision, asked for again while it is not there. Errors: ApiRefused `pending` after ten seconds."""
        deadline = time.monotonic() + DECIDED_SECONDS
        location = answer.headers.get("Location", "")
        while answer.status_code == httpx.codes.ACCEPTED:
            if time.monotonic() > deadline:
                raise ApiRefused(202, "pending", "It will be decided soon; look again in a minute.")
            await asyncio.sleep(PAUSE_SECONDS)
            answer = await self._ask("GET", location, {})
        return _content(answer)

    async def _ask(
        self,
        method: str,
        path: str,
        query: dict[str, Any],
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        sent = {"Authorization": f"Bearer {self._token()}", **(headers or {})}
        given = {name.rstrip("_"): value for name, value in query.items() if value not in (None, "")}
        tries = 1 if method == "PUT" else TRIES
        for number in range(1, tries + 1):
            try:
                answer = await self._http.request(method, path, params=given, json=body, headers=sent)
            except httpx.HTTPError as error:
                log.warning("api out of reach", extra={"error": type(error).__name__})
                if number == tries:
                    raise ApiRefused(503, "unavailable", "The service does not answer; try again soon.") from error
            else:
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or number == tries:
                    return answer
            await asyncio.sleep(AGAIN_SECONDS)
        raise AssertionError("the last try returns or raises")


def _path(path: str, ids: tuple[str, ...]) -> str:
    """Errors: ApiRefused 404 for an id that a client would take for a step up."""
    if any(each in (".", "..") for each in ids):
        raise ApiRefused(404, "not_found", "There is no such thing here.")
    return path.format(*(quote(each, safe="") for each in ids))


def _content(answer: httpx.Response, *, as_json: bool = True) -> dict[str, Any]:
    """The body of a success. Errors: ApiRefused."""
    if answer.is_success:
        content: dict[str, Any] = answer.json() if as_json else {}
        return content
    try:
        problem = answer.json()
        errors = tuple((each["field"], each["message"]) for each in problem.get("errors") or ())
        raise ApiRefused(answer.status_code, problem["code"], problem.get("detail", ""), errors)
    except (ValueError, KeyError, TypeError):
        raise ApiRefused(502, "unavailable", "The service gave an answer that cannot be read.") from None
