"""Writes what refstream says of itself: JSON Schema, AsyncAPI, OpenAPI, access rules, from the code and never by hand.

    python -m schemas.generate             writes schemas/generated, deploy/security and what is generated of docs/
    python -m schemas.generate --check     changes nothing; exit 1 and the names of the files that are stale
    python -m schemas.generate --samples   writes the golden events that tests/contract/samples lacks, replaces none

Output is a function of the code: sorted keys, no date, no address.
"""

import argparse
import importlib
import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from schemas import defences, faults, rules
from schemas.events import PAYLOADS, Payload, event_json, parse_event
from schemas.programs import shipped
from schemas.programs.terms import Program
from schemas.topics import DEAD_LETTERS, PROFILES, TOPIC_OF, TOPICS, Topic

GENERATED = Path(__file__).parent / "generated"
SAMPLES = Path(__file__).parent.parent / "tests" / "contract" / "samples"
SERVICES = ("attribution", "commission", "rewards", "payouts")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
BASE = "https://refstream.example.com/schemas"
PUBLIC = tuple(topic for topic in TOPICS if not topic.internal)

Schema = dict[str, Any]


# --- examples -------------------------------------------------------------------------------------------------------

EXAMPLES: dict[str, Any] = {
    "account_id": "acc-1",
    "account_ids": ["acc-1", "acc-2"],
    "active": [["2026-01-15T08:00:00Z", "2026-03-15T08:00:00Z"], ["2026-04-01T00:00:00Z", None]],
    "active_referrals": 25,
    "adjustment_id": "adj_5d41402abc4b2a76b9719d91",
    "amount": {"minor": 400, "currency": "USD"},
    "as_of": "2026-02-28T00:00:00Z",
    "assigned_at": "2026-02-28T00:00:00Z",
    "at": "2026-03-02T09:30:00Z",
    "attributed_at": "2026-01-15T08:00:00Z",
    "available_at": "2026-05-29T12:00:00Z",
    "base": {"minor": 1999, "currency": "USD"},
    "body": {"code": "spring"},
    "body_hash": "9f86d081884c7d659a2feaa0c55ad015",  # pragma: allowlist secret
    "bonus_id": "bon_7d793037a0760186574b0282",
    "caller": "partner:p-7",
    "cause": "rfd-1",
    "caused_by": "evt-77",
    "charged": {"minor": 1299, "currency": "USD"},
    "claim_id": "clm_1b6453892473a467d07372d4",
    "click_token": "eyJ2IjpbXX0.aY2x.c2lnbmF0dXJl",
    "clicked_at": "2026-01-10T18:20:05.250Z",
    "code": "spring",
    "command_id": "cmd_3c59dc048e8850243be8079a",
    "comment": "for February",
    "commission_id": "com_98f13708210194c475687be6",
    "credited": {"minor": 480, "currency": "USD"},
    "credits": 30,
    "customer_id": "c-1001",
    "date": "2026-02-28",
    "deposit_id": "dep_b6d767d2f8ed5d21a44b0e58",
    "destination": "https://crm.example.com/signup",
    "detail": {"evidence": "the client's letter"},
    "discount": {"minor": 200, "currency": "USD"},
    "discount_rate": "0.35",
    "dispute_id": "dsp-1",
    "document": next(program for program in shipped() if program.program_id == "keycrm").as_document(),
    "earning": [["2026-01-15T08:00:00Z", "2027-01-15T08:00:00Z"], ["2027-02-01T00:00:00Z", None]],
    "email": "ada@example.com",
    "evidence": "the client's letter of 3 February",
    "expires_at": "2026-04-29T12:00:00Z",
    "from_bonus": {"minor": 0, "currency": "USD"},
    "held_until": "2026-03-10T12:00:00Z",
    "id": "rfd-1",
    "integration": "kommo",
    "invoice_id": "inv-1",
    "issued_at": "2026-03-15T00:00:00Z",
    "list_price": {"minor": 1999, "currency": "USD"},
    "month": "2026-02",
    "name": "Ada Lovelace",
    "partner_id": "p-7",
    "paying_clients": 6,
    "payment_id": "pay-1",
    "percent": 10,
    "phone": "+12025550100",
    "product_family": "residential",
    "person_id": "c-42",
    "product_id": "pro",
    "program_id": "keycrm",
    "promo_code": "SPRING",
    "provider": "packetstream",
    "public_url": "https://refer.example.com",
    "quantity_gb": "12.5",
    "rate": "0.20",
    "reason": "the account is not the partner's",
    "referrals_counted": 11,
    "refund_id": "rfd-1",
    "refunded_minor": 1999,
    "reversal_id": "rev_6f4922f45568161a8cdf4ad2",
    "reversed_at": "2026-03-02T09:30:00Z",
    "seed": "9e107d9d372bb6826bd81d3542a419d6",  # pragma: allowlist secret
    "shown": "SPRING",
    "signed_up_at": "2026-01-15T08:00:00Z",
    "status": 201,
    "subscription_id": "sub-1",
    "topup_id": "top_1f0e3dad99908345f7439f8f",
    "trial_ends_at": "2026-03-14T12:00:00Z",
    "url": "https://refer.example.com/attribution/r/spring",
    "visitor_id": "vis-1",
    "withdrawal_id": "wdr_70efdf2ec9b086079795c442",
}
"""What stands for a field in an example, by the field's name; types without need of a name follow from the schema."""

