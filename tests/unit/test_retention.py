"""Retention claims: asked by the partner, judged by an admin, decided by the client's own key."""

from itertools import count
from typing import Any

import pytest

from schemas import commands, events, internal
from schemas.commands import Answered
from schemas.events import Event
from schemas.moments import DAY, parse_instant
from schemas.programs import Programs, shipped
from services.attribution import views
from services.attribution.state import referral_row_id
from tests.attribution_bench import Bench

START = parse_instant("2025-03-01T00:00:00Z")
OFF = next(program for program in shipped() if program.program_id == "message-help").model_copy(
    update={"program_id": "off", "enabled": False}
)
numbers = count()


@pytest.fixture
def bench() -> Bench:
    """ann and bea, partners of message-help; ann of keycrm and of a program that is off as well."""
    bench = Bench(Programs.of(*shipped(), OFF))
    bench.fold(happened(events.CustomerSignedUp(customer_id="ann", email="ann@example.com")))
    bench.fold(happened(events.AccountCreated(customer_id="ann", account_id="ann-crm")))
    for partner, program in (("ann", "message-help"), ("bea", "message-help"), ("ann", "keycrm"), ("ann", "off")):
        fields = {"program_id": program, "accepted_terms": True}
        assert bench.ask(commands.ActivatePartner(**asked(partner), **fields), START).status == 201
    return bench


def happened(data: events.Payload, at: int = START) -> Event:
    return Event(f"e-{next(numbers)}", "platform", at, data)


def asked(partner: str, caller: str = "") -> dict[str, Any]:
    own = {"command_id": f"cmd-{next(numbers)}", "body_hash": "hash", "partner_id": partner}
    return {**own, "caller": caller or f"partner:{partner}"}


def claim(bench: Bench, customer: str = "old", partner: str = "ann", program: str = "message-help") -> Answered:
    fields = {"program_id": program, "customer_id": customer, "evidence": "our letter"}
    return bench.ask(commands.RequestRetention(**asked(partner), **fields), START + DAY)


def settle(bench: Bench, claimed: Answered | str, approve: bool, partner: str = "ann", at: int = 2 * DAY) -> Answered:
    claim_id = claimed if isinstance(claimed, str) else claimed.body["claim_id"]
    reason = None if approve else "no proof"
    fields = {"claim_id": claim_id, "approve": approve, "reason": reason}
    return bench.ask(commands.SettleRetention(**asked(partner, "admin:admin"), **fields), START + at)


def outcome(answer: Answered) -> Any:
    return (answer.status, answer.body.get("code") or answer.body["status"])


def sign_up(bench: Bench, customer: str = "old", **other: Any) -> None:
    bench.fold(happened(events.CustomerSignedUp(customer_id=customer, **other)))


def promo_code(bench: Bench, partner: str) -> str:
    code = bench.ask(commands.CreatePromoCode(**asked(partner), program_id="message-help"), START).body["code"]
    return str(code)


def test_an_approved_claim_binds_the_client_from_then_on(bench: Bench) -> None:
    sign_up(bench, existing_customer=True)
    made = claim(bench)
    assert outcome(made) == (201, "requested")
    assert outcome(settle(bench, made, True)) == (200, "approved")
    (bound,) = (data for data in bench.said if isinstance(data, events.ReferralAttributed))
    assert (bound.partner_id, bound.method, bound.attributed_at) == ("ann", "retention", START + 2 * DAY)
    decision = views.decision_shown("old", bench.state("attribution.people", "old").decision)
    assert (decision.outcome, decision.method, decision.rule) == ("attributed", "retention", "retention")
    assert decision.inputs["signup"] == "no_click"
    assert decision.inputs["approved_by"] == "admin:admin"


def test_a_rejected_claim_says_why_and_binds_nobody(bench: Bench) -> None:
    made = claim(bench)
    assert outcome(settle(bench, made, False)) == (200, "rejected")
    (said,) = (data for data in bench.said if isinstance(data, events.RetentionRejected))
    assert said.reason == "no proof"
    assert not any(isinstance(data, events.ReferralAttributed) for data in bench.said)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_a_claim_is_settled_once(bench: Bench, first: bool, second: bool) -> None:
    made = claim(bench)
    settle(bench, made, first)
    assert outcome(settle(bench, made, second)) == (409, "already_settled")


def test_a_claim_that_is_being_approved_is_settled_already(bench: Bench) -> None:
    """Before the client's own key has answered, a second word on the claim is one too many."""
    made = claim(bench)
    state = bench.state("attribution.people", "ann")
    fields = {"claim_id": made.body["claim_id"], "approve": True}
    asked_for = commands.SettleRetention(**asked("ann", "admin:admin"), **fields)
    bench._fold_at("attribution.people", Event("e", "/attribution", START, asked_for))  # and what follows is on its way
    assert views.claims("ann", bench.state("attribution.people", "ann"), "requested") == views.claims(
        "ann", state, "requested"
    )
    assert outcome(settle(bench, made, False)) == (409, "already_settled")


