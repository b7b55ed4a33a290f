"""Who gets in: links, sessions, forms, and what no page forgets."""

import re
import time
from collections.abc import Iterator

import jwt
import pytest
from fastapi.testclient import TestClient

from services.cli.edge import edge
from services.portal.app import HEADERS, create_app, never
from services.portal.session import COOKIE, LINK_SECONDS, Sessions, link_audience
from services.runtime.settings import Settings, SettingsRefused
from services.runtime.tokens import signed_token
from tests.four_apis import ABSENT, FOREIGN, OWN
from tests.http_fakes import SECRET, settings
from tests.portal.in_memory import Pages
from tests.portal.in_memory import pages as in_memory


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    with in_memory() as opened:
        yield opened


def _link(**claims: object) -> str:
    usual = {"iss": "refstream", "aud": "refstream-pages", "sub": OWN, "role": "partner", "exp": int(time.time()) + 60}
    return jwt.encode({**usual, **claims}, SECRET, algorithm="HS256")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        _link(aud="refstream"),
        _link(iss="somebody"),
        _link(exp=int(time.time()) - 1),
        _link(exp=int(time.time()) + LINK_SECONDS + 86_400),
        _link(exp="soon"),
        _link(role="platform"),
        _link(role=["partner"]),
        _link(sub=""),
        jwt.encode({"aud": "refstream-pages", "sub": OWN, "role": "admin"}, "another-secret-" * 3, algorithm="HS256"),
        jwt.encode({"aud": "refstream-pages", "sub": OWN, "role": "admin", "exp": 9e9}, "", algorithm="none"),
    ],
)
def test_a_link_that_is_none_signs_nobody_in(pages: Pages, token: str) -> None:
    stranger = TestClient(pages.app)
    assert stranger.get("/portal/enter", params={"token": token}).status_code == 401
    assert stranger.get("/portal").status_code == 401
    assert COOKIE not in stranger.cookies


def test_a_link_is_no_token_of_the_apis_and_their_tokens_are_no_links(pages: Pages) -> None:
    own = settings()
    link = signed_token(own, "partner", OWN, 60, link_audience(own))
    balance = f"/payouts/partners/{OWN}/balance"
    assert pages.apis.clients["payouts"].get(balance, headers={"authorization": f"Bearer {link}"}).status_code == 401
    token = signed_token(own, "partner", OWN, 60)
    assert TestClient(pages.app).get("/portal/enter", params={"token": token}).status_code == 401


