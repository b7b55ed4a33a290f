"""The generated files are fresh, sane, and say what the code does."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from schemas import defences
from schemas.events import PAYLOADS, Event, Payload, Unreadable, event_json, parse_event
from schemas.generate import (
    GENERATED,
    PUBLIC,
    SAMPLES,
    asyncapi,
    documents,
    events_schema,
    example,
    main,
    pages,
    stale,
    stale_pages,
)
from schemas.programs import shipped
from schemas.programs.terms import Program
from schemas.topics import DEAD_LETTERS

TYPES = [payload for topic in PUBLIC for payload in topic.types]
OURS = [payload for topic in PUBLIC if not topic.from_outside for payload in topic.types]


def _written(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((GENERATED / name).read_bytes())
    return document


def _validator(type_: str) -> Draft202012Validator:
    schema = {**_EVENTS, "oneOf": [{"$ref": f"#/$defs/{type_}"}]}
    return Draft202012Validator(schema, format_checker=FormatChecker())


_EVENTS = events_schema()


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for held in value.values():
            yield from _refs(held)
    elif isinstance(value, list):
        for item in value:
            yield from _refs(item)


def _at(document: dict[str, Any], ref: str) -> Any:
    found: Any = document
    for step in ref.removeprefix("#/").split("/"):
        found = found[step]
    return found


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return documents()


def test_generated_files_are_fresh(texts: dict[str, str]) -> None:
    assert stale(texts) == [], "run `make docs` and commit schemas/generated"


def test_generated_pages_and_access_rules_are_fresh() -> None:
    written = pages()
    assert [path.name for path in stale_pages(written)] == [], "run `make docs`"
    assert {path.name for path in written} == {
        "rules.md",
        "metrics.md",
        "benchmarks.md",
        "capacity.md",
        "defences.md",
        "faults.md",
        "kafka-acls.sh",
        "redis-acl.txt",
        "security.md",
    }


def test_defences_name_code_that_is_there() -> None:
    places = re.findall(r"\| `(services/\S+): (\w+)` \|", defences.page())
    assert len(places) == defences.page().count("::test_") >= 20
    for path, name in places:
        text = (defences.ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^ *(async def|def|class) {name}\b|^{name} = ", text, re.MULTILINE), (path, name)


def test_generating_twice_gives_the_same_bytes(texts: dict[str, str]) -> None:
    assert documents() == texts


def test_stale_missing_and_left_over_files_are_named(texts: dict[str, str]) -> None:
    changed = {**texts, "asyncapi.json": "{}\n", "openapi.new.json": "{}\n"}
    del changed["program.schema.json"]
    assert stale(changed) == sorted({"asyncapi.json", "openapi.new.json", "program.schema.json"} | set(stale(texts)))


def test_check_exits_1_and_names_what_is_stale(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["generate", "--check"])
    monkeypatch.setattr("schemas.generate.documents", lambda: {"events.schema.json": "{}\n"})
    assert main() == 1
    assert "events.schema.json" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(GENERATED.glob("*.json")), ids=lambda path: path.name)
def test_every_reference_leads_somewhere(path: Any) -> None:
    document = _written(path.name)
    for ref in _refs(document):
        assert ref.startswith("#/")
        assert _at(document, ref) is not None


# --- JSON Schema ----------------------------------------------------------------------------------------------------


def test_schemas_are_json_schema_2020_12() -> None:
    for name in ("events.schema.json", "program.schema.json"):
        schema = _written(name)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        Draft202012Validator.check_schema(schema)


def _keywords(schema: Any) -> Iterator[str]:
    """Every keyword that stands in a schema, without names of fields and without examples."""
    if not isinstance(schema, dict):
        return
    for keyword, held in schema.items():
        yield keyword
        if keyword in ("properties", "$defs"):
            for part in held.values():
                yield from _keywords(part)
        elif keyword in ("anyOf", "oneOf", "allOf", "prefixItems"):
            for part in held:
                yield from _keywords(part)
        elif keyword in ("items", "additionalProperties"):
            yield from _keywords(held)


def test_schemas_use_no_keyword_that_means_nothing() -> None:
    known = set(Draft202012Validator.VALIDATORS) | {"$schema", "$id", "$defs", "title", "description", "default"}
    known |= {"examples", "discriminator"}
    for name in ("events.schema.json", "program.schema.json"):
        assert set(_keywords(_written(name))) - known == set()


def test_every_public_type_has_a_schema_of_its_own() -> None:
    assert [ref["$ref"] for ref in _EVENTS["oneOf"]] == [f"#/$defs/{payload.type}" for payload in TYPES]
    for payload in TYPES:
        assert _EVENTS["$defs"][payload.type]["properties"]["type"] == {"const": payload.type}


@pytest.mark.parametrize("payload", TYPES, ids=lambda payload: payload.type)
def test_every_example_and_sample_validates_as_its_own_type_alone(payload: type[Payload]) -> None:
    validator = _validator(payload.type)
    samples = [json.loads(path.read_bytes()) for path in SAMPLES.glob(f"{payload.type}.*json")]
    for event in [example(payload), *_EVENTS["$defs"][payload.type]["examples"], *samples]:
        validator.validate(event)
        others = [
            other for other in TYPES if _EVENTS["$defs"][other.type]["properties"]["type"]["const"] == event["type"]
        ]
        assert others == [payload]
        parse_event(json.dumps(event).encode())


@pytest.mark.parametrize("payload", OURS, ids=lambda payload: payload.type)
def test_what_refstream_writes_is_in_its_schema_and_never_null(payload: type[Payload]) -> None:
    event = parse_event(json.dumps(example(payload)).encode())
    optional = {name: None for name, info in payload.model_fields.items() if not info.is_required()}
    spare = Event(event.id, event.source, event.time, event.data.model_copy(update=optional))
    _validator(payload.type).validate(json.loads(event_json(event)))
    _validator(payload.type).validate(json.loads(event_json(spare)))
    for field in _EVENTS["$defs"][payload.__name__]["properties"].values():
        assert {"type": "null"} not in field.get("anyOf", [])


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("payment.succeeded", {"amount": {"minor": -1, "currency": "USD"}}),
    ("payment.succeeded", {"amount": {"minor": 1.5, "currency": "USD"}}),
    ("payment.succeeded", {"amount": {"minor": 2**53, "currency": "USD"}}),
    ("payment.succeeded", {"amount": {"minor": 1, "currency": "usd"}}),
    ("payment.succeeded", {"payment_id": "no spaces"}),
    ("payment.succeeded", {"payment_id": "x" * 129}),
    ("payment.succeeded", {"quantity_gb": 1.5}),
    ("payment.succeeded", {"quantity_gb": "1e9"}),
    ("payment.succeeded", {"interval": "week"}),
    ("payment.succeeded", {"trial": "yes"}),
    ("subscription.trial_started", {"trial_ends_at": 1}),
    ("payment.dispute_closed", {"outcome": "draw"}),
    ("customer.signed_up", {"clicks": [{"code": 7, "clicked_at": "2026-01-01T00:00:00Z"}]}),
]


@pytest.mark.parametrize(("type_", "wrong"), REFUSED)
def test_schema_and_code_refuse_the_same(type_: str, wrong: dict[str, Any]) -> None:
    event = example(PAYLOADS[type_])
    event["data"] |= wrong
    assert not _validator(type_).is_valid(event)
    with pytest.raises(Unreadable):
        parse_event(json.dumps(event).encode())


# --- program documents ----------------------------------------------------------------------------------------------


def test_shipped_programs_validate_and_a_typing_error_does_not() -> None:
    validator = Draft202012Validator(_written("program.schema.json"))
    for program in shipped():
        document = program.as_document()
        validator.validate(document)
        assert not validator.is_valid({**document, "enabld": True})
        kindless = [{name: held for name, held in term.items() if name != "kind"} for term in document["terms"]]
        assert not validator.is_valid({**document, "terms": kindless})
        with pytest.raises(ValueError, match="kind"):
            Program.model_validate({**document, "terms": kindless})


# --- AsyncAPI -------------------------------------------------------------------------------------------------------


def test_asyncapi_has_every_public_topic_with_its_key_writer_and_types() -> None:
    document = _written("asyncapi.json")
    assert document["asyncapi"] == "3.0.0"
    assert set(document["channels"]) == {topic.name for topic in PUBLIC}
    for topic in PUBLIC:
        channel = document["channels"][topic.name]
        assert channel["address"] == topic.name
        assert f"Key: {topic.key_name}." in channel["description"]
        assert f"Written by {topic.writer}." in channel["description"]
        types = {"dead-letter"} if topic is DEAD_LETTERS else {payload.type for payload in topic.types}
        assert set(channel["messages"]) == types


def test_asyncapi_operations_are_seen_from_refstream() -> None:
    operations = _written("asyncapi.json")["operations"].values()
    actions = {
        operation["channel"]["$ref"].removeprefix("#/channels/"): operation["action"] for operation in operations
    }
    assert actions == {topic.name: "receive" if topic.from_outside else "send" for topic in PUBLIC}
    assert {name for name, action in actions.items() if action == "receive"} == {"customers", "profiles", "payments"}


def test_asyncapi_operations_name_messages_of_their_own_channel() -> None:
    document = _written("asyncapi.json")
    for operation in document["operations"].values():
        channel = operation["channel"]["$ref"]
        names = {ref["$ref"].removeprefix(f"{channel}/messages/") for ref in operation["messages"]}
        assert names == set(_at(document, channel)["messages"])


def test_asyncapi_messages_have_schemas_keys_and_examples_that_hold() -> None:
    document = asyncapi()
    messages = document["components"]["messages"]
    assert set(messages) == {payload.type for payload in TYPES} | {"dead-letter"}
    for payload in TYPES:
        message = messages[payload.type]
        assert message["payload"]["$ref"] == f"#/components/schemas/{payload.type}"
        assert message["bindings"]["kafka"]["key"]["description"]
        for shown in message["examples"]:
            _validator(payload.type).validate(shown["payload"])


# --- OpenAPI --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(GENERATED.glob("openapi.*.json")), ids=lambda path: path.name)
def test_openapi_paths_are_under_the_service_and_every_operation_says_what_it_does(path: Any) -> None:
    document = _written(path.name)
    service = path.name.split(".")[1]
    assert document["openapi"].startswith("3.1")
    assert document["paths"]
    for address, operations in document["paths"].items():
        assert address.startswith(f"/{service}/")
        for operation in operations.values():
            assert operation["responses"]
            assert operation.get("summary")
    assert "servers" not in document