def test_the_same_approval_sent_twice_has_one_answer(bench: Bench) -> None:
    """A caller who repeats a request before its answer is there writes the command twice."""
    sign_up(bench)
    fields = {"claim_id": claim(bench).body["claim_id"], "approve": True}
    command = commands.SettleRetention(**asked("ann", "admin:admin"), **fields)
    twice = [Event(f"e-{number}", "/attribution", START, command) for number in range(2)]
    on_their_way = [event for one in twice for event in bench._fold_at("attribution.people", one)]
    assert [event.type for event in on_their_way] == ["binding.requested"]
    assert command.command_id not in bench.reader.decided
    bench.fold(*on_their_way)
    assert outcome(bench.reader.decided[command.command_id]) == (200, "approved")


@pytest.mark.parametrize(
    ("partner", "program", "customer", "status", "code"),
    [
        ("bea", "keycrm", "old", 404, "not_found"),
        ("ann", "keycrm", "old", 409, "retention_not_offered"),
        ("ann", "off", "ann", 409, "program_disabled"),
        ("ann", "message-help", "ann", 409, "self_referral"),
    ],
)
def test_a_claim_is_refused(bench: Bench, partner: str, program: str, customer: str, status: int, code: str) -> None:
    assert outcome(claim(bench, customer, partner, program)) == (status, code)


@pytest.mark.parametrize("partner", ["ann", "bea"])
def test_a_client_who_is_bound_to_anybody_cannot_be_claimed(bench: Bench, partner: str) -> None:
    sign_up(bench, promo_code=promo_code(bench, "bea"))
    assert outcome(claim(bench, partner=partner)) == (409, "already_referred")


def test_a_partner_does_not_claim_itself_under_another_id(bench: Bench) -> None:
    sign_up(bench, email=" Ann@Example.com")
    assert outcome(claim(bench)) == (409, "self_referral")


def test_who_turns_out_to_be_the_partner_is_not_bound(bench: Bench) -> None:
    made = claim(bench)
    sign_up(bench, email="ann@example.com")
    assert outcome(settle(bench, made, True)) == (409, "self_referral")
    assert not any(isinstance(data, events.ReferralAttributed) for data in bench.said)


def test_the_first_binding_wins_over_a_later_approval(bench: Bench) -> None:
    made = claim(bench)
    sign_up(bench, promo_code=promo_code(bench, "bea"))
    assert outcome(settle(bench, made, True)) == (409, "already_referred")
    (declined,) = (data for data in bench.said if isinstance(data, events.ReferralDeclined) and data.partner_id)
    assert (declined.reason, declined.partner_id) == ("already_referred", "ann")
    (shown,) = views.claims("ann", bench.state("attribution.people", "ann"), "rejected")
    assert shown.reason == "already_referred"
    assert bench.state("attribution.people", "old").decision.partner_id == "bea"


def test_of_two_claims_on_one_client_the_first_approval_wins(bench: Bench) -> None:
    one, other = claim(bench, partner="ann"), claim(bench, partner="bea")
    assert outcome(settle(bench, other, True, "bea")) == (200, "approved")
    assert outcome(settle(bench, one, True)) == (409, "already_referred")


def test_a_signup_that_arrives_after_the_approval_finds_the_client_bound(bench: Bench) -> None:
    settle(bench, claim(bench), True)
    sign_up(bench, promo_code=promo_code(bench, "bea"))
    (declined,) = (data for data in bench.said if isinstance(data, events.ReferralDeclined) and data.partner_id)
    assert (declined.reason, declined.partner_id) == ("already_referred", "ann")
    row = bench.reader.rows_by_key["attribution.people", "ann"][referral_row_id("old")]
    assert (row.attributed_at, row.signed_up_at) == (START + 2 * DAY, START)


def test_a_retained_client_is_no_signup_of_the_partners(bench: Bench) -> None:
    sign_up(bench)
    settle(bench, claim(bench), True)
    (listed,) = (data for data in bench.said if isinstance(data, internal.ReferralListed))
    assert (listed.method, listed.signed_up_at) == ("retention", START)
    rows = bench.reader.rows_by_key["attribution.people", "ann"]
    assert views.statistics(rows, None, None).signups == 0
    assert [referral.customer_id for referral in views.referrals_before(rows, START + 3 * DAY)] == ["old"]


def test_an_unknown_claim_is_not_found(bench: Bench) -> None:
    assert outcome(settle(bench, "claim_absent", True)) == (404, "not_found")
