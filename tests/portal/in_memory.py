"""The pages over the four real APIs in memory: every page and form without Kafka, Redis or a browser."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi.testclient import TestClient
from httpx import Response
from starlette.types import Receive, Scope, Send

from services.portal.app import create_app
from services.portal.session import signed_link
from tests.four_apis import FourApis, four_apis, with_partners
from tests.http_fakes import settings


@dataclass
class Browser:
    """A browser that is signed in. Redirects are followed."""

    http: TestClient

    def get(self, path: str, **more: Any) -> Response:
        return self.http.get(path, **more)

    def post(self, path: str, page: str = "", **fields: Any) -> Response:
        """A form, with the tokens of a page that was just looked at."""
        shown = self.get(page or path.rsplit("/", 1)[0]).text
        hidden = dict(re.findall(r'name="(form_token|key)" value="([^"]*)"', shown))
        return self.http.post(path, data={**hidden, **fields})


@dataclass
class Pages:
    """`ids`: what the two partners have, see `with_partners`."""

    apis: FourApis
    ids: dict[str, dict[str, str]]
    app: Any

    def browser(self, sub: str, role: str = "partner", language: str = "en") -> Browser:
        http = TestClient(self.app, headers={"accept-language": language}, raise_server_exceptions=True)
        link = signed_link(settings(), "http://testserver", role, sub)
        assert http.get(link).status_code == 200
        return Browser(http)


@contextmanager
def pages() -> Iterator[Pages]:
    """Both partners of `four_apis` have a past."""
    with four_apis() as apis:
        by_service = {name: client.app for name, client in apis.clients.items()}

        async def edge(scope: Scope, receive: Receive, send: Send) -> None:
            await by_service[scope["path"].split("/")[1]](scope, receive, send)

        app = create_app(settings(), httpx.ASGITransport(edge))  # type: ignore[arg-type]
        with TestClient(app):
            yield Pages(apis, with_partners(apis), app)
