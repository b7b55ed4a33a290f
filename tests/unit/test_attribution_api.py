"""Attribution over HTTP, above its stages in memory."""

from collections.abc import Iterator
from copy import deepcopy
from http.cookies import Morsel, SimpleCookie
from itertools import count
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from schemas import events, internal
from schemas.events import Event
from schemas.ids import derived_id
from schemas.moments import DAY, SECOND, format_instant, micros, parse_instant
from schemas.programs import Programs, shipped
from services.attribution import signer_of
from services.attribution.api import create_app
from services.attribution.codes import LINK_BYTES, derived_code
from services.attribution.redirect import cookie_days, is_navigation
from services.runtime.http import Commands, Problem, Resources
from services.runtime.metrics import Metrics
from tests.attribution_bench import Bench
from tests.http_fakes import bearer, settings

FRAMES = ("iframe", "frame", "embed", "object", "fencedframe", "empty")
SUBRESOURCES = (
    *(("no-cors", dest) for dest in ("image", "script", "style", "font", "audio", "video", "track", "empty", "object")),
    *(("cors", dest) for dest in ("empty", "script", "manifest", "worker", "document")),
    ("same-origin", "serviceworker"),
    ("websocket", "empty"),
)
"""How pictures, scripts, `fetch` and `sendBeacon` ask: none of them shows the address to the visitor."""
NAVIGATES = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-fetch-site": "cross-site"}
JOINED = "2025-01-01T00:00:00Z"
numbers = count()


class Api:
    """The app, spoken to as somebody."""

    def __init__(self, bench: Bench, client: TestClient) -> None:
        self.bench, self.client = bench, client
        self.kafka_is_away = False

    def call(self, method: str, path: str, who: str = "admin", **other: Any) -> Response:
        role, _, sub = who.partition(":")
        headers = {**bearer(role, sub or role), "idempotency-key": f"k-{next(numbers)}", **other.pop("headers", {})}
        return self.client.request(method, "/attribution" + path, headers=headers, **other)

    def follow(self, code: str, method: str = "GET", **headers: str) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.request(method, f"/attribution/r/{code}", headers=named, follow_redirects=False)

    def happened(self, data: events.Payload, at: str = JOINED) -> None:
        self.bench.fold(Event(f"e-{next(numbers)}", "platform", parse_instant(at), data))

    async def write_click(self, event: Event, key: str) -> None:
        if self.kafka_is_away:
            raise Problem(503, "unavailable", "")
        await self.bench.write(event, key)


@pytest.fixture(scope="module")
def prepared() -> Iterator[Api]:
    """Anna is a partner of keycrm and message-help, bert of jupsoft."""
    bench = Bench()
    own = settings(public_url="https://go.example.com")
    spoken = Commands("attribution", own, bench.reader, bench.write, Metrics("api"), wait_seconds=0.3)
    api = Api(bench, None)  # type: ignore[arg-type]
    app = create_app(own, Resources(own, bench.reader, bench.feed, spoken), api.write_click)
    with TestClient(app) as client:
        api.client = client
        for program in shipped():
            document = program.as_document()
            assert api.call("PUT", f"/programs/{program.program_id}", json=document).status_code == 200
        api.happened(events.CustomerSignedUp(customer_id="anna"))
        api.happened(events.AccountCreated(customer_id="anna", account_id="anna-crm"))
        for partner_id, program_id in (("anna", "keycrm"), ("anna", "message-help"), ("bert", "jupsoft")):
            body = {"partner_id": partner_id, "program_id": program_id, "accepted_terms": True, "activated_at": JOINED}
            assert api.call("POST", "/partners", "platform", json=body).status_code == 201
        yield api


@pytest.fixture
def api(prepared: Api) -> Iterator[Api]:
    """The app as it was prepared, whatever a test does to it."""
    reader, feed, client = prepared.bench.reader, prepared.bench.feed, prepared.client
    before, programs = deepcopy(vars(reader)), feed.programs
    yield prepared
    vars(reader).update(before)
    feed.programs = programs
    client.cookies.clear()
    prepared.kafka_is_away = False


