"""What people, partners and programs ask of attribution, and what it answers."""

from itertools import count
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import commands, events
from schemas.commands import Answered
from schemas.events import Event
from schemas.moments import DAY, SECOND, parse_instant
from schemas.programs import Programs, shipped
from schemas.programs.terms import Program
from services.attribution import signer_of
from services.attribution.codes import destination_allowed, normalised
from services.attribution.contacts import marks
from services.attribution.cookie import Visit
from services.runtime.profiles import Contact, Profile
from tests.attribution_bench import Bench
from tests.http_fakes import settings

START = parse_instant("2025-03-01T00:00:00Z")
KEYCRM = next(program for program in shipped() if program.program_id == "keycrm")
numbers = count()


@pytest.fixture
def bench() -> Bench:
    """All five programs, and anna: a partner of keycrm and message-help with an account of her own."""
    bench = Bench(Programs.of(*shipped()))
    bench.fold(
        happened(events.CustomerSignedUp(customer_id="anna", email="anna@example.com")),
        happened(events.AccountCreated(customer_id="anna", account_id="anna-crm")),
    )
    for program_id in ("keycrm", "message-help"):
        assert activate(bench, program_id=program_id).status == 201
    return bench


def happened(data: events.Payload, at: int = START) -> Event:
    return Event(f"e-{next(numbers)}", "platform", at, data)


def asked(partner_id: str) -> dict[str, Any]:
    return {
        "command_id": f"cmd-{next(numbers)}",
        "body_hash": "hash",
        "caller": f"partner:{partner_id}",
        "partner_id": partner_id,
    }


def activate(bench: Bench, partner_id: str = "anna", at: int = START, **other: Any) -> Answered:
    fields = {"program_id": "keycrm", "accepted_terms": True, **other}
    return bench.ask(commands.ActivatePartner(**asked(partner_id), **fields), at)


def create_link(bench: Bench, partner_id: str = "anna", **other: Any) -> Answered:
    fields = {"program_id": "keycrm", "public_url": "https://go.example.com/", **other}
    return bench.ask(commands.CreateLink(**asked(partner_id), **fields), START)


def create_promo_code(bench: Bench, code: str | None = None, partner_id: str = "anna", **other: Any) -> Answered:
    fields = {"program_id": "message-help", "code": code, **other}
    return bench.ask(commands.CreatePromoCode(**asked(partner_id), **fields), START)


def sign_up(bench: Bench, customer_id: str = "bob", at: int = START + DAY, **other: Any) -> events.Payload:
    """The outcome of a signup."""
    said = bench.fold(happened(events.CustomerSignedUp(customer_id=customer_id, **other), at))
    return said[0]


# --- activation -----------------------------------------------------------------------------------------------------


def test_an_activation_is_said_once_and_answered_again_with_its_first_time(bench: Bench) -> None:
    before = len(bench.said)
    again = activate(bench, at=START + DAY, activated_at=START - DAY)
    assert (again.status, again.body["activated_at"]) == (201, "2025-03-01T00:00:00Z")
    assert bench.said[before:] == []


@pytest.mark.parametrize(
    ("partner_id", "asked_for", "status", "code"),
    [
        ("anna", {"program_id": "nothing"}, 404, "not_found"),
        ("bert", {"accepted_terms": False}, 409, "terms_not_accepted"),
        ("bert", {}, 409, "account_required"),
        ("bert", {"program_id": "jupsoft", "activated_at": START + 1}, 422, "invalid"),
        ("bert", {"program_id": "jupsoft", "accepted_terms": False}, 409, "terms_not_accepted"),
    ],
)
def test_an_activation_is_refused(
    bench: Bench, partner_id: str, asked_for: dict[str, Any], status: int, code: str
) -> None:
    answer = activate(bench, partner_id, **asked_for)
    assert (answer.status, answer.body["code"]) == (status, code)


def test_a_closed_account_is_no_account(bench: Bench) -> None:
    bench.fold(
        happened(events.AccountClosed(customer_id="bert", account_id="b-1"), START + 2),
        happened(events.AccountCreated(customer_id="bert", account_id="b-1"), START + 1),
    )
    assert activate(bench, "bert").body["code"] == "account_required"
    bench.fold(happened(events.AccountCreated(customer_id="bert", account_id="b-2")))
    assert activate(bench, "bert").status == 201