OF_TYPE: dict[str, dict[str, Any]] = {
    "command.request_withdrawal": {"destination": "UA213223130000026007233566001"},
    "withdrawal.requested": {"destination": "UA213223130000026007233566001"},
    "payment.succeeded": {"amount": {"minor": 1999, "currency": "USD"}},
    "payment.pending": {"amount": {"minor": 1999, "currency": "USD"}},
}
"""Where one type's field means something else."""


def example(payload: type[Payload], minimal: bool = False) -> Schema:
    """An event of the type with every field, or with the required ones alone, as its record's value holds it.

    Errors: LookupError for a field that EXAMPLES does not know.
    """
    schema = payload.model_json_schema()
    data = _example(schema, payload.type, "", schema.get("$defs", {}), minimal)
    event = {
        "specversion": "1.0",
        "id": "evt-1",
        "source": TOPIC_OF[payload].writer,
        "type": payload.type,
        "time": "2026-02-28T12:00:00Z",
        "datacontenttype": "application/json",
        "data": data,
    }
    if minimal:
        return event
    canonical: Schema = json.loads(event_json(parse_event(json.dumps(event).encode())))
    return canonical


def _example(schema: Schema, type_: str, name: str, parts: dict[str, Schema], minimal: bool) -> Any:
    known = {**EXAMPLES, **OF_TYPE.get(type_, {})}
    if "$ref" in schema and name not in known:
        return _example(parts[schema["$ref"].rsplit("/", 1)[1]], type_, name, parts, minimal)
    match schema:
        case {"const": value} | {"enum": [value, *_]}:
            return value
        case {"anyOf": [first, *_]}:
            return _example(first, type_, name, parts, minimal)
        case _ if name in known:
            return known[name]
        case {"properties": fields}:
            shown = [field for field in fields if not minimal or field in schema.get("required", ())]
            return {field: _example(fields[field], type_, field, parts, minimal) for field in shown}
        case {"prefixItems": [*items]}:
            return [_example(item, type_, name, parts, minimal) for item in items]
        case {"items": item}:
            return [_example(item, type_, name, parts, minimal)]
        case {"type": "boolean"}:
            return True
        case {"type": "integer"}:
            return 1
        case {"format": "date-time"}:
            return "2026-02-28T12:00:00Z"
        case _:
            raise LookupError(f"give {type_} an example of {name}: schemas.generate.EXAMPLES")


def fields_of(value: Any, inside: str = "") -> Iterator[str]:
    """The dotted names of every field in a JSON value; items of a list share a name."""
    if isinstance(value, dict):
        for name, held in value.items():
            yield f"{inside}{name}"
            yield from fields_of(held, f"{inside}{name}.")
    elif isinstance(value, list):
        for item in value:
            yield from fields_of(item, inside)