def link_of(api: Api, partner_id: str = "anna", program_id: str = "keycrm", **other: Any) -> str:
    body = {"program_id": program_id, **other}
    answer = api.call("POST", f"/partners/{partner_id}/links", f"partner:{partner_id}", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["code"])


def cookie_of(response: Response) -> "Morsel[str]":
    jar: SimpleCookie = SimpleCookie()
    jar.load(response.headers["set-cookie"])
    return jar["ref"]


def recorded(api: Api) -> int:
    shown = api.call("GET", "/partners/anna/statistics", "partner:anna").json()
    return int(shown["clicks"])


# --- following a link -----------------------------------------------------------------------------------------------


def test_a_navigation_is_redirected_counted_and_remembered(api: Api) -> None:
    code = link_of(api)
    response = api.follow(code, **NAVIGATES)
    assert (response.status_code, response.headers["location"]) == (302, "https://crm.example.com/signup")
    assert response.headers["cache-control"] == "no-store"
    cookie = cookie_of(response)
    assert (cookie["httponly"], cookie["samesite"].lower(), cookie["secure"], cookie["path"]) == (
        True,
        "lax",
        True,
        "/",
    )
    assert int(cookie["max-age"]) == 400 * 86400
    assert recorded(api) == 1
    signup = events.CustomerSignedUp(customer_id="bob", click_token=cookie.value)
    api.happened(signup, format_instant(micros(settings().now())))
    decision = api.call("GET", "/customers/bob/decision").json()
    assert (decision["outcome"], decision["partner_id"], decision["method"]) == ("attributed", "anna", "click")


def test_the_second_click_keeps_the_visitor_and_the_first_click(api: Api) -> None:
    code = link_of(api)
    first = cookie_of(api.follow(code, **NAVIGATES)).value
    api.client.cookies.clear()
    second = cookie_of(api.follow(code, **NAVIGATES, cookie=f"ref={first}")).value
    before, after = (signer_of(settings()).read(value) for value in (first, second))
    assert before is not None and after is not None
    assert before.visitor_id == after.visitor_id
    assert before.clicks[0].first_at == after.clicks[0].first_at
    assert recorded(api) == 2


def test_an_invalid_cookie_is_replaced_by_a_fresh_one(api: Api) -> None:
    response = api.follow(link_of(api), **NAVIGATES, cookie="ref=forged.value")
    assert response.status_code == 302
    assert cookie_of(response).value != "forged.value"


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("HEAD", NAVIGATES),
        ("HEAD", {}),
        ("GET", {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}),
        ("GET", {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}),
        ("GET", {"sec-fetch-site": "cross-site"}),
        *(("GET", {"sec-fetch-mode": "navigate", "sec-fetch-dest": dest}) for dest in FRAMES),
        *(("GET", {"sec-fetch-mode": mode, "sec-fetch-dest": dest}) for mode, dest in SUBRESOURCES),
        ("GET", {"sec-fetch-mode": "navigate"}),
        ("GET", {"sec-fetch-dest": "document"}),
        ("GET", {"sec-fetch-mode": "navigate, navigate", "sec-fetch-dest": "document"}),
        ("GET", {**NAVIGATES, "sec-purpose": "prefetch"}),
        ("GET", {**NAVIGATES, "sec-purpose": "PREFETCH;anonymous-client-ip"}),
        ("GET", {**NAVIGATES, "x-moz": "prefetch"}),
        ("GET", {**NAVIGATES, "sec-purpose": "prefetch;prerender"}),
        ("GET", {**NAVIGATES, "purpose": "prefetch"}),
        ("GET", {"purpose": "prefetch"}),
    ],
)
def test_whatever_is_no_navigation_gets_the_redirect_alone(api: Api, method: str, headers: dict[str, str]) -> None:
    response = api.follow(link_of(api), method, **headers)
    assert (response.status_code, response.headers["location"]) == (302, "https://crm.example.com/signup")
    assert "set-cookie" not in response.headers
    assert recorded(api) == 0