def test_an_activation_may_be_dated_back_and_is_dated_like_that(bench: Bench) -> None:
    activate(bench, "bert", program_id="jupsoft", activated_at=START - 100 * DAY, email="Bert@Example.com")
    activated = bench.said[-1]
    assert isinstance(activated, events.PartnerActivated)
    assert (activated.activated_at, activated.email) == (START - 100 * DAY, "Bert@Example.com")


# --- links and promo codes ------------------------------------------------------------------------------------------


def test_a_link_leads_to_the_programs_default_unless_the_partner_says_otherwise(bench: Bench) -> None:
    answer = create_link(bench)
    assert answer.status == 201
    assert answer.body["url"] == f"https://go.example.com/attribution/r/{answer.body['code']}"
    assert answer.body["destination"] == "https://crm.example.com/signup"
    other = create_link(bench, destination="https://crm.example.com/prices?from=anna")
    assert other.body["destination"] == "https://crm.example.com/prices?from=anna"
    assert other.body["code"] != answer.body["code"]
    assert {link.code for link in bench.state("attribution.people", "anna").links} == {
        answer.body["code"],
        other.body["code"],
    }


def test_the_same_command_twice_gives_one_link(bench: Bench) -> None:
    command = commands.CreateLink(**asked("anna"), program_id="keycrm", public_url="https://go.example.com")
    first, again = bench.ask(command, START), bench.ask(command, START)
    assert first == again
    assert sum(isinstance(data, events.LinkCreated) for data in bench.said) == 1


@pytest.mark.parametrize(
    ("destination", "allowed"),
    [
        ("https://crm.example.com", True),
        ("http://crm.example.com/a?b=c#d", True),
        ("https://CRM.example.com/", True),
        ("https://crm.example.com:443/", True),
        ("https://crm.example.com:8443/", False),
        ("https://crm.example.com.evil.example/", False),
        ("https://evil.example/crm.example.com", False),
        ("https://sub.crm.example.com/", False),
        ("https://crm.example.com@evil.example/", False),
        ("https://user@crm.example.com/", False),
        ("https://evil.example\\@crm.example.com/", False),
        ("https://crm.example.com\\.evil.example/", False),
        ("https:crm.example.com", False),
        ("https:///crm.example.com/", False),
        ("//crm.example.com/", False),
        ("javascript://crm.example.com/%0aalert(1)", False),
        ("ftp://crm.example.com/", False),
        (" https://crm.example.com/", False),
        ("https://crm.example.com/\r\nSet-Cookie: a=b", False),
        ("https://crm.example.com./", False),
        ("https://crm.еxample.com/", False),
        ("https://[crm.example.com/", False),
        ("https://crm.example.com/" + "x" * 3000, False),
        ("", False),
        # what a browser reads as another scheme or host
        ("//evil.example/", False),
        ("\\\\evil.example/", False),
        ("/\\evil.example/", False),
        ("/signup", False),
        ("javascript:alert(1)", False),
        ("JaVaScRiPt:alert(1)", False),
        ("java\nscript:alert(1)", False),
        ("data:text/html,<script>alert(1)</script>", False),
        ("vbscript:x", False),
        ("file:///etc/passwd", False),
        ("blob:https://crm.example.com/1", False),
        ("ht\ttps://crm.example.com/", False),
        ("https:/crm.example.com/", False),
        ("https:\\\\crm.example.com/", False),
        ("https:///evil.example/", False),
        ("https:////crm.example.com/", False),
        # user names, encoded delimiters, ports
        ("https://crm.example.com:@evil.example/", False),
        ("https://crm.example.com:443@evil.example/", False),
        ("https://:@crm.example.com/", False),
        ("https://@crm.example.com/", False),
        ("https://crm.example.com%40evil.example/", False),
        ("https://crm.example.com%2eevil.example/", False),
        ("https://crm.example.com%2f.evil.example/", False),
        ("https://evil.example%2fcrm.example.com/", False),
        ("https://crm.example.com%00.evil.example/", False),
        ("https://crm.example.com:80/", False),
        ("http://crm.example.com:443/", False),
        ("https://crm.example.com:0443/", False),
        ("https://crm.example.com:443:443/", False),
        ("https://crm.example.com:/", False),
        ("https://crm.example.com:evil/", False),
        # hosts that look alike, or are normalised to something else
        ("https://crm.example.com..evil.example/", False),
        ("https://crm.example.com..", False),
        ("https://crm-example.com/", False),
        ("https://crmexample.com/", False),
        ("https://xcrm.example.com/", False),
        ("https://crm.example.comx/", False),
        ("https://crm.example.co/", False),
        ("https://example.com/", False),
        ("https://crm\u3002example\u3002com/", False),
        ("https://\uff43\uff52\uff4d.example.com/", False),
        ("https://crm.example.com\u2024evil.example/", False),
        ("https://crm.example.com\uff0fevil.example/", False),
        ("https://crm\u200b.example.com/", False),
        ("https://xn--crm-9cd.example.com/", False),
        ("https://2130706433/", False),
        ("https://[::1]/", False),
        ("https://[crm.example.com]/", False),
        # what would break a header
        ("https://crm.example.com/\nLocation: https://evil.example", False),
        ("https://crm.example.com/\x00", False),
        ("https://crm.example.com/\x7f", False),
        ("https://crm.example.com/\x85", False),
        ("https://crm.example.com/\u2028", False),
        ("https://crm.example.com/ ", False),
        # strange, but on the program's own host
        ("https://crm.example.com/%0d%0aSet-Cookie:%20a=b", True),
        ("https://crm.example.com//evil.example/", True),
        ("https://crm.example.com?@evil.example/", True),
        ("https://crm.example.com#@evil.example/", True),
        ("https://crm.example.com/@evil.example", True),
        ("https://crm.example.com/?next=https://evil.example/", True),
        ("http://crm.example.com:80/", True),
    ],
)
def test_a_link_leads_to_the_programs_own_hosts_alone(destination: str, allowed: bool) -> None:
    assert destination_allowed(KEYCRM, destination) is allowed