def samples_of(payload: type[Payload]) -> list[Path]:
    """The full samples of a type, oldest first: `<type>.json`, `<type>.2.json`, …"""
    later = (SAMPLES / f"{payload.type}.{number}.json" for number in range(2, 100))
    return [path for path in (SAMPLES / f"{payload.type}.json", *later) if path.exists()]


def uncovered(payload: type[Payload]) -> list[str]:
    """Fields of a type that no sample of it holds yet."""
    seen = {field for path in samples_of(payload) for field in fields_of(json.loads(path.read_bytes()))}
    return sorted(set(fields_of(example(payload))) - seen)


def write_samples() -> list[Path]:
    """Write the samples that are missing: of new types, and a further one where a type has new fields."""
    SAMPLES.mkdir(parents=True, exist_ok=True)
    written = []
    for payload in PAYLOADS.values():
        if uncovered(payload):
            number = len(samples_of(payload)) + 1
            path = SAMPLES / (f"{payload.type}.json" if number == 1 else f"{payload.type}.{number}.json")
            path.write_text(_text(example(payload), sort=False), encoding="utf-8")
            written.append(path)
        smallest = SAMPLES / f"{payload.type}.minimal.json"
        if has_minimal(payload) and not smallest.exists():
            smallest.write_text(_text(example(payload, minimal=True), sort=False), encoding="utf-8")
            written.append(smallest)
    return written


def has_minimal(payload: type[Payload]) -> bool:
    """Whether the platform writes the type and may leave something out."""
    return TOPIC_OF[payload].from_outside and not all(f.is_required() for f in payload.model_fields.values())


# --- JSON Schema ----------------------------------------------------------------------------------------------------


class _Plain(GenerateJsonSchema):
    """Without a title for every field: it only repeats the name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _schema(model: type[Payload] | type[Program], mode: JsonSchemaMode) -> Schema:
    return model.model_json_schema(mode=mode, schema_generator=_Plain, ref_template="#/$defs/{model}")


def _written_by_us(schema: Schema) -> Schema:
    """A payload that refstream writes: a field that holds nothing is left out, never null."""
    for name, field in schema.get("properties", {}).items():
        options = [option for option in field.get("anyOf", ()) if option != {"type": "null"}]
        if len(options) == 1:
            rest = {key: value for key, value in field.items() if key not in ("anyOf", "default")}
            schema["properties"][name] = {**options[0], **rest}
    return schema


def _envelope(payload: type[Payload]) -> Schema:
    return {
        "title": payload.type,
        "description": _summary(payload),
        "type": "object",
        "required": ["specversion", "id", "source", "type", "time", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "minLength": 1},
            "source": {"type": "string", "minLength": 1},
            "type": {"const": payload.type},
            "time": {"type": "string", "format": "date-time", "description": "the event time that every rule uses"},
            "subject": {"type": "string"},
            "datacontenttype": {"const": "application/json"},
            "data": {"$ref": f"#/$defs/{payload.__name__}"},
        },
        "examples": [example(payload)],
    }


def _summary(payload: type[Payload]) -> str:
    topic = TOPIC_OF[payload]
    own = (payload.__doc__ or "").strip()
    where = f"On topic `{topic.name}`, keyed by {topic.key_name}; written by {topic.writer}."
    return f"{own}\n\n{where}" if own else where


def _definitions() -> dict[str, Schema]:
    """The envelope of every public type under the type's name, payloads and their parts under their class's."""
    found: dict[str, Schema] = {}
    for topic in PUBLIC:
        for payload in topic.types:
            schema = _schema(payload, "validation" if topic.from_outside else "serialization")
            parts = schema.pop("$defs", {})
            if not topic.from_outside:
                schema, parts = _written_by_us(schema), {name: _written_by_us(part) for name, part in parts.items()}
            for name, part in {payload.type: _envelope(payload), payload.__name__: schema, **parts}.items():
                if found.setdefault(name, part) != part:
                    raise ValueError(f"two schemas are called {name}")
    return found


def events_schema() -> Schema:
    """JSON Schema of every public event: `#/$defs/<type>` is one type's, the whole document any of them."""
    return {
        "$schema": DIALECT,
        "$id": f"{BASE}/events.schema.json",
        "title": "refstream events",
        "description": "Every event on refstream's public topics: CloudEvents 1.0, structured JSON. "
        "`#/$defs/<type>` holds one type.",
        "oneOf": [{"$ref": f"#/$defs/{payload.type}"} for topic in PUBLIC for payload in topic.types],
        "$defs": _definitions(),
    }