def test_a_browser_that_says_nothing_navigates() -> None:
    assert is_navigation("GET", {"user-agent": "an old one"})


def test_an_unknown_code_and_a_promo_code_lead_nowhere(api: Api) -> None:
    body = {"program_id": "message-help", "code": "summer"}
    assert api.call("POST", "/partners/anna/promo-codes", "partner:anna", json=body).status_code == 201
    unknown, promo = api.follow("nothing-here", **NAVIGATES), api.follow("summer", **NAVIGATES)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert unknown.content == promo.content


def test_a_code_cannot_be_reckoned_from_what_others_know(api: Api) -> None:
    """80 bits of a link, 48 of a promo code that the partner did not choose, from a seed that needs a secret."""
    known = derived_id(derived_id("cmd", "partner", "anna"), "/attribution/partners/anna/links", "1")
    body, headers = {"program_id": "keycrm"}, {"idempotency-key": "1"}
    made = api.call("POST", "/partners/anna/links", "partner:anna", json=body, headers=headers).json()["code"]
    assert len(made) == 16 and made != derived_code(known, LINK_BYTES)
    assert api.call("POST", "/partners/anna/links", "partner:anna", json=body, headers=headers).json()["code"] == made
    promos = [
        api.call("POST", "/partners/anna/promo-codes", "partner:anna", json={"program_id": "message-help"}).json()
        for _ in range(20)
    ]
    assert len({each["code"] for each in promos}) == 20 and all(len(each["code"]) == 10 for each in promos)


@pytest.mark.parametrize(("path", "program_id"), [("links", "keycrm"), ("promo-codes", "message-help")])
def test_a_command_that_is_sent_again_before_it_is_decided_asks_for_the_same_code(
    api: Api, monkeypatch: pytest.MonkeyPatch, path: str, program_id: str
) -> None:
    """Each code is given by a key of its own, which knows nothing of a command's other code."""
    held: list[Event] = []

    async def hold(event: Event, key: str) -> None:
        held.append(event)

    def ask(key: str = "at once") -> Response:
        headers, body = {"idempotency-key": key}, {"program_id": program_id}
        return api.call("POST", f"/partners/anna/{path}", "partner:anna", json=body, headers=headers)

    with monkeypatch.context() as patch:
        patch.setattr(api.client.app.state.resources.commands, "_write", hold)  # type: ignore[attr-defined]
        assert [ask().status_code, ask().status_code, ask("another").status_code] == [202, 202, 202]
    first, again, another = (event.data for event in held)
    assert first == again
    assert another.seed != first.seed  # type: ignore[attr-defined]
    said = api.bench.fold(*held[:2])
    made = [each for each in said if isinstance(each, events.LinkCreated | events.PromoCodeCreated)]
    assert [each.code for each in made] == [ask().json()["code"]]


@pytest.mark.parametrize(
    "code", ["nothing-here", "summer", "%00", "..%2f", "%E2%80%AE", "anna", "k5xw4zjanrqxg2l", "x" * 256]
)
def test_whoever_tries_codes_gets_one_answer_for_all_that_are_no_links(api: Api, code: str) -> None:
    body = {"program_id": "message-help", "code": "summer"}
    api.call("POST", "/partners/anna/promo-codes", "partner:anna", json=body)
    answers = [api.follow(each, **NAVIGATES) for each in (code, "never-made")]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == answers[1].content and answers[0].headers == answers[1].headers


def test_a_key_that_made_a_promo_code_is_no_key_for_one_that_cannot_be(api: Api) -> None:
    def ask(code: str, key: str) -> Response:
        body, headers = {"program_id": "message-help", "code": code}, {"idempotency-key": key}
        return api.call("POST", "/partners/anna/promo-codes", "partner:anna", json=body, headers=headers)

    assert ask("!", "code-1").json()["errors"][0]["field"] == "code"
    assert [ask("winter", "code-1").status_code, ask("winter", "code-1").status_code] == [201, 201]
    assert ask("!", "code-1").json()["code"] == "idempotency_key_reused"