_PIECES = ["https:", "http:", "//", "/", "\\", "@", ":", "443", "80", ".", "crm.example.com", "evil.example", "?", "#"]
_PIECES += ["%2e", "%40", "%2f", " ", "\t", "\n", "[", "]", "user", "\u3002", "xn--", "CRM.EXAMPLE.COM"]


@given(st.lists(st.sampled_from(_PIECES), max_size=8).map("".join) | st.text(max_size=40).map("https://".__add__))
def test_another_reader_of_addresses_sees_the_programs_host_too(destination: str) -> None:
    if destination_allowed(KEYCRM, destination):
        address = httpx.URL(destination)
        assert (address.host, address.port, address.userinfo) == ("crm.example.com", None, b"")
        assert address.scheme in ("http", "https")


def test_a_foreign_destination_is_refused_by_name(bench: Bench) -> None:
    answer = create_link(bench, destination="https://evil.example/")
    assert (answer.status, answer.body["code"]) == (422, "destination_not_allowed")


def test_only_partners_of_the_program_get_links_codes_and_orders(bench: Bench) -> None:
    order = commands.OrderAccounts(**asked("anna"), program_id="jupsoft", account_ids=("a",))
    for answer in (
        create_link(bench, "bert"),
        create_link(bench, program_id="jupsoft"),
        create_promo_code(bench, partner_id="bert"),
        bench.ask(order, START),
    ):
        assert (answer.status, answer.body["code"]) == (404, "not_found")


def test_a_promo_code_is_compared_trimmed_and_without_case(bench: Bench) -> None:
    activate(bench, "bert", program_id="message-help")
    assert create_promo_code(bench, " Summer-25 ").body == {"program_id": "message-help", "code": "Summer-25"}
    taken = create_promo_code(bench, "SUMMER-25", partner_id="bert")
    assert (taken.status, taken.body["code"]) == (409, "code_taken")
    outcome = sign_up(bench, promo_code="  sUmMeR-25")
    assert isinstance(outcome, events.ReferralAttributed)
    assert (outcome.partner_id, outcome.method) == ("anna", "promo_code")


def test_a_partner_who_names_no_promo_code_gets_one(bench: Bench) -> None:
    first, second = create_promo_code(bench), create_promo_code(bench)
    assert first.body["code"] != second.body["code"]
    assert isinstance(sign_up(bench, promo_code=first.body["code"].lower()), events.ReferralAttributed)