def program_schema() -> Schema:
    """JSON Schema of a program document."""
    schema = _schema(Program, "validation")
    for part in schema["$defs"].values():
        kind = part["properties"].get("kind")
        if kind:  # what tells terms apart has a default in code and none in a document
            kind.pop("default")
            part["required"] = ["kind", *part.get("required", ())]
    examples = [program.as_document() for program in shipped()]
    return {"$schema": DIALECT, "$id": f"{BASE}/program.schema.json", **schema, "examples": examples}


# --- AsyncAPI -------------------------------------------------------------------------------------------------------

_DEAD_LETTER: Schema = {
    "name": "dead-letter",
    "title": "dead-letter",
    "summary": "A record that cannot count, as it came, under its original key; the headers say what is wrong. "
    "One that is too large stands where the headers say, and is empty here.",
    "payload": {},
    "headers": {
        "type": "object",
        "required": ["field", "reason", "service", "topic", "partition", "offset"],
        "properties": {
            "field": {"type": "string", "description": "dotted path of the field at fault, empty when none"},
            "reason": {
                "enum": [
                    "not_json",
                    "not_cloudevent",
                    "invalid_field",
                    "time_without_offset",
                    "time_in_future",
                    "too_large",
                    "conflicting_repeat",
                    "currency_mismatch",
                ],
                "type": "string",
            },
            "service": {"enum": list(SERVICES), "type": "string"},
            "topic": {"type": "string"},
            "partition": {"type": "string", "pattern": "^[0-9]+$"},
            "offset": {"type": "string", "pattern": "^[0-9]+$"},
        },
    },
}


def asyncapi() -> Schema:
    """AsyncAPI 3.0 of the public topics, complete in itself."""
    messages: dict[str, Schema] = {"dead-letter": _DEAD_LETTER}
    for topic in PUBLIC:
        for payload in topic.types:
            messages[payload.type] = {
                "name": payload.type,
                "title": payload.type,
                "summary": _summary(payload).split("\n")[0],
                "payload": {"$ref": f"#/components/schemas/{payload.type}"},
                "bindings": {"kafka": {"key": {"type": "string", "description": topic.key_name}}},
                "examples": [{"name": "full", "payload": example(payload)}],
            }
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "refstream topics",
            "version": "1",
            "description": "Every record's value is one CloudEvents 1.0 event in structured JSON (UTF-8), its key the "
            "UTF-8 id that the channel names, its partition murmur2 of the key. `receive`: the platform writes, "
            "refstream reads. `send`: refstream writes.",
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": {topic.name: _channel(topic) for topic in PUBLIC},
        "operations": {f"{_action(topic)}.{topic.name}": _operation(topic) for topic in PUBLIC},
        "components": {"messages": messages, "schemas": _definitions()},
    }
    moved: Schema = _as_draft_7(document)
    return moved


def _message_names(topic: Topic) -> list[str]:
    return ["dead-letter"] if topic is DEAD_LETTERS else [payload.type for payload in topic.types]


def _channel(topic: Topic) -> Schema:
    forgets = " A record without a value forgets the person." if topic is PROFILES else ""
    keeps = "Compacted: the latest record of a key stays." if topic.compacted else "Keeps everything."
    return {
        "address": topic.name,
        "title": topic.name,
        "description": f"Key: {topic.key_name}. Written by {topic.writer}. {keeps}{forgets}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _message_names(topic)},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "topicConfiguration": {
                    "cleanup.policy": ["compact" if topic.compacted else "delete"],
                    "retention.ms": -1,
                },
            }
        },
    }


def _action(topic: Topic) -> str:
    return "receive" if topic.from_outside else "send"


def _operation(topic: Topic) -> Schema:
    reads = "refstream reads what the platform writes; records under a wrong key are put back under the right one"
    return {
        "action": _action(topic),
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": reads if topic.from_outside else f"written by {topic.writer}",
        "messages": [{"$ref": f"#/channels/{topic.name}/messages/{name}"} for name in _message_names(topic)],
    }