def test_a_taken_promo_code_is_refused_without_saying_whose_it_is(api: Api) -> None:
    body = {"program_id": "jupsoft", "code": "winter"}
    assert api.call("POST", "/partners/bert/promo-codes", "partner:bert", json=body).status_code == 201
    taken = api.call("POST", "/partners/anna/promo-codes", "partner:anna", json={**body, "program_id": "message-help"})
    assert (taken.status_code, taken.json()["code"]) == (409, "code_taken")
    assert "bert" not in taken.text and "jupsoft" not in taken.text


@pytest.mark.parametrize(
    "tail", ["", "/a%20b", "//evil.example/", "?next=https://evil.example/", "#@x", "/%0d%0aX:%20y"]
)
def test_a_redirect_leads_exactly_where_the_link_was_made_for(api: Api, tail: str) -> None:
    destination = f"https://crm.example.com{tail}"
    response = api.follow(
        link_of(api, destination=destination) + "?destination=https://evil.example&next=//evil", **NAVIGATES
    )
    assert (response.status_code, response.headers["location"]) == (302, destination)


def test_a_link_takes_whatever_parameters_others_hang_on_it(api: Api) -> None:
    assert api.follow(link_of(api) + "?utm_source=mail&fbclid=1", **NAVIGATES).status_code == 302


def test_a_visitor_is_let_through_when_the_click_cannot_be_written(api: Api) -> None:
    code = link_of(api)
    api.kafka_is_away = True
    response = api.follow(code, **NAVIGATES)
    assert (response.status_code, bool(cookie_of(response).value)) == (302, True)


def test_a_state_that_is_being_rebuilt_answers_503(api: Api) -> None:
    code = link_of(api)
    api.bench.reader.rebuilding = True
    assert api.follow(code, **NAVIGATES).status_code == 503


def test_the_cookie_lives_as_long_as_the_longest_window() -> None:
    by_id = {program.program_id: program for program in shipped()}
    assert cookie_days(Programs.of(by_id["keycrm"], by_id["jupsoft"])) == 90
    assert cookie_days(Programs.of(*shipped())) == 400
    assert cookie_days(Programs()) == 400


# --- who may do what ------------------------------------------------------------------------------------------------

BODIES: dict[str, dict[str, Any]] = {
    "links": {"program_id": "keycrm"},
    "promo-codes": {"program_id": "message-help"},
}


@pytest.mark.parametrize("what", BODIES)
def test_links_and_codes_are_the_partners_own_to_make(api: Api, what: str) -> None:
    answers = [
        api.call("POST", f"/partners/anna/{what}", who, json=BODIES[what]).status_code
        for who in ("partner:anna", "partner:bert", "platform", "admin")
    ]
    assert answers == [201, 404, 403, 403]


@pytest.mark.parametrize("path", ["", "/referrals", "/statistics"])
def test_a_foreign_partner_is_as_absent_as_an_absent_one(api: Api, path: str) -> None:
    foreign, absent = (api.call("GET", f"/partners/{each}{path}", "partner:anna") for each in ("bert", "nobody"))
    assert (foreign.status_code, foreign.content) == (404, absent.content)
    assert api.call("GET", f"/partners/anna{path}", "partner:anna").status_code == 200
    assert api.call("GET", f"/partners/anna{path}", "admin").status_code == 200
    assert api.call("GET", f"/partners/nobody{path}", "admin").status_code == 404
    assert api.call("GET", f"/partners/nobody{path}", "partner:nobody").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "roles"),
    [
        ("GET", "/customers/anna/decision", {"platform", "admin"}),
        ("GET", "/programs", {"admin"}),
        ("GET", "/programs/keycrm", {"admin"}),
        ("PUT", "/programs/keycrm", {"admin"}),
        ("POST", "/partners", {"platform", "admin"}),
    ],
)
def test_what_is_not_for_a_role_is_forbidden(api: Api, method: str, path: str, roles: set[str]) -> None:
    body = {"partner_id": "cleo", "program_id": "jupsoft", "accepted_terms": True} if method == "POST" else {}
    for role in ("partner:anna", "platform", "admin"):
        status = api.call(method, path, role, json=body if method != "GET" else None).status_code
        assert (status != 403) == (role in roles), (role, status)


