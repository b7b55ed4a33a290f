"""Program documents: the shipped five, and what a document is refused for, with the field at fault."""

import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import schemas.programs
from schemas.events import ProgramPublished
from schemas.moments import WIRE, parse_instant
from schemas.programs import SHIPPED, NotYetPublished, Programs, shipped
from schemas.programs.terms import Credits, MonthlyDiscount, Program, Share, faults

DOCUMENTS = {program.program_id: program.as_document() for program in shipped()}
JANUARY, MARCH = parse_instant("2026-01-01T00:00:00Z"), parse_instant("2026-03-01T00:00:00Z")


def _changed(program_id: str, path: str, value: Any = ...) -> dict[str, Any]:
    """The shipped document with one field set; `...` takes it out."""
    document = copy.deepcopy(DOCUMENTS[program_id])
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    inside: Any = document
    for step in steps:
        inside = inside[step]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    return document


def _faults(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Program.model_validate(document, context=WIRE)
    return [field for field, _ in faults(caught.value)]


def test_five_programs_are_shipped_each_in_a_file_of_its_name() -> None:
    assert [program.program_id for program in shipped()] == list(SHIPPED)
    files = {path.stem for path in Path(schemas.programs.__file__).parent.glob("*.json")}
    assert files == set(SHIPPED)
    assert len(files) == 5


@pytest.mark.parametrize("program_id", SHIPPED)
def test_shipped_document_survives_its_own_json(program_id: str) -> None:
    program = Program.model_validate(DOCUMENTS[program_id])
    assert program.as_document() == DOCUMENTS[program_id]
    assert Program.model_validate_json(program.model_dump_json()) == program
    assert program.enabled
    assert program.version == 1
    assert program.name
    assert program.zone.key == program.timezone


def test_terms_are_found_by_their_kind() -> None:
    keycrm = Program.model_validate(DOCUMENTS["keycrm"])
    share = keycrm.term(Share)
    assert share is not None
    assert [(tier.from_clients, str(tier.rate)) for tier in share.tiers] == [(1, "0.10"), (6, "0.20"), (21, "0.30")]
    assert keycrm.term(Credits) is None


@pytest.mark.parametrize(
    ("program_id", "path", "value", "fault"),
    [
        ("keycrm", "enabld", True, "enabld"),
        ("keycrm", "enabled", ..., "enabled"),
        ("keycrm", "program_id", ..., "program_id"),
        ("keycrm", "program_id", "key crm", "program_id"),
        ("keycrm", "program_id", "x" * 129, "program_id"),
        ("keycrm", "program_id", 7, "program_id"),
        ("keycrm", "version", 0, "version"),
        ("keycrm", "currency", "usd", "currency"),
        ("keycrm", "currency", ..., "currency"),
        ("keycrm", "timezone", "Europe/Kyjiw", "timezone"),
        ("keycrm", "timezone", "+02:00", "timezone"),
        ("keycrm", "timezone", "../UTC", "timezone"),
        ("keycrm", "timezone", "", "timezone"),
        ("keycrm", "timezone", "localtime", "timezone"),
        ("keycrm", "timezone", "Factory", "timezone"),
        ("keycrm", "timezone", "posixrules", "timezone"),
        ("keycrm", "timezone", "posix/Europe/Kyiv", "timezone"),
        ("keycrm", "timezone", "right/Europe/Kyiv", "timezone"),
        ("keycrm", "effective_at", "2026-03-01T00:00:00", "effective_at"),
        ("keycrm", "effective_at", "soon", "effective_at"),
        ("keycrm", "pricing", "at_signup", "pricing"),
        ("keycrm", "attribution", ..., "attribution"),
        ("keycrm", "attribution.model", "any_click", "attribution.model"),
        ("keycrm", "attribution.window_days", 0, "attribution.window_days"),
        ("keycrm", "attribution.window_day", 7, "attribution.window_day"),
        ("keycrm", "attribution.default_destination", ..., "attribution.default_destination"),
        ("keycrm", "terms", ..., "terms"),
        ("keycrm", "terms.0.kind", "shares", "terms.0"),
        ("keycrm", "terms.0.kind", ..., "terms.0"),
        ("keycrm", "terms.0.tiers", [], "terms.0.tiers"),
        ("keycrm", "terms.0.tiers.0.rate", 0.1, "terms.0.tiers.0.rate"),
        ("keycrm", "terms.0.tiers.0.rate", "1.01", "terms.0.tiers.0.rate"),
        ("keycrm", "terms.0.tiers.0.rate", "10%", "terms.0.tiers.0.rate"),
        ("keycrm", "terms.0.tiers.0.from_client", 1, "terms.0.tiers.0.from_client"),
        ("keycrm", "terms.0.tiers.0.from_clients", 2, "terms.0.tiers"),
        ("keycrm", "terms.0.tiers.1.from_clients", 1, "terms.0.tiers"),
        ("keycrm", "terms.0.tiers.2.from_clients", 6, "terms.0.tiers"),
        ("keycrm", "terms.0.tiers.2.from_clients", 5, "terms.0.tiers"),
        ("keycrm", "terms.0.window.months", 0, "terms.0.window.months"),
        ("keycrm", "terms.0.window.starts", "signup", "terms.0.window.starts"),
        ("jupsoft", "terms.0.hold_days", -1, "terms.0.hold_days"),
        ("jupsoft", "terms.0.ends_with_downgrade_of", ["week"], "terms.0.ends_with_downgrade_of.0"),
        ("keycrm", "payouts.minimums.0.minor", 0, "payouts.minimums.0.minor"),
        ("keycrm", "payouts.minimums.0.currency", "US", "payouts.minimums.0.currency"),
        (
            "keycrm",
            "payouts.minimums",
            [{"minor": 1, "currency": "USD"}, {"minor": 2, "currency": "USD"}],
            "payouts.minimums",
        ),
        ("keycrm", "payouts.minimums.0.z", 1, "payouts.minimums.0.z"),
        ("message-help", "terms.1.amount.z", 1, "terms.1.amount.z"),
        ("message-help", "terms.3.amount.minor_units", 1, "terms.3.amount.minor_units"),
        ("keycrm", "payouts.topup.points", 0.2, "payouts.topup.points"),
        ("proxy-credits", "providers.packetstream.product_rate", 5, "providers.packetstream.product_rate"),
        ("proxy-credits", "providers.packetstream.product_rate", "-5", "providers.packetstream.product_rate"),
        ("proxy-credits", "providers.packetstream.product_rate", "1000001", "providers.packetstream.product_rate"),
        ("proxy-credits", "providers.packetstream.redemption_rate", "0", "providers.packetstream.redemption_rate"),
        ("proxy-credits", "providers.packetstream.redemption_rate", ..., "providers.packetstream.redemption_rate"),
        ("proxy-credits", "terms.0.claim_gb", 0, "terms.0.claim_gb"),
        ("active-referrals", "terms.0.day", 29, "terms.0.day"),
        ("active-referrals", "terms.0.scale.1.percent", 101, "terms.0.scale.1.percent"),
        ("active-referrals", "terms.0.scale.2.from_referrals", 5, "terms.0.scale"),
        ("active-referrals", "terms.0.scale", [], "terms.0.scale"),
        ("message-help", "terms.1.amount.minor", 0, "terms.1.amount.minor"),
        ("message-help", "terms.1.methods", ["email"], "terms.1.methods.0"),
        (
            "message-help",
            "terms.2.families.crm.discounts.1.from_clients",
            1,
            "terms.2.families.crm.discounts",
        ),
        ("message-help", "terms.3.usable_days", 0, "terms.3.usable_days"),
    ],
)
def test_what_is_wrong_in_a_document_is_named(program_id: str, path: str, value: Any, fault: str) -> None:
    assert _faults(_changed(program_id, path, value)) == [fault]


@pytest.mark.parametrize(
    "destination",
    [
        *("", "/signup", "signup", "//crm.example.com/", "https:", "https://", "https:///signup", "https:/signup"),
        *("javascript:alert(1)", "data:text/html,x", "ftp://crm.example.com/", "https://:443/", "https://?a=b"),
        *("https://crm.example.com/é", "https://crm.example.com/при", "https://crm.еxample.com/"),
        *("https://crm.example.com/\r\nSet-Cookie: a=b", "https://crm.example.com/\x00", " https://crm.example.com/"),
        *("https://crm.example.com\\@evil.example/", "https://user@crm.example.com/", "https://[crm.example.com/"),
        *("https://crm.example.com:port/", "https://crm.example.com:99999/", "https://crm.example.com/" + "x" * 2048),
    ],
)
def test_links_lead_to_an_address_unless_the_partner_names_another(destination: str) -> None:
    document = _changed("keycrm", "attribution.default_destination", destination)
    assert _faults(document) == ["attribution.default_destination"]


@pytest.mark.parametrize(
    "destination",
    [
        *(
            "https://crm.example.com",
            "http://crm.example.com/a?b=c#d",
            "HTTPS://CRM.example.com/",
            "http://localhost:3000/",
        ),
        *(
            "https://elsewhere.example.com/",
            "http://127.0.0.1/",
            "http://[::1]:8080/",
            "https://crm.example.com/%D0%BF",
        ),
    ],
)
def test_the_default_address_may_be_on_any_host(destination: str) -> None:
    document = _changed("keycrm", "attribution.default_destination", destination)
    assert Program.model_validate(document, context=WIRE).attribution.default_destination == destination


@pytest.mark.parametrize(
    ("path", "value"),
    [("attribution.default_destination", "/signup"), ("timezone", "Factory"), ("pricing", "at_event")],
)
def test_document_that_is_on_the_log_stays_readable(path: str, value: Any) -> None:
    document = _changed("keycrm", path, value)
    published = ProgramPublished(program_id="keycrm", version=1, effective_at=0, document=document)
    assert _versions(published).version("keycrm", 1).as_document() == document


@pytest.mark.parametrize(
    ("program_id", "path"),
    [
        *(("keycrm", path) for path in ("enabled", "attribution.promo_codes", "attribution.account_required")),
        *(("keycrm", path) for path in ("payouts.withdrawals", "attribution.window_days", "terms.0.window.months")),
        *(("keycrm", path) for path in ("terms.0.tiers.1.from_clients", "payouts.minimums.0.minor", "version")),
        *(("jupsoft", path) for path in ("terms.0.hold_days", "terms.0.first_product_only")),
        ("jupsoft", "terms.0.ends_with_subscription"),
        ("proxy-credits", "terms.0.claim_gb"),
        *(("message-help", path) for path in ("terms.2.families.crm.discounts.1.from_clients", "terms.3.usable_days")),
        *(("active-referrals", path) for path in ("terms.0.day", "terms.0.referrals_per_account")),
        *(("active-referrals", path) for path in ("terms.0.scale.1.percent", "terms.0.scale.1.from_referrals")),
    ],
)
def test_numbers_and_switches_are_not_written_as_something_else(program_id: str, path: str) -> None:
    right: Any = DOCUMENTS[program_id]
    for step in path.split("."):
        right = right[int(step) if step.isdigit() else step]
    others = ("yes", "true", 1, 0) if isinstance(right, bool) else (str(right), float(right), True)
    for other in others:
        assert _faults(_changed(program_id, path, other)) == [path]


def test_kind_of_terms_stands_once() -> None:
    twice = _changed("keycrm", "terms", DOCUMENTS["keycrm"]["terms"] * 2)
    assert _faults(twice) == ["terms"]
    with pytest.raises(ValidationError, match="each kind of terms once"):
        Program.model_validate(twice)


def test_a_share_is_priced_at_the_binding() -> None:
    assert _faults(_changed("keycrm", "pricing", "at_event")) == ["pricing"]
    Program.model_validate(_changed("proxy-credits", "pricing", "at_event"), context=WIRE)
    Program.model_validate(_changed("active-referrals", "pricing", "at_event"), context=WIRE)


def test_providers_belong_to_credits() -> None:
    document = _changed("keycrm", "providers", DOCUMENTS["proxy-credits"]["providers"])
    assert _faults(document) == ["providers"]
    with pytest.raises(ValidationError, match="providers belong"):
        Program.model_validate(document)


def test_documents_of_two_programs_may_swap_their_ids() -> None:
    """A document is what it says: nothing hangs on the name of a shipped program."""
    keycrm = Program.model_validate(_changed("keycrm", "program_id", "active-referrals"))
    active = Program.model_validate(_changed("active-referrals", "program_id", "keycrm"))
    programs = Programs.of(keycrm, active)
    found = [programs.at(program_id, JANUARY) for program_id in ("active-referrals", "keycrm")]
    assert found == [keycrm, active]
    assert active.term(MonthlyDiscount) is not None


# --- versions -------------------------------------------------------------------------------------------------------


def _published(version: int, effective_at: int = 0, **other: Any) -> ProgramPublished:
    document = {**DOCUMENTS["keycrm"], **other}
    return ProgramPublished(program_id="keycrm", version=version, effective_at=effective_at, document=document)


def _versions(*events: ProgramPublished) -> Programs:
    programs = Programs()
    for event in events:
        programs = programs.with_version(event)
    return programs


def _version_at(programs: Programs, instant: int) -> int | None:
    program = programs.at("keycrm", instant)
    return program.version if program else None


def test_first_version_is_in_force_from_the_beginning_of_time() -> None:
    programs = _versions(_published(1, MARCH))
    assert _version_at(programs, JANUARY) == 1
    assert programs.at("jupsoft", JANUARY) is None
    assert programs.latest("jupsoft") is None


def test_later_version_is_in_force_from_its_instant_on() -> None:
    programs = _versions(_published(1), _published(2, MARCH, enabled=False))
    assert [_version_at(programs, instant) for instant in (JANUARY, MARCH - 1, MARCH)] == [1, 1, 2]
    assert programs.version("keycrm", 1).enabled
    assert not programs.version("keycrm", 2).enabled
    latest = programs.latest("keycrm")
    assert latest is not None
    assert latest.version == 2


def test_order_and_repeats_of_publications_change_nothing() -> None:
    first, second = _published(1), _published(2, MARCH)
    one, other = _versions(first, second), _versions(second, first, second, _published(2, JANUARY, enabled=False))
    for instant in (JANUARY, MARCH):
        assert one.at("keycrm", instant) == other.at("keycrm", instant)
    assert list(one) == list(other) == ["keycrm"]


def test_version_of_the_event_counts_and_not_the_documents() -> None:
    assert _versions(_published(3)).version("keycrm", 3).version == 3 != DOCUMENTS["keycrm"]["version"]


def test_version_not_read_yet_is_not_yet_published() -> None:
    programs = _versions(_published(1))
    for program_id, version in (("keycrm", 2), ("jupsoft", 1)):
        with pytest.raises(NotYetPublished):
            programs.version(program_id, version)