def _as_draft_7(value: Any) -> Any:
    """References as AsyncAPI's own schemas want them: under components, and what narrows one beside it in `allOf`."""
    if isinstance(value, list):
        return [_as_draft_7(item) for item in value]
    if not isinstance(value, dict):
        return value
    moved = {name: _as_draft_7(held) for name, held in value.items()}
    ref = moved.get("$ref")
    if not isinstance(ref, str):
        return moved
    ref = {"$ref": ref.replace("#/$defs/", "#/components/schemas/")}
    rest = {name: held for name, held in moved.items() if name != "$ref"}
    return {"allOf": [ref], **rest} if rest else ref


# --- OpenAPI --------------------------------------------------------------------------------------------------------


def openapi(service: str) -> Schema | None:
    """A service's OpenAPI document, or None while it has no API.

    Opens no connection: the app is built, never started.
    """
    module = f"services.{service}.api"
    try:
        api = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            return None
        raise
    settings_class = importlib.import_module("services.runtime.settings").Settings
    # model_construct: neither the environment nor a validator may have a say in what is generated.
    settings = settings_class.model_construct(local=True, auth_secret=SecretStr(secrets.token_hex(32)))
    document: Schema = api.create_app(settings).openapi()
    return document


# --- files ----------------------------------------------------------------------------------------------------------


def _text(document: Schema, sort: bool = True) -> str:
    return json.dumps(document, indent=2, sort_keys=sort, ensure_ascii=False) + "\n"


def documents() -> dict[str, str]:
    """Every generated file's name and text."""
    found: dict[str, Schema | None] = {
        "events.schema.json": events_schema(),
        "program.schema.json": program_schema(),
        "asyncapi.json": asyncapi(),
        **{f"openapi.{service}.json": openapi(service) for service in SERVICES},
    }
    return {name: _text(document) for name, document in found.items() if document is not None}


def stale(texts: dict[str, str]) -> list[str]:
    """Names of files under `generated` that are missing, differ, or that nothing generates any more."""
    there = {path.name: path.read_text(encoding="utf-8") for path in GENERATED.glob("*.json")}
    return sorted(name for name in texts.keys() | there.keys() if texts.get(name) != there.get(name))


def pages() -> dict[Path, str]:
    """Every generated file outside of `generated`, with its text."""
    access: dict[Path, str] = importlib.import_module("services.cli.access").files()
    metrics = importlib.import_module("services.runtime.metrics")
    benchmarks: dict[Path, str] = importlib.import_module("services.cli.bench.page").files()
    return {
        rules.PAGE: rules.page(),
        metrics.PAGE: metrics.page(),
        defences.PAGE: defences.page(),
        faults.PAGE: faults.page(),
        **access,
        **benchmarks,
    }


def stale_pages(texts: dict[Path, str]) -> list[Path]:
    """Those that are missing or differ."""
    return [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main() -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m schemas.generate",
        description="Writes schemas/generated, deploy/security and what is generated of docs/.",
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 and name the stale files")
    parser.add_argument("--samples", action="store_true", help="write the golden events that are missing")
    options = parser.parse_args()
    out = sys.stdout.write
    if options.samples:
        for path in write_samples():
            out(f"wrote {path.name}\n")
        return 0
    texts = documents()
    for service in SERVICES:
        if f"openapi.{service}.json" not in texts:
            out(f"skipped openapi.{service}.json: services.{service} has no API yet\n")
    behind = stale(texts)
    written = pages()
    pages_behind = stale_pages(written)
    if options.check:
        names = [*behind, *(path.name for path in pages_behind)]
        if names:
            out(f"stale, run `make docs`: {', '.join(names)}\n")
        return 1 if names else 0
    for path in pages_behind:
        path.write_text(written[path], encoding="utf-8")
        out(f"wrote {path.name}\n")
    GENERATED.mkdir(exist_ok=True)
    for name in behind:
        path = GENERATED / name
        if name in texts:
            path.write_text(texts[name], encoding="utf-8")
        else:
            path.unlink()
        out(f"{'wrote' if name in texts else 'removed'} {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
