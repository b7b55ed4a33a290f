"""Who gets in where: every operation of every OpenAPI document, each role, an own id, a foreign and an absent one.

The table says what the contract says; an operation that it does not name fails, so that no route comes without its row.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from httpx import Response
from limits.aio.storage import MemoryStorage

from schemas.ids import derived_id
from services.runtime.http import rates
from services.runtime.http.rates import WINDOW_SECONDS, RateLimits
from tests.four_apis import ABSENT, FOREIGN, OWN, FourApis, four_apis, with_partners
from tests.http_fakes import bearer, settings

Entry = Literal["in", "forbidden", "absent"]
"""`in`: the route does its work; `forbidden`: 403 whatever the id; `absent`: 404 whatever the id."""

USD, EUR = {"minor": 100, "currency": "USD"}, {"minor": 100, "currency": "EUR"}
ROLES = ("partner", "platform", "admin")
REFUSED = {401, 403, 404, 429}


@dataclass(frozen=True)
class Access:
    """What becomes of each role, and what a request needs besides the id in its path."""

    partner: Entry
    platform: Entry
    admin: Entry
    body: dict[str, Any] | None = None
    query: dict[str, str] = field(default_factory=dict)


def own_to_read(**query: str) -> Access:
    return Access("in", "in", "in", query=query)


def own_to_do(**body: Any) -> Access:
    return Access("in", "forbidden", "forbidden", body)


def staff(**body: Any) -> Access:
    return Access("forbidden", "in", "in", body)


def platform_only(**body: Any) -> Access:
    return Access("forbidden", "in", "forbidden", body)


def admin_only(query: dict[str, str] | None = None, **body: Any) -> Access:
    return Access("forbidden", "forbidden", "in", body, query or {})


DAY = {"program_id": "active-referrals", "date": "2026-02-28"}
INVOICE = {"invoice_id": "i-1", "issued_at": "2026-02-01T00:00:00Z", "amount": USD}
ITS_COMMANDS_ALONE = Access("in", "absent", "absent")

ROUTES: dict[str, Access] = {
    "POST /attribution/partners": staff(partner_id=OWN, program_id="jupsoft", accepted_terms=True),
    "GET /attribution/partners": admin_only(),
    "GET /attribution/partners/{partner_id}": own_to_read(),
    "GET /attribution/partners/{partner_id}/programs": own_to_read(),
    "POST /attribution/partners/{partner_id}/activations": own_to_do(program_id="jupsoft", accepted_terms=True),
    "GET /attribution/partners/{partner_id}/accounts": own_to_read(),
    "GET /attribution/partners/{partner_id}/referrals/{customer_id}/decision": own_to_read(),
    "POST /attribution/partners/{partner_id}/links": own_to_do(program_id="keycrm"),
    "POST /attribution/partners/{partner_id}/promo-codes": own_to_do(program_id="keycrm"),
    "GET /attribution/partners/{partner_id}/referrals": own_to_read(),
    "GET /attribution/partners/{partner_id}/statistics": own_to_read(),
    "PUT /attribution/partners/{partner_id}/account-order": Access(
        "in", "in", "in", {"program_id": "active-referrals", "account_ids": ["a-1"]}
    ),
    "POST /attribution/partners/{partner_id}/retention-claims": own_to_do(
        program_id="message-help", customer_id=f"{OWN}-client-3", evidence="a letter"
    ),
    "GET /attribution/retention-claims": admin_only(),
    "GET /attribution/retention-claims/{claim_id}": admin_only(),
    "GET /attribution/codes/{code}": admin_only(),
    "POST /attribution/retention-claims/{claim_id}/approve": admin_only(),
    "POST /attribution/retention-claims/{claim_id}/reject": admin_only(reason="no"),
    "GET /attribution/customers/{customer_id}/decision": staff(),
    "GET /attribution/programs": admin_only(),
    "GET /attribution/programs/{program_id}": admin_only(),
    "PUT /attribution/programs/{program_id}": admin_only(),
    "GET /attribution/commands/{ticket}": ITS_COMMANDS_ALONE,
    "GET /commission/partners/{partner_id}/commissions": own_to_read(),
    "GET /commission/partners/{partner_id}/tier": own_to_read(program_id="keycrm"),
    "GET /commission/partners/{partner_id}/payments/{payment_id}/decision": own_to_read(),
    "GET /commission/payments/{payment_id}/decision": staff(),
    "GET /commission/decisions": admin_only({"program_id": "keycrm"}),
    "GET /rewards/partners/{partner_id}/wallet": own_to_read(),
    "GET /rewards/partners/{partner_id}/store": own_to_read(program_id="proxy-credits"),
    "POST /rewards/partners/{partner_id}/claims": own_to_do(program_id="proxy-credits", provider="packetstream"),
    "GET /rewards/partners/{partner_id}/history": own_to_read(),
    "GET /rewards/partners/{partner_id}/discounts": own_to_read(program_id="active-referrals"),
    "GET /rewards/partners/{partner_id}/companies": own_to_read(program_id="active-referrals"),
    "GET /rewards/claims": staff(),
    "GET /rewards/claims/{claim_id}": staff(),
    "POST /rewards/claims/{claim_id}/settle": admin_only(status="fulfilled"),
    "POST /rewards/claims/{claim_id}/fulfil": platform_only(),
    "POST /rewards/claims/{claim_id}/fail": platform_only(),
    "GET /rewards/verifications": admin_only({"program_id": "active-referrals"}),
    "POST /rewards/verifications": admin_only(**DAY),
    "POST /rewards/accounts/{account_id}/discount/use": platform_only(**INVOICE),
    "GET /rewards/commands/{ticket}": ITS_COMMANDS_ALONE,
    "GET /payouts/partners/{partner_id}/balance": own_to_read(),
    "GET /payouts/partners/{partner_id}/statement": own_to_read(),
    "GET /payouts/partners/{partner_id}/withdrawals": own_to_read(),
    "POST /payouts/partners/{partner_id}/withdrawals": own_to_do(
        program_id="keycrm", amount=USD, destination="UA90 3052"
    ),
    "POST /payouts/partners/{partner_id}/topups": own_to_do(
        program_id="keycrm", account_id=f"{OWN}-account", amount=USD
    ),
    "POST /payouts/partners/{partner_id}/deposits": own_to_do(program_id="message-help", amount=EUR, method="card"),
    "POST /payouts/partners/{partner_id}/client-payments": own_to_do(
        program_id="message-help",
        customer_id=f"{OWN}-client",
        integration="amo",
        interval="month",
        list_price=EUR,
    ),
    "GET /payouts/partners/{partner_id}/deposits": own_to_read(),
    "GET /payouts/partners/{partner_id}/topup-quote": own_to_read(program_id="keycrm", minor="1", currency="USD"),
    "GET /payouts/partners/{partner_id}/client-payment-quote": own_to_read(
        program_id="message-help", customer_id="somebody", integration="amo", minor="1", currency="EUR"
    ),
    "GET /payouts/deposits": staff(),
    "GET /payouts/deposits/{deposit_id}": staff(),
    "GET /payouts/withdrawals": admin_only(),
    "GET /payouts/withdrawals/{withdrawal_id}": admin_only(),
    "POST /payouts/withdrawals/{withdrawal_id}/cancel": own_to_do(),
    "POST /payouts/withdrawals/{withdrawal_id}/pay": admin_only(),
    "POST /payouts/withdrawals/{withdrawal_id}/reject": admin_only(reason="no"),
    "POST /payouts/deposits/{deposit_id}/confirm": staff(),
    "GET /payouts/commands/{ticket}": ITS_COMMANDS_ALONE,
    "GET /attribution/verification": admin_only(),
    "GET /commission/verification": admin_only(),
    "GET /rewards/verification": admin_only(),
    "GET /payouts/verification": admin_only(),
}
"""The role column of the contract; the platform and an admin read what is a partner's to read."""