def test_without_a_token_only_links_can_be_followed(api: Api) -> None:
    assert api.client.get("/attribution/programs").status_code == 401
    assert api.client.get("/attribution/partners/anna/referrals").status_code == 401


# --- partners -------------------------------------------------------------------------------------------------------


def test_terms_that_are_not_accepted_and_unknown_fields_are_refused(api: Api) -> None:
    body = {"partner_id": "cleo", "program_id": "jupsoft", "accepted_terms": False}
    refused = api.call("POST", "/partners", "platform", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "terms_not_accepted")
    unknown = api.call("POST", "/partners", "platform", json={**body, "accepted_terms": True, "rate": "1"})
    assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (422, "rate")


def test_a_partner_sees_its_programs_links_and_codes(api: Api) -> None:
    code = link_of(api)
    shown = api.call("GET", "/partners/anna", "partner:anna").json()
    assert [each["program_id"] for each in shown["programs"]] == ["keycrm", "message-help"]
    assert shown["links"] == [
        {
            "program_id": "keycrm",
            "code": code,
            "url": f"https://go.example.com/attribution/r/{code}",
            "destination": "https://crm.example.com/signup",
        }
    ]


def test_a_destination_elsewhere_is_refused(api: Api) -> None:
    body = {"program_id": "keycrm", "destination": "https://evil.example/"}
    answer = api.call("POST", "/partners/anna/links", "partner:anna", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "destination_not_allowed")


def test_an_order_that_was_in_force_already_is_for_the_platform_to_import(api: Api) -> None:
    body = {"program_id": "keycrm", "account_ids": ["a-2", "a-1"], "effective_at": "2025-02-01T00:00:00Z"}
    put = [
        api.call("PUT", "/partners/anna/account-order", who, json=body).status_code
        for who in ("partner:anna", "platform", "admin", "partner:bert")
    ]
    assert put == [403, 200, 200, 404]
    del body["effective_at"]
    assert api.call("PUT", "/partners/anna/account-order", "partner:anna", json=body).status_code == 200


# --- referrals and statistics ---------------------------------------------------------------------------------------


def bring(api: Api, customer_id: str, at: str, program_id: str = "keycrm", partner: str = "anna", **other: Any) -> None:
    code = link_of(api, partner, program_id)
    clicked = events.Click(code=code, clicked_at=parse_instant(at) - DAY)
    api.happened(events.CustomerSignedUp(customer_id=customer_id, clicks=(clicked,), **other), at)


def test_referrals_show_who_signed_up_newest_first(api: Api) -> None:
    bring(api, "c-1", "2025-03-01T00:00:00Z", name="Carl", email="carl@example.com", phone="+1 2")
    bring(api, "c-2", "2025-03-02T00:00:00Z", name="Cora", email="sha256:" + "0" * 64)
    for number, account_id in enumerate(("a-1", "a-2"), start=1):
        account = events.AccountCreated(customer_id="c-1", account_id=account_id)
        api.happened(account, f"2025-03-1{number}T00:00:00Z")
    api.happened(events.CustomerProfile(customer_id="c-1", name="Carl the Great"))
    items = api.call("GET", "/partners/anna/referrals", "partner:anna").json()["items"]
    assert items == [
        {
            "customer_id": "c-2",
            "signed_up_at": "2025-03-02T00:00:00Z",
            "name": "Cora",
            "email": None,
            "phone": None,
            "accounts": 0,
            "status": "active",
            "program_id": "keycrm",
        },
        {
            "customer_id": "c-1",
            "signed_up_at": "2025-03-01T00:00:00Z",
            "name": "Carl the Great",
            "email": "carl@example.com",
            "phone": "+1 2",
            "accounts": 2,
            "status": "active",
            "program_id": "keycrm",
        },
    ]