def test_a_session_is_out_of_scripts_reach_and_over_after_a_working_day(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = TestClient(pages.app).get("/portal/enter", params={"token": _link()}, follow_redirects=False)
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(answer.headers["set-cookie"].split("; "))
    cookie = answer.cookies[COOKIE]
    sessions = Sessions(settings())
    assert sessions.read(cookie) is not None
    # Not the last character: some of its bits are padding, which a reader may ignore.
    assert sessions.read(cookie[:-2] + ("A" if cookie[-2] != "A" else "B") + cookie[-1]) is None
    later = time.time() + 13 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert sessions.read(cookie) is None


def test_the_cookie_is_secure_where_the_address_is() -> None:
    app = create_app(settings(public_url="https://pages.example.com"))
    answer = TestClient(app).get("/portal/enter", params={"token": _link()}, follow_redirects=False)
    assert "Secure" in answer.headers["set-cookie"]


def test_signing_out_ends_the_session(pages: Pages) -> None:
    browser = pages.browser(OWN)
    assert browser.post("/portal/leave", "/portal/keycrm/start").status_code == 401
    assert browser.get("/portal/keycrm/start").status_code == 401


FORMS = [
    "/portal/activate", "/portal/leave", "/portal/keycrm/start/links", "/portal/keycrm/start/promo-codes",
    "/portal/keycrm/payouts/withdrawals", "/portal/keycrm/payouts/withdrawals/w-1/cancel",
    "/portal/keycrm/payouts/topups", "/portal/proxy-credits/store/claims", "/portal/active-referrals/companies/order",
    "/portal/message-help/clients/deposits", "/portal/message-help/clients/payments",
    "/portal/message-help/clients/retention", "/portal/message-help/clients/deposits/d-1/test-card",
]  # fmt: skip
DESK_FORMS = [
    "/admin/queues/withdrawals/pay", "/admin/queues/withdrawals/w-1/reject", "/admin/queues/deposits/d-1/confirm",
    "/admin/queues/claims/c-1", "/admin/queues/retention/c-1/approve", "/admin/queues/retention/c-1/reject",
    "/admin/programs/keycrm/switch", "/admin/programs/keycrm/difference", "/admin/programs/keycrm/publish",
    "/admin/dead-letters/replay",
]  # fmt: skip


def test_every_form_is_in_the_lists(pages: Pages) -> None:
    """A form that comes later must not come without its token."""
    of_one = r"/(keycrm|proxy-credits|active-referrals|message-help|[wdc]-1)"
    known = {re.sub(of_one, "/{}", each) for each in (*FORMS, *DESK_FORMS)}
    paths = pages.app.openapi()["paths"].items()
    assert {re.sub(r"\{[^}]*\}", "{}", path) for path, methods in paths if "post" in methods} == known


@pytest.mark.parametrize("form_token", [None, "", "wrong", "another session's"])
@pytest.mark.parametrize(
    ("role", "path"), [*(("partner", each) for each in FORMS), *(("admin", each) for each in DESK_FORMS)]
)
def test_a_form_without_the_token_of_its_session_does_nothing(
    pages: Pages, role: str, path: str, form_token: str | None
) -> None:
    before = pages.apis.written
    browser = pages.browser(OWN if role == "partner" else "admin", role)
    if form_token == "another session's":
        start = "/portal/keycrm/start" if role == "partner" else "/admin/queues"
        other = pages.browser(OWN if role == "partner" else "admin", role).get(start).text
        found = re.search(r'name="form_token" value="([^"]*)"', other)
        assert found is not None
        form_token = found[1]
    data = {} if form_token is None else {"form_token": form_token}
    assert browser.http.post(path, data=data).status_code == 403
    unreadable = browser.http.post(path, content=b"\xff\xfe", headers={"content-type": "text/plain"})
    assert unreadable.status_code in (403, 422)
    assert TestClient(pages.app).post(path, data=data).status_code == 401
    assert pages.apis.written == before


@pytest.mark.parametrize(
    "path",
    [
        f"/portal/keycrm/referrals/{FOREIGN}-client/why", f"/portal/keycrm/referrals/{ABSENT}/why",
        f"/portal/keycrm/payments/{FOREIGN}-payment/why", f"/portal/keycrm/payments/{ABSENT}/why",
        "/portal/absent/start", "/portal/keycrm/store", "/portal/keycrm/nothing", "/portal/keycrm/nothing/live",
        "/portal/message-help/clients/deposits/{deposit_id}", "/portal/message-help/clients/deposits/absent",
        "/portal/../admin/queues", "/portal/keycrm/referrals/../why", "/portal/a%2Fb/start",
        f"/portal/{'x' * 200}/start",
        "/admin", "/admin/queues", "/admin/partners/own-1", "/admin/health/live", "/portal/static/../app.py",
    ],
)  # fmt: skip
def test_what_is_foreign_absent_or_somebody_elses_is_not_there(pages: Pages, path: str) -> None:
    shown = pages.browser(OWN).get(path.format(**pages.ids[FOREIGN]))
    assert shown.status_code == 404


def test_a_foreign_withdrawal_cannot_be_taken_back(pages: Pages) -> None:
    foreign = pages.ids[FOREIGN]["withdrawal_id"]
    path = f"/portal/keycrm/payouts/withdrawals/{foreign}/cancel"
    assert pages.browser(OWN).post(path, "/portal/keycrm/payouts").status_code == 404


@pytest.mark.parametrize(
    "path", ["/portal", "/portal/keycrm/payouts", "/portal/enter", "/nothing", "/portal/static/app.js"]
)
def test_no_answer_forgets_its_headers(pages: Pages, path: str) -> None:
    answer = pages.browser(OWN).get(path)
    assert {name: answer.headers.get(name) for name in HEADERS if name != "Cache-Control"} == {
        name: value for name, value in HEADERS.items() if name != "Cache-Control"
    }
    assert ("immutable" in answer.headers["cache-control"]) == ("static" in path)
    assert (answer.headers["cache-control"] == "no-store") == ("static" not in path)


def test_the_policy_lets_in_no_frame_no_inline_script_and_nothing_from_elsewhere(pages: Pages) -> None:
    said = pages.browser(OWN).get("/portal/keycrm/start").headers["content-security-policy"]
    policy = dict(each.split(" ", 1) for each in said.split("; "))
    assert policy["default-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["object-src"] == "'none'"
    assert "unsafe" not in said
    assert not any(name.startswith(("script-src", "style-src")) for name in policy)


def test_a_link_leads_to_the_first_page_whatever_else_it_says(pages: Pages) -> None:
    """So nobody is sent elsewhere by it, and its token is in no address that a page links from."""
    elsewhere = dict.fromkeys(("next", "back", "to", "redirect_uri"), "https://elsewhere.example")
    answer = TestClient(pages.app).get("/portal/enter", params={"token": _link(), **elsewhere}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/portal")
    assert answer.headers["referrer-policy"] == "same-origin"


def test_no_template_holds_a_script_or_a_style(pages: Pages) -> None:
    """The policy would refuse them; so would HTMX's own attributes that need an eval."""
    for path in (
        "/portal?choose",
        "/portal/keycrm/start",
        "/portal/keycrm/statistics",
        "/portal/active-referrals/companies",
    ):
        text = pages.browser(OWN).get(path).text
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|hx-on|javascript:", text), path


@pytest.mark.parametrize(
    "back", ["https://elsewhere.example", "//elsewhere.example", "/portal//x\\y", "/attribution/r/x", ""]
)
def test_the_language_switch_leads_nowhere_else(pages: Pages, back: str) -> None:
    answer = TestClient(pages.app).get("/portal/language", params={"to": "uk", "back": back}, follow_redirects=False)
    assert answer.headers["location"] == "/portal"


def test_without_a_shared_secret_there_are_no_pages() -> None:
    with pytest.raises(SettingsRefused):
        create_app(Settings(auth_jwks_url="https://login.example.com/keys"))


def test_pages_that_could_not_sign_name_the_setting_and_the_cure() -> None:
    """A secret beside the key set helps nothing: the APIs take the key set's tokens alone then."""
    with pytest.raises(SettingsRefused, match="unset it and give all of them REFSTREAM_AUTH_SECRET") as refused:
        create_app(settings(auth_jwks_url="https://login.example.com/keys"))
    assert "REFSTREAM_AUTH_JWKS_URL" in str(refused.value)


def test_the_apis_behind_a_key_set_come_without_pages_unless_they_are_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    behind = settings(auth_jwks_url="https://login.example.com/keys")
    without = TestClient(edge(behind, never))
    assert without.get("/portal").status_code == 404
    assert "no pages" in caplog.text
    with pytest.raises(SettingsRefused):
        edge(behind.model_copy(update={"oidc_issuer": "https://login.example.com"}), never)
