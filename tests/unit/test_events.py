"""Reading a record: an event, or the reason and the dotted field that its dead letter will say."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import (
    MAX_QUANTITY_GB,
    CustomerProfile,
    CustomerSignedUp,
    Event,
    Hold,
    PaymentSucceeded,
    UnknownType,
    Unreadable,
    data_json,
    event_json,
    made,
    parse_event,
)
from schemas.ids import derived_id, partition_of
from schemas.moments import parse_instant
from schemas.money import MAX_MINOR, Money
from schemas.topics import COMMISSIONS, PAYMENTS

GOOD: dict[str, Any] = {
    "specversion": "1.0",
    "id": "evt-1",
    "source": "shop",
    "type": "payment.succeeded",
    "time": "2026-02-28T12:00:00Z",
    "data": {"payment_id": "pay-1", "customer_id": "c-1", "amount": {"minor": 1250, "currency": "USD"}},
}
TRIAL = {"customer_id": "c-1", "subscription_id": "s-1", "product_id": "pro", "trial_ends_at": "2026-03-14T12:00:00Z"}


def _event(**fields: Any) -> bytes:
    """GOOD with other attributes; `...` leaves one out."""
    return json.dumps({name: value for name, value in {**GOOD, **fields}.items() if value is not ...}).encode()


def _payment(**data: Any) -> bytes:
    """GOOD with other data; `...` leaves a field out."""
    fields = {name: value for name, value in {**GOOD["data"], **data}.items() if value is not ...}
    return _event(data=fields)


def _minor(literal: str) -> bytes:
    """GOOD with an amount written as this JSON."""
    return _event().replace(b"1250", literal.encode())


def _fault(value: bytes | None) -> tuple[str, str]:
    with pytest.raises(Unreadable) as caught:
        parse_event(value)
    return caught.value.reason, caught.value.field


def test_what_is_made_is_the_same_as_what_is_validated() -> None:
    validated, quick = Hold(held_from=1, held_until=2), made(Hold, held_from=1, held_until=2)
    assert quick == validated
    assert hash(quick) == hash(validated)
    assert quick.model_dump_json() == validated.model_dump_json()
    assert quick.model_copy(update={"held_until": None}) == Hold(held_from=1)
    with pytest.raises(ValueError, match="frozen"):
        quick.held_from = 3  # type: ignore[misc]


def test_event_is_read() -> None:
    event = parse_event(_event())
    assert event == Event(
        "evt-1",
        "shop",
        parse_instant("2026-02-28T12:00:00Z"),
        PaymentSucceeded(payment_id="pay-1", customer_id="c-1", amount=Money(minor=1250, currency="USD")),
    )
    assert event.type == "payment.succeeded"


@pytest.mark.parametrize(
    "value",
    [
        *(None, b"", b" ", b"{", b"payment", b"\xff\xfe", b"{'id': 1}", b'{"a": 1,}', b'{"id": "\\ud800"}'),
        *(_minor("NaN"), _minor("Infinity"), _minor("1e400"), _minor("-1e400"), _minor("9" * 400), _minor("01")),
        *(_event() + b"x", b'{"a":' * 3000 + b"1" + b"}" * 3000),
    ],
)
def test_bytes_that_are_no_json_are_not_json(value: bytes | None) -> None:
    assert _fault(value) == ("not_json", "")


@pytest.mark.parametrize("value", [b"null", b"1", b"[]", b'"event"', b"true", b"[{}]"])
def test_json_that_is_no_object_is_no_cloudevent(value: bytes) -> None:
    assert _fault(value) == ("not_cloudevent", "")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"specversion": ...}, "specversion"),
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": 1.0}, "specversion"),
        ({"id": ...}, "id"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"source": ...}, "source"),
        ({"source": ""}, "source"),
        ({"type": ...}, "type"),
        ({"type": ""}, "type"),
        ({"type": None}, "type"),
        ({"type": ["payment.succeeded"]}, "type"),
    ],
)
def test_envelope_without_what_cloudevents_asks_for_is_named(fields: dict[str, Any], field: str) -> None:
    assert _fault(_event(**fields)) == ("not_cloudevent", field)


def test_time_without_offset_is_refused_in_the_envelope() -> None:
    assert _fault(_event(time="2026-02-28T12:00:00")) == ("time_without_offset", "time")


def test_time_without_offset_is_refused_in_the_data() -> None:
    data = {**TRIAL, "trial_ends_at": "2026-03-14T12:00:00"}
    assert _fault(_event(type="subscription.trial_started", data=data)) == ("time_without_offset", "data.trial_ends_at")


def test_time_without_offset_is_refused_deep_in_the_data() -> None:
    clicks = [{"code": "a", "clicked_at": "2026-01-01T00:00:00Z"}, {"code": "b", "clicked_at": "2026-01-01T00:00:00"}]
    data = {"customer_id": "c-1", "clicks": clicks}
    assert _fault(_event(type="customer.signed_up", data=data)) == ("time_without_offset", "data.clicks.1.clicked_at")


@pytest.mark.parametrize("time", [..., None, 1, 1_772_280_000_000_000, 1.5, True, "", "yesterday", {}, "2026-02-28"])
def test_time_must_be_text_in_rfc_3339(time: Any) -> None:
    assert _fault(_event(time=time)) == ("invalid_field", "time")


@pytest.mark.parametrize("time", [0, 1_772_280_000_000_000, 1.5, True, "", "1772280000", [], None])
def test_time_in_the_data_must_be_text_too(time: Any) -> None:
    data = {**TRIAL, "trial_ends_at": time}
    assert _fault(_event(type="subscription.trial_started", data=data)) == ("invalid_field", "data.trial_ends_at")


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_time_outside_of_what_can_be_written_again_is_refused(time: str) -> None:
    assert _fault(_event(time=time)) == ("invalid_field", "time")


@pytest.mark.parametrize(
    "literal",
    [
        *("-1", str(-MAX_MINOR), str(-(10**30)), str(MAX_MINOR + 1), str(2**63), str(2**64), str(10**30)),
        *("1.0", "12.5", "1e2", "1E308", "true", "false", "null", '"1250"', '""', "[]", "{}", "[1250]"),
    ],
)
def test_minor_that_is_no_integer_from_0_to_2_to_the_53_is_refused(literal: str) -> None:
    assert _fault(_minor(literal)) == ("invalid_field", "data.amount.minor")


@pytest.mark.parametrize("minor", [0, 1, MAX_MINOR])
def test_minor_from_0_to_2_to_the_53_is_read_exactly(minor: int) -> None:
    data = parse_event(_minor(str(minor))).data
    assert isinstance(data, PaymentSucceeded)
    assert data.amount.minor == minor


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"amount": ...}, "data.amount"),
        ({"amount": None}, "data.amount"),
        ({"amount": 1250}, "data.amount"),
        ({"amount": "12.50 USD"}, "data.amount"),
        ({"amount": [1250, "USD"]}, "data.amount"),
        ({"amount": {"currency": "USD"}}, "data.amount.minor"),
        ({"amount": {"minor": 1250}}, "data.amount.currency"),
        ({"amount": {"minor": 1250, "currency": "usd"}}, "data.amount.currency"),
        ({"amount": {"minor": 1250, "currency": "USD\n"}}, "data.amount.currency"),
        ({"payment_id": ...}, "data.payment_id"),
        ({"customer_id": None}, "data.customer_id"),
        ({"interval": "week"}, "data.interval"),
        ({"trial": 1}, "data.trial"),
        ({"trial": "false"}, "data.trial"),
        ({"product_family": 7}, "data.product_family"),
        ({"quantity_gb": 10}, "data.quantity_gb"),
        ({"quantity_gb": 1.5}, "data.quantity_gb"),
        ({"quantity_gb": "-1"}, "data.quantity_gb"),
        ({"quantity_gb": "1e999999999"}, "data.quantity_gb"),
        ({"quantity_gb": "NaN"}, "data.quantity_gb"),
        ({"quantity_gb": str(MAX_QUANTITY_GB + 1)}, "data.quantity_gb"),
    ],
)
def test_field_that_is_wrong_is_named_with_its_path(data: dict[str, Any], field: str) -> None:
    assert _fault(_payment(**data)) == ("invalid_field", field)


@pytest.mark.parametrize("data", [..., None, [], "text", 1, [GOOD["data"]]])
def test_data_must_be_an_object(data: Any) -> None:
    assert _fault(_event(data=data)) == ("invalid_field", "data")


@pytest.mark.parametrize("wrong", ["", " ", "a b", "a/b", "a\n", "ä", "x" * 129, "a\x00", "{a}", "a*", 7, True, ["a"]])
@pytest.mark.parametrize("name", ["payment_id", "customer_id", "account_id", "subscription_id", "product_id"])
def test_id_with_other_characters_or_length_is_refused(name: str, wrong: Any) -> None:
    assert _fault(_payment(**{name: wrong})) == ("invalid_field", f"data.{name}")


@given(st.text("ABCXYZabcxyz0189._:@-", min_size=1, max_size=128))
def test_id_of_the_allowed_characters_is_read(name: str) -> None:
    data = parse_event(_payment(payment_id=name)).data
    assert isinstance(data, PaymentSucceeded)
    assert data.payment_id == name


@pytest.mark.parametrize("type_", ["payment.captured", "Payment.Succeeded", "x", "payment.succeeded "])
@pytest.mark.parametrize("rest", [{}, {"time": "2026-02-28T12:00:00"}, {"time": 1, "data": None}])
def test_unknown_type_is_no_bad_record_whatever_else_it_holds(type_: str, rest: dict[str, Any]) -> None:
    with pytest.raises(UnknownType, match=type_.strip()):
        parse_event(_event(type=type_, **rest))


def test_what_is_not_known_is_ignored() -> None:
    newer = _event(
        traceparent="00-1",
        subject="pay-1",
        dataschema="https://shop.example.com/2",
        data={**GOOD["data"], "tax": 1, "amount": {**GOOD["data"]["amount"], "exponent": 2}},
    )
    assert parse_event(newer) == parse_event(_event())


@pytest.mark.parametrize("name", ["account_id", "product_id", "product_family", "quantity_gb", "interval", "trial"])
def test_optional_field_may_be_null(name: str) -> None:
    assert parse_event(_payment(**{name: None})) == parse_event(_event())


def test_signup_may_say_null_of_an_account_before() -> None:
    said, silent = (
        parse_event(_event(type="customer.signed_up", data={"customer_id": "c-1", **more}))
        for more in ({"existing_customer": None}, {})
    )
    assert said == silent
    assert data_json(said.data) == data_json(silent.data)


def test_signup_gives_evidence_in_any_order() -> None:
    clicks = [{"code": "b", "clicked_at": "2026-02-02T00:00:00Z"}, {"code": "a", "clicked_at": "2026-01-01T00:00:00Z"}]
    data = parse_event(_event(type="customer.signed_up", data={"customer_id": "c-1", "clicks": clicks})).data
    assert isinstance(data, CustomerSignedUp)
    assert data.clicks is not None
    assert [click.code for click in data.clicks] == ["b", "a"]
    assert not data.existing_customer


@pytest.mark.parametrize("code", ["", " ", "x" * 100_000, "\x00", "код"])
def test_a_click_may_have_any_text_for_a_code(code: str) -> None:
    clicks = [{"code": code, "clicked_at": "2026-02-02T00:00:00Z"}]
    data = parse_event(_event(type="customer.signed_up", data={"customer_id": "c-1", "clicks": clicks})).data
    assert isinstance(data, CustomerSignedUp)
    assert data.clicks is not None
    assert data.clicks[0].code == code


@pytest.mark.parametrize("code", [None, 7, True, ["a"], {}])
def test_a_clicks_code_is_text(code: Any) -> None:
    clicks = [{"code": code, "clicked_at": "2026-02-02T00:00:00Z"}]
    value = _event(type="customer.signed_up", data={"customer_id": "c-1", "clicks": clicks})
    assert _fault(value) == ("invalid_field", "data.clicks.0.code")


def test_value_is_a_cloudevent_without_empty_fields() -> None:
    written = orjson.loads(event_json(parse_event(_payment(account_id=None, trial=True))))
    assert written == {
        **GOOD,
        "datacontenttype": "application/json",
        "data": {**GOOD["data"], "trial": True},
    }


def test_time_is_written_in_utc() -> None:
    event = parse_event(_event(time="2026-02-28T14:00:00.5+02:00"))
    assert orjson.loads(event_json(event))["time"] == "2026-02-28T12:00:00.500Z"


@given(
    st.builds(
        CustomerProfile,
        customer_id=st.from_regex(r"[A-Za-z0-9._:@-]{1,128}", fullmatch=True),
        name=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        email=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        phone=st.none(),
    ),
    st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
)
def test_what_is_written_is_read_again_the_same(profile: CustomerProfile, time: int) -> None:
    event = Event("evt", "shop", time, profile)
    assert parse_event(event_json(event)) == event
    assert event_json(parse_event(event_json(event))) == event_json(event)


@given(
    st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text("ab1.Z:-T0", max_size=24), st.lists)
)
def test_no_value_of_a_field_is_a_crash(value: Any) -> None:
    for name in ("payment_id", "amount", "quantity_gb", "interval", "trial", "provider"):
        try:
            parse_event(_payment(**{name: value}))
        except Unreadable as refused:
            assert refused.reason in ("invalid_field", "time_without_offset")
            assert refused.field.startswith(f"data.{name}")


def test_events_do_not_change() -> None:
    event = parse_event(_event())
    with pytest.raises(ValueError, match="frozen"):
        event.data.payment_id = "pay-2"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        event.time = 0  # type: ignore[misc]


# --- keys and ids ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "hashed"), [("21", -973932308), ("foobar", -790332482), ("abc", 479470107)])
def test_partition_is_kafkas_own_default(key: str, hashed: int) -> None:
    """The hashes are those of Kafka's own UtilsTest."""
    for partitions in (1, 4, 12, 1000):
        assert partition_of(key, partitions) == partition_of(key.encode(), partitions)
        assert partition_of(key, partitions) == (hashed & 0x7FFFFFFF) % partitions


def test_key_of_a_decline_without_partner_is_the_customer() -> None:
    data = {"commission_id": "com-1", "payment_id": "pay-1", "customer_id": "c-1", "reason": "not_referred"}
    declined = parse_event(_event(type="commission.declined", data=data)).data
    assert COMMISSIONS.key(declined) == "c-1"
    assert COMMISSIONS.key(declined.model_copy(update={"partner_id": "p-1"})) == "p-1"
    assert PAYMENTS.key(parse_event(_event()).data) == "c-1"


def test_derived_id_follows_from_its_cause_alone() -> None:
    assert derived_id("com", "pay-1", 3) == derived_id("com", "pay-1", 3)
    ids = {
        derived_id("com", "pay-1"),
        derived_id("com", "pay-2"),
        derived_id("rev", "pay-1"),
        derived_id("com", "p", "ay-1"),
    }
    assert len(ids) == 4
    assert parse_event(_payment(payment_id=derived_id("cp", "x"))).type == "payment.succeeded"
