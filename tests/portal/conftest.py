"""A real Chromium before a running refstream with a small demo's data.

`REFSTREAM_DEMO_DATA_DIR`: of a stack that runs already, with a demo's data; nothing is started or stopped then.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from schemas.events import parse_event
from schemas.ids import partition_of
from schemas.moments import format_instant, micros
from schemas.topics import TOPIC_OF
from services.cli.state import read_state
from services.cli.token import Role, sign_in_link
from services.runtime.settings import Settings

CHROMIUM = os.environ.get("REFSTREAM_CHROMIUM") or shutil.which("chromium")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    "--host-resolver-rules=MAP *.example.com 127.0.0.1:1",  # the shops that links lead to are not there
    *("--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-dev-shm-usage"),
]
AXE = (Path(__file__).parent / "axe.min.js").read_text(encoding="utf-8")
PATIENCE_MS = 30_000
SMALL_DEMO = ("demo", "--customers", "100", "--seed", "4")


@dataclass(frozen=True)
class Played:
    """A running refstream in which the demo was played. `run`: what the demo's ids begin with; `logs`: of all of it."""

    url: str
    run: str
    logs: Path
    settings: Settings
    producer: Producer

    def refstream(self, *arguments: str) -> str:
        """What a command of the operator says."""
        environment = {**os.environ, "REFSTREAM_DATA_DIR": str(self.logs.parent)}
        command = [sys.executable, "-m", "services.cli.main", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True).stdout

    def publish(self, kind: str, **data: Any) -> None:
        """An event of the platform that happens now; returns when it is on Kafka."""
        told = {"specversion": "1.0", "id": os.urandom(8).hex(), "source": "/test", "type": kind, "data": data}
        told["time"] = data.pop("time", None) or format_instant(micros(self.settings.now()))
        event = parse_event(json.dumps(told).encode())
        topic = TOPIC_OF[type(event.data)]
        key = topic.key(event.data)
        self.producer.produce(
            topic.name, json.dumps(told).encode(), key.encode(), partition_of(key, self.settings.partitions)
        )
        self.producer.flush(10)

    def person(self, customer_id: str, name: str = "", **more: Any) -> str:
        """A customer of the platform with an account: its id."""
        self.publish("customer.signed_up", customer_id=customer_id, **({"name": name} if name else {}), **more)
        self.publish("account.created", customer_id=customer_id, account_id=f"{customer_id}-a1", name="Own account")
        return customer_id


def _playing(environment: dict[str, str]) -> str:
    """Play the demo; answers what its ids begin with."""
    command = [sys.executable, "-m", "services.cli.main", *SMALL_DEMO]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"refstream explain (\w+)\.", done.stdout)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: install the system's (`apt-get install chromium`) or name one in REFSTREAM_CHROMIUM")
    given = os.environ.get("REFSTREAM_DEMO_DATA_DIR")
    folder = Path(given) if given else tmp_path_factory.mktemp("portal")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REFSTREAM_")}
    environment |= {"REFSTREAM_DATA_DIR": str(folder), "REFSTREAM_PORT": "0"}
    try:
        run = next((folder / "demo").glob("*-partners.jsonl")).name.split("-")[0] if given else _playing(environment)
        state = read_state(folder)
        assert state is not None and state.url is not None
        told = {name: getattr(state, name) for name in ("kafka", "redis", "port", "partitions", "auth_secret")}
        settings = Settings.model_validate({**told, "public_url": state.url, "local": True})
        yield Played(
            state.url, run, folder / "logs", settings, Producer({"bootstrap.servers": state.kafka, "acks": "all"})
        )
    finally:
        if not given:
            down = [sys.executable, "-m", "services.cli.main", "down"]
            subprocess.run(down, env=environment, capture_output=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def chromium(played: Played) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Visitor:
    """A browser of one person. `faults`: console errors and requests that wanted to leave the machine."""

    context: BrowserContext
    page: Page
    played: Played
    faults: list[str] = field(default_factory=list)
    is_shopping: bool = False

    def look(self, path: str) -> Page:
        self.page.goto(self.played.url + path)
        return self.page

    def follow(self, link: str) -> str:
        """Go where a partner's link leads, to a shop that is not there: the click's cookie."""
        self.is_shopping = True
        with suppress(PlaywrightError):
            self.page.goto(link)
        return next(each["value"] for each in self.context.cookies(self.played.url) if each["name"] == "ref")

    def violations(self) -> list[str]:
        """What axe-core finds on the page as it is."""
        self.page.evaluate(AXE)
        found = self.page.evaluate("async () => (await axe.run(document)).violations")
        return [f"{each['id']}: {[node['html'][:200] for node in each['nodes']]}" for each in found]


class Visitors:
    """Browsers, each with cookies of its own."""

    def __init__(self, chromium: Browser, played: Played) -> None:
        self._chromium, self._played = chromium, played
        self.opened: list[Visitor] = []

    def somebody(self, **context: Any) -> Visitor:
        """A browser that nobody has signed in to. The shop that links lead to is answered here."""
        opened = self._chromium.new_context(
            **({"locale": "en-GB", "viewport": {"width": 1280, "height": 900}} | context)
        )
        opened.set_default_timeout(PATIENCE_MS)
        visitor = Visitor(opened, opened.new_page(), self._played)
        opened.on("request", lambda request: self._note(visitor, request.url))
        opened.on("console", lambda said: self._hear(visitor, said))
        opened.on("weberror", lambda error: visitor.faults.append(str(error.error)))
        self.opened.append(visitor)
        return visitor

    def _note(self, visitor: Visitor, url: str) -> None:
        if not url.startswith((self._played.url, "data:")) and not visitor.is_shopping:
            visitor.faults.append(url)

    def _hear(self, visitor: Visitor, said: ConsoleMessage) -> None:
        if said.type == "error" and not visitor.is_shopping:
            visitor.faults.append(f"{said.text} {said.location}")

    def partner(self, sub: str, **context: Any) -> Visitor:
        return self._signed_in(Role.partner, sub, **context)

    def admin(self, **context: Any) -> Visitor:
        return self._signed_in(Role.admin, "admin", **context)

    def _signed_in(self, role: Role, sub: str, **context: Any) -> Visitor:
        visitor = self.somebody(**context)
        visitor.page.goto(sign_in_link(self._played.settings, role, sub))
        return visitor


@pytest.fixture
def visitors(chromium: Browser, played: Played) -> Iterator[Visitors]:
    """Afterwards nobody's console may hold an error, and no request may have left the machine."""
    opened = Visitors(chromium, played)
    yield opened
    faults = [fault for visitor in opened.opened for fault in visitor.faults]
    for visitor in opened.opened:
        visitor.context.close()
    assert faults == []