@pytest.mark.parametrize("code", ["ab", "a b c", "x" * 65, "50%", "  a "])
def test_a_promo_code_has_letters_and_digits(bench: Bench, code: str) -> None:
    answer = create_promo_code(bench, code)
    assert (answer.status, answer.body["errors"][0]["field"]) == (422, "code")


def test_codes_are_normalised_once_and_for_all() -> None:
    assert normalised(" ＳＵＭＭＥＲ ") == normalised("summer") == "summer"
    assert normalised(normalised("Straße")) == normalised("STRASSE")


def test_an_order_of_accounts_is_passed_on_with_its_time(bench: Bench) -> None:
    order = commands.OrderAccounts(**asked("anna"), program_id="keycrm", account_ids=("b", "a"), effective_at=START - 5)
    answer = bench.ask(order, START)
    assert (answer.status, answer.body["account_ids"]) == (200, ["b", "a"])
    ordered = bench.said[-1]
    assert isinstance(ordered, events.AccountsOrdered)
    assert (ordered.account_ids, ordered.effective_at) == (("b", "a"), START - 5)
    twice = commands.OrderAccounts(**asked("anna"), program_id="keycrm", account_ids=("b", "b"))
    assert bench.ask(twice, START).body["errors"][0]["field"] == "account_ids"


# --- signups --------------------------------------------------------------------------------------------------------


def test_a_signup_through_a_link_is_bound_and_listed_with_the_partner(bench: Bench) -> None:
    code = create_link(bench).body["code"]
    outcome = sign_up(bench, clicks=(events.Click(code=code.upper(), clicked_at=START),))
    assert outcome == events.ReferralAttributed(
        customer_id="bob",
        partner_id="anna",
        program_id="keycrm",
        program_version=1,
        method="click",
        attributed_at=START + DAY,
    )
    row = bench.reader.rows_by_key["attribution.people", "anna"]["r:bob"]
    assert (row.listed, row.signed_up_at, row.earning) == (True, START + DAY, None)


@pytest.mark.parametrize("odd", ["", " ", "\x00", "x" * 257, "ﷺ" * 50_000, "{code}" + " " * 300 + "x"])
def test_a_click_with_any_text_for_a_code_is_set_aside_as_an_unknown_one(bench: Bench, odd: str) -> None:
    code = create_link(bench).body["code"]
    clicks = (
        events.Click(code=odd.format(code=code), clicked_at=START),
        events.Click(code=code, clicked_at=START + SECOND),
    )
    assert isinstance(sign_up(bench, clicks=clicks), events.ReferralAttributed)
    declined = sign_up(bench, "carl", clicks=clicks[:1], promo_code=odd)
    assert isinstance(declined, events.ReferralDeclined)
    assert declined.reason == "unknown_code"
    decision = bench.state("attribution.people", "carl").decision
    assert [click["taken_as"] for click in decision.inputs["clicks"]] == ["unknown_code"]
    assert len(str(decision.inputs)) < 20_000


def test_a_signup_with_the_cookies_value_is_bound(bench: Bench) -> None:
    code = create_link(bench).body["code"]
    value = signer_of(settings()).write(Visit("visitor").clicked(code, START))
    assert isinstance(sign_up(bench, click_token=value), events.ReferralAttributed)
    tampered = sign_up(bench, "cleo", click_token=value[:-2] + "xx")
    assert isinstance(tampered, events.ReferralDeclined)
    assert tampered.reason == "invalid_token"


def test_activity_may_arrive_before_the_listing(bench: Bench) -> None:
    code = create_link(bench).body["code"]
    span = ((START, START + 10 * DAY),)
    activity = events.ActivityChanged(partner_id="anna", program_id="keycrm", customer_id="bob", earning=span)
    bench.fold(happened(activity))
    assert not bench.reader.rows_by_key["attribution.people", "anna"]["r:bob"].listed
    sign_up(bench, clicks=(events.Click(code=code, clicked_at=START),))
    row = bench.reader.rows_by_key["attribution.people", "anna"]["r:bob"]
    assert (row.listed, row.earning) == (True, span)