def test_referrals_as_of_a_time_count_what_was_strictly_before(api: Api) -> None:
    bring(api, "c-1", "2025-03-01T00:00:00Z")
    bring(api, "c-2", "2025-03-02T00:00:00Z")
    api.happened(events.AccountCreated(customer_id="c-1", account_id="a-1"), "2025-03-02T00:00:00Z")
    query = {"as_of": "2025-03-02T00:00:00Z"}
    items = api.call("GET", "/partners/anna/referrals", "partner:anna", params=query).json()["items"]
    assert [(each["customer_id"], each["accounts"]) for each in items] == [("c-1", 0)]


def test_referrals_without_a_time_count_what_a_clock_ahead_of_ours_has_dated(api: Api) -> None:
    now = micros(settings().now())
    soon = format_instant(now + 120 * SECOND)
    bring(api, "c-1", "2025-03-01T00:00:00Z")
    bring(api, "c-2", soon)
    api.happened(events.AccountCreated(customer_id="c-1", account_id="a-1"), soon)
    span = (now + 120 * SECOND, None)
    api.happened(
        events.ActivityChanged(partner_id="anna", program_id="keycrm", customer_id="c-2", earning=(span,)), soon
    )

    def shown(**query: str) -> list[tuple[str, int, str]]:
        items = api.call("GET", "/partners/anna/referrals", "partner:anna", params=query).json()["items"]
        return [(each["customer_id"], each["accounts"], each["status"]) for each in items]

    assert shown() == [("c-2", 0, "inactive"), ("c-1", 1, "active")]
    assert shown(as_of=format_instant(now)) == [("c-1", 0, "active")]


def test_a_referral_is_active_in_its_earning_spans(api: Api) -> None:
    bring(api, "c-1", "2025-03-01T00:00:00Z")
    span = (parse_instant("2025-03-01T00:00:00Z"), parse_instant("2026-03-01T00:00:00Z"))
    api.happened(
        events.ActivityChanged(partner_id="anna", program_id="keycrm", customer_id="c-1", earning=(span,)), JOINED
    )

    def status(as_of: str) -> str:
        shown = api.call("GET", "/partners/anna/referrals", "partner:anna", params={"as_of": as_of}).json()
        return str(shown["items"][0]["status"])

    assert status("2026-02-28T23:59:59Z") == "active"
    assert status("2026-03-01T00:00:00Z") == "inactive"


def test_in_a_program_where_being_active_is_earned_a_new_referral_is_not(api: Api) -> None:
    body = {"partner_id": "anna", "program_id": "active-referrals", "accepted_terms": True, "activated_at": JOINED}
    api.call("POST", "/partners", "platform", json=body)
    bring(api, "c-1", "2025-03-01T00:00:00Z", "active-referrals")
    items = api.call("GET", "/partners/anna/referrals", "partner:anna").json()["items"]
    assert [each["status"] for each in items] == ["inactive"]
    paid = parse_instant("2025-03-20T00:00:00Z")
    activity = internal.ReferralActivity(
        partner_id="anna", program_id="active-referrals", customer_id="c-1", active=((paid, paid + DAY),)
    )
    api.happened(activity, JOINED)
    for as_of, status in (
        (paid, "inactive"),
        (paid + 1, "active"),
        (paid + DAY, "active"),
        (paid + DAY + 1, "inactive"),
    ):
        query = {"as_of": format_instant(as_of)}
        items = api.call("GET", "/partners/anna/referrals", "partner:anna", params=query).json()["items"]
        assert [each["status"] for each in items] == [status]


def test_referrals_come_in_pages(api: Api) -> None:
    for number in range(5):
        bring(api, f"c-{number}", f"2025-03-0{number + 1}T00:00:00Z")
    seen, query = list[str](), {"limit": "2"}
    while True:
        shown = api.call("GET", "/partners/anna/referrals", "partner:anna", params=query).json()
        seen += [each["customer_id"] for each in shown["items"]]
        if shown["next_cursor"] is None:
            break
        query["cursor"] = shown["next_cursor"]
    assert seen == ["c-4", "c-3", "c-2", "c-1", "c-0"]


