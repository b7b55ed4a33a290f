"""What pages ask the APIs for: terms and activation, own decisions, search, quotes, administrators' lists."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.four_apis import FOREIGN, OWN, FourApis, four_apis, with_partners


@pytest.fixture(scope="module")
def past() -> Iterator[tuple[FourApis, dict[str, dict[str, str]]]]:
    with four_apis() as apis:
        yield apis, with_partners(apis)


@pytest.fixture(scope="module")
def apis(past: tuple[FourApis, dict[str, dict[str, str]]]) -> FourApis:
    return past[0]


@pytest.fixture(scope="module")
def ids(past: tuple[FourApis, dict[str, dict[str, str]]]) -> dict[str, dict[str, str]]:
    return past[1]


def _get(apis: FourApis, path: str, role: str = "partner", **params: Any) -> Any:
    answer = apis.call("GET", path, role, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_partner_sees_the_terms_of_every_program_that_is_on_and_since_when_it_takes_part(apis: FourApis) -> None:
    shown = _get(apis, f"/attribution/partners/{OWN}/programs")["programs"]
    assert [each["program_id"] for each in shown] == sorted(each["program_id"] for each in shown)
    keycrm = next(each for each in shown if each["program_id"] == "keycrm")
    assert keycrm["activated_at"] is not None
    assert keycrm["document"]["terms"][0]["tiers"][1] == {"from_clients": 6, "rate": "0.20"}
    fresh = apis.call("GET", "/attribution/partners/fresh/programs", "partner", "fresh").json()["programs"]
    assert {each["activated_at"] for each in fresh} == {None}


def test_somebody_activates_a_program_on_the_programs_conditions(apis: FourApis) -> None:
    path = "/attribution/partners/fresh/activations"

    def ask(program_id: str, accepted: bool) -> tuple[int, str | None]:
        body = {"program_id": program_id, "accepted_terms": accepted}
        answer = apis.call("POST", path, "partner", "fresh", json=body)
        return answer.status_code, answer.json().get("code")

    assert ask("jupsoft", False) == (409, "terms_not_accepted")
    assert ask("keycrm", True) == (409, "account_required")
    assert ask("nothing", True) == (404, "not_found")
    assert ask("jupsoft", True) == (201, None)
    early = {"program_id": "jupsoft", "accepted_terms": True, "activated_at": "2020-01-01T00:00:00Z"}
    assert apis.call("POST", path, "partner", "fresh", json=early).status_code == 422


def test_accounts_are_named_as_the_platform_named_them(apis: FourApis) -> None:
    shown = _get(apis, f"/attribution/partners/{OWN}/accounts")["accounts"]
    assert [(each["account_id"], each["name"], each["closed_at"]) for each in shown] == [(f"{OWN}-account", None, None)]


def test_a_partner_reads_the_decisions_on_its_own_customers_alone(apis: FourApis) -> None:
    signup = _get(apis, f"/attribution/partners/{OWN}/referrals/{OWN}-client/decision")
    assert (signup["outcome"], signup["method"], signup["partner_id"]) == ("attributed", "click", OWN)
    assert "considered" not in signup["inputs"]
    payment = _get(apis, f"/commission/partners/{OWN}/payments/{OWN}-payment/decision")
    assert payment["arithmetic"] == ["5000.00 USD × 0.10 = 500.00 USD"]
    for path in (
        f"/attribution/partners/{OWN}/referrals/{FOREIGN}-client/decision",
        f"/attribution/partners/{OWN}/referrals/{OWN}-client-3/decision",  # nobody's
        f"/commission/partners/{OWN}/payments/{FOREIGN}-payment/decision",
    ):
        assert apis.call("GET", path, "partner").status_code == 404


def test_lists_are_searched_and_kept_to_a_program(apis: FourApis) -> None:
    referrals, commissions = f"/attribution/partners/{OWN}/referrals", f"/commission/partners/{OWN}/commissions"
    assert len(_get(apis, referrals)["items"]) == 2
    assert [each["customer_id"] for each in _get(apis, referrals, search=" CLIENT-2 ")["items"]] == [f"{OWN}-client-2"]
    assert _get(apis, referrals, search="nobody")["items"] == []
    assert len(_get(apis, commissions, program_id="keycrm", search=f"{OWN}-client")["items"]) == 1
    assert _get(apis, commissions, program_id="jupsoft")["items"] == []
    assert _get(apis, commissions, pending="true")["items"] == []


def test_a_quote_is_what_the_command_then_does(apis: FourApis) -> None:
    path, usd = f"/payouts/partners/{OWN}/topup-quote", {"currency": "USD", "program_id": "keycrm"}
    assert _get(apis, path, minor=700, **usd)["credited"]["minor"] == 2100
    body = {"program_id": "keycrm", "account_id": f"{OWN}-account", "amount": {"minor": 700, "currency": "USD"}}
    done = apis.call("POST", f"/payouts/partners/{OWN}/topups", "partner", json=body).json()
    assert done["credited"]["minor"] == 2100
    refusals = [
        apis.call("GET", path, "partner", params={**usd, **more}).json()["code"]
        for more in ({"minor": 9_999_999}, {"minor": 1, "program_id": "jupsoft"}, {"minor": 1, "program_id": "no"})
    ]
    assert refusals == ["insufficient_balance", "topup_not_offered", "not_found"]


def test_a_clients_price_is_worked_out_before_it_is_paid(apis: FourApis) -> None:
    path = f"/payouts/partners/{OWN}/client-payment-quote"
    asked = {"program_id": "message-help", "customer_id": f"{OWN}-new", "integration": "amo", "currency": "EUR"}
    shown = _get(apis, path, minor=43_200, **asked)
    amounts = [shown[name]["minor"] for name in ("list_price", "discount", "charged")]
    assert (amounts, shown["discount_rate"], shown["clients"]) == ([43_200, 15_120, 28_080], "0.35", 1)
    assert (shown["affordable"], shown["bonus_applicable"]) == (False, False)  # the bonus is 60 days old
    fresh = {"partner_id": "bonus-1", "program_id": "message-help", "accepted_terms": True}
    assert apis.call("POST", "/attribution/partners", "platform", json=fresh).status_code == 201
    for interval, applicable in (("month", True), ("year", False)):
        query = {**asked, "minor": 43_200, "interval": interval}
        quote = apis.call("GET", path.replace(OWN, "bonus-1"), "partner", "bonus-1", params=query).json()
        assert quote["bonus_applicable"] is applicable
    foreign = apis.call("GET", path, "partner", params={**asked, "minor": 1, "customer_id": f"{FOREIGN}-client"})
    assert foreign.status_code == 404
    unknown = apis.call("GET", path, "partner", params={**asked, "minor": 1, "integration": "telepathy"})
    assert unknown.json()["errors"][0]["field"] == "integration"


def test_an_administrator_finds_what_waits_and_the_bank_alone_sees_destinations(
    apis: FourApis, ids: dict[str, dict[str, str]]
) -> None:
    both = (OWN, FOREIGN)
    waiting = _get(apis, "/payouts/withdrawals", "admin", status="processing")["items"]
    assert {each["withdrawal_id"] for each in waiting} == {ids[each]["withdrawal_id"] for each in both}
    assert {each["destination"] for each in waiting} == {"4149"}
    assert _get(apis, "/payouts/withdrawals", "admin", status="paid")["items"] == []
    file = apis.call("GET", "/payouts/withdrawals", "admin", headers={"accept": "text/csv"})
    assert file.headers["content-type"].startswith("text/csv")
    assert file.text.count("UA903052992990004149") == 2
    deposits = _get(apis, "/payouts/deposits", "admin", status=["pending", "invoiced"])["items"]
    assert {each["deposit_id"] for each in deposits} == {ids[each]["deposit_id"] for each in both}
    assert [each["deposit_id"] for each in _get(apis, f"/payouts/partners/{OWN}/deposits")["items"]] == [
        ids[OWN]["deposit_id"]
    ]
    claims = _get(apis, "/rewards/claims", "admin", status="requested")["items"]
    assert {(each["partner_id"], each["claim_id"]) for each in claims} == {(p, ids[p]["claim_id"]) for p in both}


def test_an_administrator_settles_a_claim_once(apis: FourApis, ids: dict[str, dict[str, str]]) -> None:
    path = f"/rewards/claims/{ids[FOREIGN]['claim_id']}/settle"
    done = [apis.call("POST", path, "admin", json={"status": "failed"}).json() for _ in range(2)]
    assert (done[0]["status"], done[1]["code"]) == ("failed", "already_settled")


def test_partners_are_listed_and_found(apis: FourApis) -> None:
    listed = _get(apis, "/attribution/partners", "admin", program_id="keycrm")["items"]
    assert {each["partner_id"] for each in listed} == {OWN, FOREIGN}
    assert [each["partner_id"] for each in _get(apis, "/attribution/partners", "admin", search="OWN-")["items"]] == [
        OWN
    ]


def test_companies_are_shown_in_another_order_without_setting_it(apis: FourApis) -> None:
    path = f"/rewards/partners/{OWN}/companies"
    before = _get(apis, path, program_id="active-referrals")
    assert [each["account_id"] for each in before["companies"]] == [f"{OWN}-account"]
    assert before["referrals_per_account"] == 20
    other = _get(apis, path, program_id="active-referrals", order=["nobodys", f"{OWN}-account"])
    assert other == before
    assert apis.call("GET", path, "partner", params={"program_id": "keycrm"}).status_code == 404