def test_what_the_partner_gave_at_its_own_signup_tells_that_it_refers_itself(bench: Bench) -> None:
    code = create_link(bench).body["code"]
    outcome = sign_up(bench, clicks=(events.Click(code=code, clicked_at=START),), email="ANNA@example.com")
    assert isinstance(outcome, events.ReferralDeclined)
    assert (outcome.reason, outcome.partner_id, outcome.program_id) == ("self_referral", "anna", "keycrm")


def test_the_same_signup_again_changes_nothing_and_another_is_a_dead_letter(bench: Bench) -> None:
    first = happened(events.CustomerSignedUp(customer_id="bob", name="Bob"))
    bench.fold(first)
    assert bench.fold(Event("other", "platform", first.time, first.data)) == []
    assert bench.fold(happened(events.CustomerSignedUp(customer_id="bob", name="Rob"))) == []
    assert [letter.reason for letter in bench.dead_letters] == ["conflicting_repeat"]


def test_an_account_that_was_created_without_a_name_gets_none_from_a_conflicting_repeat(bench: Bench) -> None:
    bench.fold(happened(events.AccountCreated(customer_id="bob", account_id="b-1")))
    bench.fold(happened(events.AccountCreated(customer_id="bob", account_id="b-1", name="Rob's")))
    assert [letter.reason for letter in bench.dead_letters] == ["conflicting_repeat"]
    assert bench.state("attribution.profiles", "bob").accounts.get("b-1") is None


def test_repeats_of_every_type_on_customers_are_judged_here(bench: Bench) -> None:
    step = {"customer_id": "bob", "subscription_id": "s", "product_id": "p"}
    bench.fold(
        happened(events.SubscriptionActivated(**step, interval="month")),
        happened(events.SubscriptionActivated(**step, interval="month")),
    )
    assert bench.dead_letters == []
    bench.fold(happened(events.SubscriptionActivated(**step, interval="year")))
    assert [letter.reason for letter in bench.dead_letters] == ["conflicting_repeat"]


def test_a_forgotten_person_leaves_nothing_personal(bench: Bench) -> None:
    sign_up(bench, name="Bob", email="bob@example.com", phone="123")
    bench.fold(happened(events.CustomerProfile(customer_id="bob", name="Bob B.")))
    bench.fold(happened(events.AccountCreated(customer_id="bob", account_id="b-1", name="Bob's")))
    bench.forget("bob", START)
    remembered = bench.state("attribution.people", "bob")
    assert bench.state("attribution.profiles", "bob") == Profile(forgotten=True)
    assert "ob" not in str(remembered.signup).lower() + str(remembered.accounts).replace("b-1", "")
    assert remembered.signup.marks == ()
    assert remembered.decision.reason == "no_click"


def test_a_person_may_be_forgotten_before_the_signup_is_read(bench: Bench) -> None:
    bench.forget("bob", START)
    sign_up(bench, name="Bob", email="bob@example.com")
    assert bench.state("attribution.people", "bob").signup.marks == ()
    assert bench.state("attribution.profiles", "bob") == Profile(forgotten=True)


def test_a_person_who_was_forgotten_stays_so_whatever_profile_comes_later(bench: Bench) -> None:
    sign_up(bench, name="Bob")
    bench.forget("bob", START)
    bench.fold(happened(events.CustomerProfile(customer_id="bob", name="Bob B.")))
    assert bench.state("attribution.profiles", "bob") == Profile(forgotten=True)


def test_a_profile_with_nothing_in_it_forgets_nobody(bench: Bench) -> None:
    sign_up(bench, name="Bob", email="bob@example.com")
    bench.fold(happened(events.CustomerProfile(customer_id="bob", name="Bob B.")))
    assert bench.state("attribution.profiles", "bob").contact == Contact("Bob B.", "bob@example.com")
    bench.fold(happened(events.CustomerProfile(customer_id="bob")))
    assert bench.state("attribution.profiles", "bob").contact == Contact("Bob", "bob@example.com")
    assert bench.state("attribution.people", "bob").signup.marks


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("A@b.c ", None), (" a@B.C", None)),
        ((None, "+380 50 123-45-67"), (None, "00380501234567")),
        ((None, "380501234567"), (None, "+380 (50) 1234567")),
    ],
)
def test_spellings_of_one_contact(one: tuple[str | None, str | None], other: tuple[str | None, str | None]) -> None:
    assert set(marks(*one)) & set(marks(*other))