def test_statistics_count_clicks_and_signups_of_a_period(api: Api) -> None:
    bring(api, "c-1", "2025-03-01T23:59:59Z")
    bring(api, "c-2", "2025-03-02T00:00:00Z")
    api.happened(events.ReferralDeclined(customer_id="c-3", reason="no_click"), JOINED)
    clicked = events.ClickRecorded(visitor_id="v", code="c", partner_id="anna", program_id="keycrm")
    for at in ("2025-03-01T12:00:00Z", "2025-03-03T12:00:00Z"):
        api.happened(clicked, at)

    def shown(**query: str) -> Any:
        named = {name.rstrip("_"): value for name, value in query.items()}
        return api.call("GET", "/partners/anna/statistics", "partner:anna", params=named).json()

    assert shown() == {
        "clicks": 2,
        "signups": 2,
        "series": [
            {"date": "2025-03-01", "clicks": 1, "signups": 1},
            {"date": "2025-03-02", "clicks": 0, "signups": 1},
            {"date": "2025-03-03", "clicks": 1, "signups": 0},
        ],
    }
    assert shown(from_="2025-03-02", to="2025-03-03") == {
        "clicks": 0,
        "signups": 1,
        "series": [{"date": "2025-03-02", "clicks": 0, "signups": 1}],
    }
    assert shown(from_="2025-03-02", to="2025-03-02")["series"] == []


@pytest.mark.parametrize(
    "query",
    [
        {"from": "yesterday"},
        {"to": "2025-02-30"},
        {"from": "2025-1-1"},
        {"from": "1735689600"},
        {"from": "２０２５-01-01"},
        {"since": "2025-01-01"},
    ],
)
def test_a_period_is_told_in_days(api: Api, query: dict[str, str]) -> None:
    answer = api.call("GET", "/partners/anna/statistics", "partner:anna", params=query)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, next(iter(query)))


def test_a_period_does_not_end_before_it_begins(api: Api) -> None:
    query = {"from": "2025-03-02", "to": "2025-03-01"}
    assert api.call("GET", "/partners/anna/statistics", "partner:anna", params=query).status_code == 422


# --- decisions and programs -----------------------------------------------------------------------------------------


def test_a_decision_tells_its_reasons_inputs_and_arithmetic(api: Api) -> None:
    code = link_of(api)
    clicked = events.Click(code=code, clicked_at=parse_instant("2025-03-01T00:00:00Z"))
    api.happened(events.CustomerSignedUp(customer_id="c-1", clicks=(clicked,)), "2025-03-08T00:00:00Z")
    shown = api.call("GET", "/customers/c-1/decision", "platform").json()
    assert {
        name: shown[name] for name in ("outcome", "reason", "reasons", "rule", "program_version", "partner_id")
    } == {
        "outcome": "declined",
        "reason": "window_expired",
        "reasons": ["window_expired"],
        "rule": "first_click_within_7_days",
        "program_version": 1,
        "partner_id": "anna",
    }
    assert shown["arithmetic"] == [
        "click 2025-03-01T00:00:00Z + 7 days = 2025-03-08T00:00:00Z; signup 2025-03-08T00:00:00Z is not before it"
    ]
    assert api.call("GET", "/customers/nobody/decision", "platform").status_code == 404


def test_programs_are_listed_and_shown_in_any_version(api: Api) -> None:
    listed = api.call("GET", "/programs").json()["items"]
    assert {each["program_id"] for each in listed} == {program.program_id for program in shipped()}
    document = api.call("GET", "/programs/keycrm").json()
    answer = api.call("PUT", "/programs/keycrm", json={**document, "enabled": False})
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    versions = [api.call("GET", "/programs/keycrm", params={"version": each}) for each in ("1", "2", "3")]
    assert [each.status_code for each in versions] == [200, 200, 404]
    assert [each.json().get("enabled") for each in versions[:2]] == [True, False]
    assert api.call("GET", "/programs/nothing").status_code == 404


