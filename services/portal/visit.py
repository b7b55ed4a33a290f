"""One request of a signed-in browser: who it is, the APIs with that user's token, and how pages are rendered for it."""

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from schemas.money import decimal_amount
from services.portal import charts
from services.portal.client import Api, ApiRefused
from services.portal.session import COOKIE, SESSION_SECONDS, Session, Sessions
from services.portal.words import LANGUAGES, Words, preferred

HERE = Path(__file__).parent
LANGUAGE_COOKIE = "refstream_language"
FORM_FIELDS = 500
_AMOUNT = re.compile(
    r"(?P<whole>\d{1,15}|\d{1,3}(,\d{3})+(?=\.)|\d{1,3}(\.\d{3})+(?=,))([.,](?P<rest>\d{1,4}))?", re.ASCII
)
"""Thousands may be parted where the decimals show which mark is which: `1,234` alone could mean either."""


class NotSignedIn(Exception):
    """The browser has no session, or one that is over."""


class FormRefused(Exception):
    """A form without the token of its session."""


@cache
def templates() -> Environment:
    """Every template; a name that a page forgot to give is an error, and what people wrote is text."""
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(charts=charts, languages=LANGUAGES, asset=asset)
    return found


@cache
def asset(name: str) -> str:
    """The address of a static file, another one for each content."""
    digest = hashlib.sha256((HERE / "static" / name).read_bytes()).hexdigest()[:12]
    return f"/portal/static/{name}?v={digest}"


def words_of(request: Request) -> Words:
    """The language that was chosen, else the browser's."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    return Words(chosen if chosen in LANGUAGES else preferred(request.headers.get("accept-language", "")))


def rendered(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """A page, or a part of one."""
    words = words_of(request)
    back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    standing = {"_": words, "path": request.url.path, "back": back, "session": None, "form_token": "", "menu": []}
    standing["has_provider"] = request.app.state.provider is not None
    html = templates().get_template(template).render(standing | context)
    return HTMLResponse(html, status)


@dataclass(frozen=True)
class Form:
    """What a browser sent with a POST; each field's last value."""

    fields: Mapping[str, str]
    lists: Mapping[str, list[str]]

    def __getitem__(self, name: str) -> str:
        """The field without spaces around it; empty where it is not there."""
        return self.fields.get(name, "").strip()

    def money(self, name: str, currency: str) -> dict[str, Any]:
        """An amount as people write it, `1 234,50` or `1,234.50`. Errors: ApiRefused 422."""
        digits = len(decimal_amount(0, currency).partition(".")[2])
        found = _AMOUNT.fullmatch(re.sub(r"[\s']", "", self[name]))
        if found is None or len(found["rest"] or "") > digits:
            raise ApiRefused(422, "amount_unreadable", "", ((name, ""),))
        whole = re.sub(r"\D", "", found["whole"])
        return {"minor": int(whole + (found["rest"] or "").ljust(digits, "0")), "currency": currency}

    def all(self, name: str) -> list[str]:
        return self.lists.get(name, [])


@dataclass(frozen=True)
class Visit:
    """A request of a signed-in browser."""

    request: Request
    session: Session
    sessions: Sessions
    api: Api
    words: Words

    @property
    def sub(self) -> str:
        return self.session.sub

    def today(self) -> date:
        """The UTC day, by the settings' clock."""
        now: datetime = self.request.app.state.now()
        return now.date()

    def days_until(self, moment: str) -> int:
        """Whole days from now to a time of the APIs, begun ones counted."""
        now: datetime = self.request.app.state.now()
        return -((now - datetime.fromisoformat(moment)) // timedelta(days=1))

    def page(self, template: str, status: int = 200, **context: Any) -> HTMLResponse:
        """A page of this user. `key` in it: for the form's command."""
        own = {"session": self.session, "form_token": self.sessions.form_token(self.session), "key": uuid.uuid4().hex}
        return rendered(self.request, template, status, **(own | context))

    def part(self, template: str, **context: Any) -> str:
        """A part of a page as HTML. It holds no form, so that it is the same as long as nothing happens."""
        return templates().get_template(template).render({"_": self.words} | context)

    async def form(self) -> Form:
        """The POST's form. Errors: FormRefused without its session's token; ApiRefused 422 for what is no form."""
        try:
            text = (await self.request.body()).decode()
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=FORM_FIELDS)
        except ValueError:
            raise ApiRefused(422, "invalid", "The form cannot be read.") from None
        lists: dict[str, list[str]] = {}
        for name, value in pairs:
            lists.setdefault(name, []).append(value)
        form = Form(dict(pairs), lists)
        if not self.sessions.is_own_form(self.session, form["form_token"]):
            raise FormRefused
        return form


def signed_in(request: Request, session: Session) -> Response:
    """To the session's first page, with its cookie."""
    response = RedirectResponse("/admin" if session.role == "admin" else "/portal", 303)
    response.set_cookie(
        COOKIE,
        request.app.state.sessions.write(session),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="lax",
        secure=request.app.state.is_secure,
    )
    return response


def seen(part: str) -> str:
    """What tells two renderings of a part apart."""
    return hashlib.sha256(part.encode()).hexdigest()[:16]


def go(path: str, done: str = "") -> Response:
    """After a POST: the page to look at, which says what was `done`."""
    return RedirectResponse(f"{path}?done={done}" if done else path, 303)


async def anybody(request: Request) -> Visit:
    """Errors: NotSignedIn."""
    sessions: Sessions = request.app.state.sessions
    session = sessions.read(request.cookies.get(COOKIE, ""))
    if session is None:
        raise NotSignedIn
    api = Api(request.app.state.http, lambda: sessions.api_token(session))
    return Visit(request, session, sessions, api, words_of(request))


async def partner(request: Request) -> Visit:
    """Errors: NotSignedIn; ApiRefused 404 for an administrator, who has a desk of their own."""
    visit = await anybody(request)
    if visit.session.role != "partner":
        raise ApiRefused(404, "not_found", "There is no such thing here.")
    return visit


async def admin(request: Request) -> Visit:
    """Errors: NotSignedIn; ApiRefused 404 for a partner."""
    visit = await anybody(request)
    if visit.session.role != "admin":
        raise ApiRefused(404, "not_found", "There is no such thing here.")
    return visit


Anybody = Annotated[Visit, Depends(anybody)]
ThePartner = Annotated[Visit, Depends(partner)]
TheAdmin = Annotated[Visit, Depends(admin)]