# --- programs -------------------------------------------------------------------------------------------------------


def publish(bench: Bench, document: dict[str, Any], at: int = START, program_id: str = "own", **other: Any) -> Answered:
    return bench.ask(commands.PublishProgram(**asked(program_id), document=document, **other), at)


def document(**other: Any) -> dict[str, Any]:
    return {**KEYCRM.as_document(), "program_id": "own", **other}


def test_versions_are_counted_and_the_first_holds_from_the_beginning(bench: Bench) -> None:
    first = publish(bench, document(version=77))
    second = publish(bench, document(enabled=False), at=START + DAY)
    assert [(each.status, each.body["version"]) for each in (first, second)] == [(200, 1), (200, 2)]
    program_at = bench.programs.at
    in_force = [program_at("own", at) for at in (0, START + DAY - 1, START + DAY)]
    assert [each and (each.version, each.enabled) for each in in_force] == [(1, True), (1, True), (2, False)]
    published = bench.said[-1]
    assert isinstance(published, events.ProgramPublished)
    assert published.document["version"] == 2


def test_a_version_takes_effect_later_but_never_earlier(bench: Bench) -> None:
    publish(bench, document())
    later = publish(bench, document(effective_at="2025-04-01T00:00:00Z"), at=START)
    assert later.status == 200
    assert [bench.programs.at("own", at).version for at in (START + DAY, START + 60 * DAY)] == [1, 2]  # type: ignore[union-attr]
    now = publish(bench, document(effective_at="2025-03-01T00:00:00Z"), at=START + SECOND)
    assert now.status == 200
    assert bench.state("attribution.people", "own").versions[-1].effective_at == START + SECOND
    past = publish(bench, document(effective_at="2025-03-01T00:00:00Z"), at=START + DAY)
    assert (past.status, past.body["errors"][0]["field"]) == (422, "effective_at")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"program_id": "another"}, "program_id"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"currency": "usd"}, "currency"),
        ({"enabled": "perhaps"}, "enabled"),
        ({"colour": "red"}, "colour"),
        ({"effective_at": "2025-03-01"}, "effective_at"),
        ({"terms": [{"kind": "share", "tiers": []}]}, "terms.0.tiers"),
        ({"terms": [{"kind": "share", "tiers": [{"from_clients": 1, "rate": 0.1}]}]}, "terms.0.tiers.0.rate"),
        ({"terms": KEYCRM.as_document()["terms"] * 2}, "terms"),
    ],
)
def test_a_document_that_is_none_is_refused_with_its_field(bench: Bench, change: dict[str, Any], field: str) -> None:
    answer = publish(bench, document(**change))
    assert (answer.status, answer.body["code"], answer.body["errors"][0]["field"]) == (422, "invalid", field)
    assert bench.state("attribution.people", "own") is None


def test_only_first_leaves_a_program_alone_that_is_published_already(bench: Bench) -> None:
    publish(bench, document())
    said = len(bench.said)
    again = publish(bench, document(enabled=False), only_first=True)
    assert (again.status, again.body["enabled"], len(bench.said)) == (200, True, said)


@pytest.mark.parametrize("program", shipped(), ids=lambda program: program.program_id)
def test_shipped_programs_can_be_published_and_read_back(program: Program) -> None:
    bench = Bench()
    answer = publish(bench, program.as_document(), program_id=program.program_id, only_first=True)
    assert answer.status == 200
    assert bench.programs.at(program.program_id, 0) == program


# --- clicks ---------------------------------------------------------------------------------------------------------


def test_clicks_are_counted_per_program_and_utc_day_and_once_each(bench: Bench) -> None:
    clicked = events.ClickRecorded(visitor_id="v", code="c", partner_id="anna", program_id="keycrm")
    once = happened(clicked, START + DAY - 1)
    bench.fold(once, once, happened(clicked, START), happened(clicked, START + DAY))
    rows = bench.reader.rows_by_key["attribution.people", "anna"]
    assert {row_id: row.clicks for row_id, row in rows.items()} == {
        "d:keycrm:2025-03-01": 2,
        "d:keycrm:2025-03-02": 1,
    }