PUBLIC = {
    "GET /attribution/r/{code}",
    *(f"GET /{service}/{name}" for service in ("attribution", "commission", "rewards", "payouts")
      for name in ("healthz", "readyz", "metrics")),
}  # fmt: skip
"""What needs no token."""

WITH_ID = [call for call in ROUTES if "{" in call]
BY_PARTNERS_ID = [call for call in WITH_ID if ROUTES[call].partner == "in"]
ABOUT_A_PROGRAM = [
    call
    for call in BY_PARTNERS_ID
    if "program_id" in (ROUTES[call].body or {}) and not call.endswith("/activations")  # of a program that is not its
]


WRONG: dict[str, dict[str, Any]] = {
    "no body": {},
    "an empty body": {"json": {}},
    "an unknown field": {"json": {"nonsense": 1}},
    "no JSON": {"content": b"{"},
    "an unknown parameter": {"params": {"nonsense": "1"}},
    "no key": {"headers": {"idempotency-key": ""}},
}


@dataclass
class Matrix:
    apis: FourApis
    ids: dict[str, dict[str, str]]

    def path(self, call: str, whose: str) -> str:
        """The path with an id of OWN or FOREIGN in it, or with one that nobody has."""

        def value(match: "re.Match[str]") -> str:
            if match[1] == "program_id":
                return "keycrm" if whose != ABSENT else ABSENT
            if match[1] == "ticket":
                return derived_id("cmd", "partner", whose) + "_" + "0" * 24
            name = "retention_id" if match[1] == "claim_id" and "retention" in call else match[1]
            return self.ids[whose][name] if whose in self.ids else ABSENT

        return re.sub(r"\{(\w+)\}", value, call.split(" ")[1])

    def ask(self, call: str, role: str | None, whose: str = OWN, **other: Any) -> Response:
        access = ROUTES.get(call, Access("in", "in", "in"))
        method = call.split(" ")[0]
        body = access.body if method in ("POST", "PUT") else None
        return self.apis.call(method, self.path(call, whose), role, json=body, params=access.query, **other)


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    with four_apis() as apis:
        yield Matrix(apis, with_partners(apis))