def test_a_program_that_is_none_is_refused_with_its_field(api: Api) -> None:
    document = api.call("GET", "/programs/keycrm").json()
    answer = api.call("PUT", "/programs/other", json=document)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "program_id")
    answer = api.call("PUT", "/programs/keycrm", json=[document])
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


# --- retention ------------------------------------------------------------------------------------------------------


def claim_of(api: Api, customer_id: str = "old", partner_id: str = "anna", **other: Any) -> Response:
    body = {"program_id": "message-help", "customer_id": customer_id, "evidence": "our letter", **other}
    return api.call("POST", f"/partners/{partner_id}/retention-claims", f"partner:{partner_id}", json=body)


@pytest.mark.parametrize("raw", ['{"version": 9223372036854775808000}', '{"name": "\\ud800"}', '{"\\udfff": 1}'])
def test_a_program_that_no_record_can_hold_is_refused(api: Api, raw: str) -> None:
    answer = api.call("PUT", "/programs/keycrm", content=raw, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body")


def test_retention_claim_goes_its_way(api: Api) -> None:
    made = claim_of(api)
    assert (made.status_code, made.json()["status"]) == (201, "requested")
    own = made.json()["claim_id"]
    (waiting,) = api.call("GET", "/retention-claims?status=requested").json()["items"]
    wanted = {"claim_id": own, "partner_id": "anna", "customer_id": "old", "evidence": "our letter"}
    assert {name: waiting[name] for name in wanted} == wanted
    approved = api.call("POST", f"/retention-claims/{own}/approve", json={})
    assert (approved.status_code, approved.json()["status"]) == (200, "approved")
    again = api.call("POST", f"/retention-claims/{own}/reject", json={"reason": "no proof"})
    assert (again.status_code, again.json()["code"]) == (409, "already_settled")
    assert api.call("GET", "/retention-claims?status=requested").json()["items"] == []
    (shown,) = api.call("GET", "/retention-claims").json()["items"]
    assert (shown["status"], shown["settled_at"]) == ("approved", approved.json()["settled_at"])
    decision = api.call("GET", "/customers/old/decision").json()
    assert (decision["outcome"], decision["method"], decision["partner_id"]) == ("attributed", "retention", "anna")
    assert claim_of(api).json()["code"] == "already_referred"


def test_rejecting_a_claim_needs_a_reason_and_shows_it(api: Api) -> None:
    own = claim_of(api).json()["claim_id"]
    assert api.call("POST", f"/retention-claims/{own}/reject", json={}).status_code == 422
    rejected = api.call("POST", f"/retention-claims/{own}/reject", json={"reason": "no proof"})
    assert (rejected.status_code, rejected.json()["reason"]) == (200, "no proof")
    assert api.call("GET", "/customers/old/decision").status_code == 404


def test_claims_are_listed_newest_first_page_by_page(api: Api) -> None:
    made = [claim_of(api, f"old-{number}").json()["claim_id"] for number in range(3)]
    first = api.call("GET", "/retention-claims?limit=2").json()
    second = api.call("GET", f"/retention-claims?limit=2&cursor={first['next_cursor']}").json()
    assert [item["claim_id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("who", ["partner:anna", "platform"])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/claim_x/approve"), ("POST", "/claim_x/reject")])
def test_only_an_admin_sees_and_settles_claims(api: Api, who: str, method: str, path: str) -> None:
    body = {"reason": "no proof"} if path.endswith("reject") else {}
    answer = api.call(method, f"/retention-claims{path}", who, **({"json": body} if method == "POST" else {}))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_a_claim_is_the_partners_own_to_make(api: Api) -> None:
    body = {"program_id": "message-help", "customer_id": "old", "evidence": "our letter"}
    assert api.call("POST", "/partners/anna/retention-claims", "partner:bert", json=body).status_code == 404
    assert api.call("POST", "/partners/anna/retention-claims", "platform", json=body).status_code == 403
    assert claim_of(api, evidence="").status_code == 422
    assert api.call("POST", "/retention-claims/claim_x/approve", json={}).status_code == 404
