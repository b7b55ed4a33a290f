"""What the platform, its partners and their visitors do over HTTP, several at once."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar

import httpx

from schemas.moments import format_instant, micros
from services.cli.demo.data import HOUR, Click, Partner, Visitor
from services.cli.token import Role, signed
from services.runtime.settings import Settings

AT_ONCE = 16
DECIDED_SECONDS = 60.0
PAUSE_SECONDS = 0.005  # between two clicks of a visitor: the cookie tells milliseconds apart
CURRENCY, COOKIE = "USD", "ref"
BROWSER = {
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
}

Given = TypeVar("Given")
Got = TypeVar("Got")


class DemoFailed(Exception):
    """An answer that the demo cannot go on with. The message says which request, and what came back."""


@dataclass(frozen=True, slots=True)
class Visited:
    """A visitor's clicks as they happened, and the cookie's value that the browser holds after them."""

    visitor: Visitor
    clicks: tuple[Click, ...]
    cookie: str


class Platform:
    """Speaks to the API. Use it as an async context manager; every method raises DemoFailed for a surprise."""

    def __init__(self, url: str, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url, self._settings = url, settings
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        # Each visitor has a browser of its own: the client they share keeps no cookie.
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        self._http = httpx.AsyncClient(base_url=url, timeout=30, limits=limits, cookies=no_cookies, transport=transport)
        self._admin, self._platform = (signed(settings, role, role.value) for role in (Role.admin, Role.platform))

    async def __aenter__(self) -> "Platform":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    # --- partners -------------------------------------------------------------------------------------------------

    async def activate(self, partner: Partner) -> str:
        """Make somebody a partner, as an import from the past, and have the partner create a link: its code."""
        body = {
            "partner_id": partner.partner_id,
            "program_id": partner.program_id,
            "accepted_terms": True,
            "name": partner.name,
            "email": partner.email,
            "activated_at": format_instant(partner.joined_at + HOUR),
        }
        await self._post("/attribution/partners", self._platform, body)
        link = await self._post(
            f"/attribution/partners/{partner.partner_id}/links",
            self._token_of(partner.partner_id),
            {"program_id": partner.program_id},
        )
        return str(link["code"])

    # --- visitors -------------------------------------------------------------------------------------------------

    async def visit(self, visitor: Visitor, codes: Mapping[str, str]) -> Visited:
        """Click the links, as one browser does: the cookie that one answer sets goes with the next click."""
        clicks: list[Click] = []
        cookie = ""
        for partner_id in visitor.partner_ids:
            if clicks:
                await asyncio.sleep(PAUSE_SECONDS)
            headers = BROWSER | ({"Cookie": f"{COOKIE}={cookie}"} if cookie else {})
            answer = await self._ask("GET", f"/attribution/r/{codes[partner_id]}", headers)
            cookie = answer.cookies.get(COOKIE) or ""
            if answer.status_code != httpx.codes.FOUND or not cookie:
                raise DemoFailed(f"a click through {answer.request.url} was answered {answer.status_code}, not 302")
            clicks.append(Click(partner_id, micros(self._settings.now())))
        return Visited(visitor, tuple(clicks), cookie)

    # --- money ----------------------------------------------------------------------------------------------------

    async def balance(self, partner: Partner, currency: str = CURRENCY) -> dict[str, int]:
        """A partner's balance in minor units; empty where nothing happened."""
        answer = await self._get(f"/payouts/partners/{partner.partner_id}/balance", self._token_of(partner.partner_id))
        own = [each for each in answer["balances"] if each["program_id"] == partner.program_id]
        if [each["currency"] for each in own] not in ([], [currency]):
            raise DemoFailed(f"{partner.partner_id} has a balance in a currency that nobody paid in")
        return {name: value["minor"] for each in own for name, value in each.items() if isinstance(value, dict)}

    async def paying_clients(self, partner: Partner) -> int:
        path = f"/commission/partners/{partner.partner_id}/tier?program_id={partner.program_id}"
        return int((await self._get(path, self._token_of(partner.partner_id)))["paying_clients"])

    async def withdraw(self, partner: Partner, minor: int) -> str:
        """The partner asks for money, and an admin pays it: the withdrawal's id."""
        body = _amount(partner, minor) | {"destination": "DEMO-0000-0001", "comment": "demo"}
        path = f"/payouts/partners/{partner.partner_id}/withdrawals"
        asked = await self._post(path, self._token_of(partner.partner_id), body)
        await self._post(f"/payouts/withdrawals/{asked['withdrawal_id']}/pay", self._admin, {})
        return str(asked["withdrawal_id"])

    async def refused_withdrawal(self, partner: Partner, minor: int) -> str:
        """The partner asks for an amount that the program refuses: the refusal's code."""
        body = _amount(partner, minor) | {"destination": "DEMO-0000-0001"}
        path = f"/payouts/partners/{partner.partner_id}/withdrawals"
        answer = await self._send(path, self._token_of(partner.partner_id), body)
        return str(answer.json().get("code", f"answered {answer.status_code}"))

    async def top_up(self, partner: Partner, minor: int) -> tuple[str, int]:
        """The partner uses bonus money for the account of its own: the top-up's id, and what it is worth there."""
        body = _amount(partner, minor) | {"account_id": partner.account_id}
        path = f"/payouts/partners/{partner.partner_id}/topups"
        answer = await self._post(path, self._token_of(partner.partner_id), body)
        return str(answer["topup_id"]), int(answer["credited"]["minor"])

    # --- anything else ---------------------------------------------------------------------------------------------

    async def read(self, path: str, who: Partner | Role) -> dict[str, Any]:
        return await self._get(path, self._token(who))

    async def tell(self, path: str, body: dict[str, Any], who: Partner | Role, method: str = "POST") -> dict[str, Any]:
        """Something that is done: the answer."""
        return _body(await self._send(path, self._token(who), body, method))

    async def try_to(self, path: str, body: dict[str, Any], who: Partner | Role) -> dict[str, Any]:
        """Something that may be refused: the answer, or a refusal with its `code`."""
        answer = await self._send(path, self._token(who), body)
        if answer.status_code == httpx.codes.CONFLICT:
            refusal: dict[str, Any] = answer.json()
            return refusal
        return _body(answer)

    # --- HTTP -----------------------------------------------------------------------------------------------------

    def _token(self, who: Partner | Role) -> str:
        match who:
            case Partner():
                return self._token_of(who.partner_id)
            case Role():
                return signed(self._settings, who, who.value)

    def _token_of(self, partner_id: str) -> str:
        return signed(self._settings, Role.partner, partner_id)

    async def _get(self, path: str, token: str) -> dict[str, Any]:
        return _body(await self._ask("GET", path, {"Authorization": f"Bearer {token}"}))

    async def _post(self, path: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
        return _body(await self._send(path, token, body))

    async def _send(self, path: str, token: str, body: dict[str, Any], method: str = "POST") -> httpx.Response:
        """The decision on a POST or PUT: asked for again under its Location while it is not there."""
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": uuid.uuid4().hex}
        answer = await self._ask(method, path, headers, body)
        deadline = time.monotonic() + DECIDED_SECONDS
        location = answer.headers.get("Location", "")
        while answer.status_code == httpx.codes.ACCEPTED and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            answer = await self._ask("GET", location, {"Authorization": f"Bearer {token}"})
        return answer

    async def _ask(
        self, method: str, path: str, headers: dict[str, str], body: dict[str, Any] | None = None
    ) -> httpx.Response:
        """An answer; asked for again while a service is out of reach or rebuilds. A command's key makes that safe."""
        deadline = time.monotonic() + DECIDED_SECONDS
        while True:
            try:
                answer = await self._http.request(method, path, headers=headers, json=body)
            except httpx.HTTPError as error:
                raise DemoFailed(f"{method} {self._url}{path}: {type(error).__name__} {error}") from None
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                return answer
            await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))


async def several(do: Callable[[Given], Awaitable[Got]], each: Iterable[Given], done: Callable[[], None]) -> list[Got]:
    """Do it for each, AT_ONCE at a time; the results in order. `done` is called after every one."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(given: Given) -> Got:
        async with free:
            got = await do(given)
        done()
        return got

    return await asyncio.gather(*(one(given) for given in each))


def _amount(partner: Partner, minor: int) -> dict[str, Any]:
    return {"program_id": partner.program_id, "amount": {"minor": minor, "currency": CURRENCY}}


def _body(answer: httpx.Response) -> dict[str, Any]:
    if not answer.is_success or answer.status_code == httpx.codes.ACCEPTED:
        what = answer.text[:300] if answer.status_code != httpx.codes.ACCEPTED else "not decided in time"
        raise DemoFailed(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {what}")
    body: dict[str, Any] = answer.json()
    return body