def same(answer: Response) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """All that a caller can see of an answer, but for what differs from one request to the next by its nature."""
    headers = [(k.lower(), v) for k, v in answer.headers.raw if k.lower() not in (b"date", b"x-request-id")]
    return answer.status_code, headers, answer.content


def test_every_operation_has_its_row_and_every_row_its_operation(matrix: Matrix) -> None:
    assert set(matrix.apis.operations) == set(ROUTES) | PUBLIC


@pytest.mark.parametrize("call", ROUTES)
def test_without_a_token_nobody_gets_in_whatever_the_id(matrix: Matrix, call: str) -> None:
    before = matrix.apis.written
    answers = [matrix.ask(call, None, whose) for whose in (OWN, FOREIGN, ABSENT)]
    assert [answer.status_code for answer in answers] == [401] * 3
    assert same(answers[0]) == same(answers[1]) == same(answers[2])
    assert matrix.apis.written == before


@pytest.mark.parametrize("call", ROUTES)
def test_a_cookie_is_no_token(matrix: Matrix, call: str) -> None:
    """Whatever a browser sends by itself opens no door, so that no other site can move money through it."""
    token = an_admins_token()
    cookies = {"Cookie": f"ref={token}; token={token}; Authorization=Bearer {token}; access_token={token}"}
    assert matrix.ask(call, None, headers=cookies).status_code == 401
    assert matrix.ask(call, None, headers={"Authorization": "Basic cDpw", **cookies}).status_code == 401


def an_admins_token() -> str:
    return bearer("admin", "admin")["Authorization"].removeprefix("Bearer ")


@pytest.mark.parametrize("call", ROUTES)
def test_a_token_in_the_address_is_no_token(matrix: Matrix, call: str) -> None:
    method, path = call.split(" ")[0], matrix.path(call, OWN)
    body = ROUTES[call].body if method != "GET" else None
    query = {name: an_admins_token() for name in ("access_token", "token", "authorization")}
    assert matrix.apis.call(method, path, None, params=query, json=body).status_code == 401


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("call", ROUTES)
def test_a_role_gets_in_where_the_contract_says_and_nowhere_else(matrix: Matrix, call: str, role: str) -> None:
    before = matrix.apis.written
    entry = getattr(ROUTES[call], role)
    answers = {whose: matrix.ask(call, role, whose) for whose in (OWN, FOREIGN, ABSENT)}
    statuses = {whose: answer.status_code for whose, answer in answers.items()}
    assert all(status < 500 for status in statuses.values()), answers[OWN].text
    if entry == "in":
        assert statuses[OWN] not in REFUSED, answers[OWN].text
        assert statuses[FOREIGN] not in REFUSED or role == "partner", answers[FOREIGN].text
    else:
        assert set(statuses.values()) == {403 if entry == "forbidden" else 404}
        assert same(answers[OWN]) == same(answers[FOREIGN]) == same(answers[ABSENT])
        assert matrix.apis.written == before


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("call", ROUTES)
def test_whoever_does_not_get_in_is_not_told_what_is_wrong_with_a_request(
    matrix: Matrix, call: str, wrong: str
) -> None:
    for role in ROLES:
        entry = getattr(ROUTES[call], role)
        its_own = "{partner_id}" in call and role == "partner"
        for whose in (OWN, FOREIGN, ABSENT) if entry == "forbidden" else (FOREIGN, ABSENT) if its_own else ():
            answer = matrix.apis.call(call.split(" ")[0], matrix.path(call, whose), role, **WRONG[wrong])
            assert answer.status_code == (403 if entry == "forbidden" else 404), (role, whose, answer.text)


