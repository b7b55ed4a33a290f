"""The administrator's desk over the real APIs in memory."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.programs import shipped
from schemas.programs.terms import Program
from services.portal.desk.pages import MENU
from services.portal.partner import ORDER
from tests.four_apis import FOREIGN, OWN
from tests.portal.in_memory import Browser, Pages
from tests.portal.in_memory import pages as in_memory


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    with in_memory() as opened:
        yield opened


@pytest.fixture
def desk(pages: Pages) -> Browser:
    return pages.browser("admin", "admin")


def _sent(page: str) -> dict[str, str]:
    """What a browser sends of the big form of a program's page, unchanged."""
    form = re.search(r'<form method="post" action="[^"]*/difference">(.*?)</form>', page, re.DOTALL)
    assert form is not None
    sent: dict[str, str] = {}
    for tag in re.findall(r"<input[^>]*>", form[1]):
        name, value = (re.search(rf' {each}="([^"]*)"', tag) for each in ("name", "value"))
        if name and ('type="checkbox"' not in tag or " checked" in tag):
            sent[name[1]] = value[1] if value else ""
    for name, options in re.findall(r'<select[^>]* name="([^"]*)"[^>]*>(.*?)</select>', form[1], re.DOTALL):
        chosen = re.search(r"<option selected>([^<]*)", options)
        sent[name] = chosen[1] if chosen else ""
    sent |= dict(re.findall(r'<textarea[^>]* name="([^"]*)"[^>]*>([^<]*)</textarea>', form[1]))
    return {name: html.unescape(value) for name, value in sent.items()}


@pytest.mark.parametrize("language", ["en", "uk"])
@pytest.mark.parametrize(
    "path",
    ["", "/queues", "/programs", "/programs/keycrm", "/programs/keycrm?version=1", "/partners", f"/partners/{OWN}",
     "/purchases", "/purchases?program_id=proxy-credits&outcome=credited", f"/payments/{OWN}-payment",
     f"/customers/{OWN}-client", f"/search?q={OWN}", "/search?q=nothing", "/health", "/dead-letters"],
)  # fmt: skip
def test_every_page_is_shown(pages: Pages, path: str, language: str) -> None:
    shown = pages.browser("admin", "admin", language).get(f"/admin{path}")
    assert shown.status_code == 200
    assert shown.text.count("<h1>") == 1


@pytest.mark.parametrize("program", shipped(), ids=lambda program: program.program_id)
def test_a_form_that_nobody_changed_says_the_same_document(desk: Browser, program: Program) -> None:
    document = desk.get(f"/admin/programs/{program.program_id}")
    shown = desk.http.post(f"/admin/programs/{program.program_id}/difference", data=_sent(document.text))
    assert "Nothing changes." in shown.text, re.findall(r"<code>[^<]*</code>.*", shown.text)


def test_a_changed_rate_is_compared_and_then_published_once(desk: Browser, pages: Pages) -> None:
    at = "/admin/programs/keycrm"
    before = pages.apis.call("GET", "/attribution/programs/keycrm", "admin").json()
    sent = _sent(desk.get(at).text) | {"terms.0.tiers.1.rate": "0.22", "terms.0.tiers.3.from_clients": "40"}
    sent |= {"terms.0.tiers.3.rate": "0.40", "terms.0.tiers.2.removed": "yes"}
    shown = desk.http.post(f"{at}/difference", data=sent)
    rows = re.findall(r'<tr><th scope="row">.*?</tr>', shown.text)
    told = [re.sub(r"<[^>]*>", " ", row).split() for row in rows]
    assert [row[1:] for row in told] == [["0.20", "0.22"], ["–", "0.40"], ["0.30", "–"]]
    asked = dict(re.findall(r'name="(form_token|key|version|document)" value="([^"]*)"', shown.text))
    publishing = {name: html.unescape(value) for name, value in asked.items()}
    assert desk.http.post(f"{at}/publish", data=publishing).status_code == 200
    after = pages.apis.call("GET", "/attribution/programs/keycrm", "admin").json()
    assert after["version"] == before["version"] + 1
    assert [tier["rate"] for tier in after["terms"][0]["tiers"]] == ["0.10", "0.22", "0.40"]
    again = desk.http.post(f"{at}/publish", data=publishing)
    assert again.status_code == 409
    assert pages.apis.call("GET", "/attribution/programs/keycrm", "admin").json() == after