@pytest.mark.parametrize("call", BY_PARTNERS_ID)
def test_a_foreign_id_answers_a_partner_byte_for_byte_like_an_absent_one(matrix: Matrix, call: str) -> None:
    before = matrix.apis.written
    foreign, absent = matrix.ask(call, "partner", FOREIGN), matrix.ask(call, "partner", ABSENT)
    assert foreign.status_code == 404
    assert same(foreign) == same(absent)
    assert matrix.apis.written == before


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("POST /payouts/partners/{partner_id}/topups", "account_id"),
        ("POST /payouts/partners/{partner_id}/withdrawals", "program_id"),
        ("POST /payouts/partners/{partner_id}/deposits", "program_id"),
        ("POST /attribution/partners/{partner_id}/links", "program_id"),
        ("POST /rewards/partners/{partner_id}/claims", "program_id"),
    ],
)
def test_an_id_in_a_body_tells_nothing_of_others_either(matrix: Matrix, call: str, name: str) -> None:
    foreign, absent = (
        matrix.apis.call("POST", matrix.path(call, OWN), "partner", json={**(ROUTES[call].body or {}), name: value})
        for value in (f"{FOREIGN}-account", ABSENT)
    )
    assert foreign.status_code in (404, 409)
    assert same(foreign) == same(absent)


@pytest.mark.parametrize("call", ABOUT_A_PROGRAM)
def test_a_partner_of_several_programs_has_to_say_which(matrix: Matrix, call: str) -> None:
    before = matrix.apis.written
    body = {name: value for name, value in (ROUTES[call].body or {}).items() if name != "program_id"}
    own, foreign, absent = (
        matrix.apis.call(call.split(" ")[0], matrix.path(call, whose), "partner", json=body)
        for whose in (OWN, FOREIGN, ABSENT)
    )
    assert (own.status_code, own.json()["code"]) == (422, "program_required")
    assert foreign.status_code == 404
    assert same(foreign) == same(absent)
    assert matrix.apis.written == before


@pytest.mark.parametrize("call", ABOUT_A_PROGRAM)
def test_a_partner_of_none_is_told_of_the_field(matrix: Matrix, call: str) -> None:
    answer = matrix.apis.call(call.split(" ")[0], matrix.path(call, ABSENT), "partner", ABSENT, json={})
    if call.startswith("POST /rewards/"):  # there a partner of one program may leave it out
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "provider")
    else:
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        assert "program_id" in [error["field"] for error in answer.json()["errors"]]


@pytest.mark.parametrize("path", ["/commission/partners/{}/tier", "/rewards/partners/{}/store"])
def test_a_partner_of_no_program_has_none_to_name(matrix: Matrix, path: str) -> None:
    own = matrix.apis.call("GET", path.format(OWN), "partner")
    absent = matrix.apis.call("GET", path.format(ABSENT), "partner", ABSENT)
    assert (own.status_code, own.json()["code"]) == (422, "program_required")
    assert (absent.status_code, absent.json()["code"]) == (404, "not_found")


def test_the_platform_sees_no_destination_and_an_admin_and_the_partner_its_end(matrix: Matrix) -> None:
    call = "GET /payouts/partners/{partner_id}/withdrawals"
    shown = {role: matrix.ask(call, role).json()["items"][-1]["destination"] for role in ROLES}
    assert shown == {"partner": "4149", "platform": None, "admin": "4149"}


@pytest.mark.parametrize("call", sorted(PUBLIC - {"GET /attribution/r/{code}"}))
def test_health_tells_nothing_of_anybody(matrix: Matrix, call: str) -> None:
    answer = matrix.ask(call, None)
    assert answer.status_code == 200
    assert OWN not in answer.text and FOREIGN not in answer.text


def test_every_route_but_health_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller whose limit is spent gets nowhere; a route that forgot to count would let it."""
    monkeypatch.setattr(rates, "REFUSAL_DELAY_SECONDS", 0)
    monkeypatch.setattr(rates, "REFUSAL_SECONDS", 3_600)  # however slow the machine is
    own = settings(rate_limit_partner=1, rate_limit_trusted=1, rate_limit_public=1)
    with four_apis(RateLimits(own, MemoryStorage())) as apis:
        matrix = Matrix(apis, {OWN: dict.fromkeys(("partner_id", "code"), OWN)})
        for role in (*ROLES, None):
            path = "/attribution/r/none" if role is None else f"/commission/partners/{OWN}/tier"
            spent = [apis.call("GET", path, role, json=None).status_code for _ in range(WINDOW_SECONDS + 1)]
            assert spent[-1] == 429 and 429 not in spent[:-1]
        for call in apis.operations:
            counted = call in ROUTES or call == "GET /attribution/r/{code}"
            for role in ROLES if call in ROUTES else (None,):
                answer = matrix.ask(call, role, ABSENT)
                assert (answer.status_code == 429) == counted, (call, role)
                if counted:
                    assert (answer.json()["code"], int(answer.headers["Retry-After"]) >= 1) == ("rate_limited", True)