def test_what_a_document_may_not_say_is_refused_with_its_field_and_stays_in_the_form(desk: Browser) -> None:
    sent = _sent(desk.get("/admin/programs/jupsoft").text) | {"terms.0.tiers.0.rate": "a lot", "timezone": "Nowhere"}
    shown = desk.http.post("/admin/programs/jupsoft/difference", data=sent)
    assert shown.status_code == 422
    assert "terms.0.tiers.0.rate" in shown.text
    assert 'value="Nowhere"' in shown.text


def test_a_program_is_switched_off_and_on(desk: Browser, pages: Pages) -> None:
    for wished in (False, True):
        shown = desk.post("/admin/programs/proxy-credits/switch", enabled=str(wished).lower())
        assert shown.status_code == 200
        document = pages.apis.call("GET", "/attribution/programs/proxy-credits", "admin").json()
        assert document["enabled"] is wished


def test_queues_are_worked_off(desk: Browser, pages: Pages) -> None:
    ids = pages.ids[OWN]
    page = "/admin/queues"
    for name in ("withdrawal_id", "deposit_id", "claim_id", "retention_id"):
        assert ids[name] in desk.get(page).text, name
    csv = desk.get("/admin/queues/withdrawals.csv").text
    assert "UA903052992990004149" in csv  # the bank needs all of it
    assert "UA903052992990004149" not in desk.get(page).text
    assert desk.post("/admin/queues/withdrawals/pay", page, withdrawal_id=ids["withdrawal_id"]).status_code == 200
    assert desk.post(f"/admin/queues/deposits/{ids['deposit_id']}/confirm", page).status_code == 200
    assert desk.post(f"/admin/queues/claims/{ids['claim_id']}", page, status="failed").status_code == 200
    assert desk.post(f"/admin/queues/retention/{ids['retention_id']}/approve", page).status_code == 200
    for name in ("withdrawal_id", "deposit_id", "claim_id", "retention_id"):
        assert ids[name] not in desk.get(page).text, name
    again = desk.post(f"/admin/queues/deposits/{ids['deposit_id']}/confirm", page)
    assert again.status_code == 409
    other = pages.ids[FOREIGN]["withdrawal_id"]
    rejected = desk.post(f"/admin/queues/withdrawals/{other}/reject", page, reason="no such bank")
    assert rejected.status_code == 200
    assert other not in desk.get(page).text


def test_several_withdrawals_are_paid_at_once_and_one_that_was_settled_stops_none(pages: Pages, desk: Browser) -> None:
    usd = {"minor": 100, "currency": "USD"}
    asked = {"program_id": "keycrm", "amount": usd, "destination": "UA903052992990004149"}
    path = f"/payouts/partners/{OWN}/withdrawals"
    first, settled, last = (
        pages.apis.call("POST", path, "partner", OWN, json=asked).json()["withdrawal_id"] for _ in range(3)
    )
    assert desk.post("/admin/queues/withdrawals/pay", "/admin/queues", withdrawal_id=settled).status_code == 200
    answer = desk.post("/admin/queues/withdrawals/pay", "/admin/queues", withdrawal_id=[first, settled, last])
    assert answer.status_code == 409
    assert "It was settled already" in answer.text
    found = [pages.apis.call("GET", f"/payouts/withdrawals/{each}", "admin").json() for each in (first, last)]
    assert [each["status"] for each in found] == ["paid", "paid"]


def test_docs_have_a_picture_of_every_page() -> None:
    docs = Path(__file__).parents[2] / "docs"
    shown = set(re.findall(r"\(pictures/([\w-]+)\.png\)", (docs / "pages.md").read_text()))
    assert shown == {path.stem for path in (docs / "pictures").iterdir()}
    assert shown >= {*ORDER, *(MENU.keys() - {""}), "desk", "program", "why"}


def test_search_finds_whatever_an_id_names(desk: Browser, pages: Pages) -> None:
    own = pages.ids[OWN]
    names = ("code", "withdrawal_id", "deposit_id", "claim_id", "retention_id")
    for asked, found in (
        *((own[name], f"/admin/partners/{OWN}") for name in names),
        (OWN, f"/admin/partners/{OWN}"),
        (f"{OWN}-client", f"/admin/customers/{OWN}-client"),
        (f"{OWN}-payment", f"/admin/payments/{OWN}-payment"),
        ("keycrm", "/admin/programs/keycrm"),
    ):
        assert f'href="{found}"' in desk.get(f"/admin/search?q={asked}").text


def test_a_partner_has_no_desk_and_an_administrator_no_portal(pages: Pages, desk: Browser) -> None:
    assert pages.browser(OWN).get("/admin/queues").status_code == 404
    assert desk.get("/portal").status_code == 404
