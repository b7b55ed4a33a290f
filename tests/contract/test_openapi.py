"""The OpenAPI documents of the APIs: complete, and true to the contract's general rules."""

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from services.runtime.http.openapi import DESCRIPTIONS
from tests.http_fakes import FakeReader, resources_over, settings

SERVICES = [service for service in DESCRIPTIONS if find_spec(f"services.{service}.api")]

CALLS = {
    "commission": {
        "GET /commission/partners/{}/commissions",
        "GET /commission/partners/{}/tier",
        "GET /commission/payments/{}/decision",
        "GET /commission/decisions",
    },
    "rewards": {
        "GET /rewards/partners/{}/wallet",
        "GET /rewards/partners/{}/store",
        "POST /rewards/partners/{}/claims",
        "POST /rewards/claims/{}/fulfil",
        "POST /rewards/claims/{}/fail",
        "GET /rewards/partners/{}/history",
        "GET /rewards/partners/{}/discounts",
        "POST /rewards/verifications",
        "POST /rewards/accounts/{}/discount/use",
    },
}
"""What the contract names, by service; other calls may be added freely."""


@pytest.fixture(scope="module", params=SERVICES)
def api(request: pytest.FixtureRequest) -> dict[str, Any]:
    create_app = import_module(f"services.{request.param}.api").create_app
    document: dict[str, Any] = create_app(settings(), resources_over(FakeReader())).openapi()
    return document


def _operations(api: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def _service(api: dict[str, Any]) -> str:
    return str(api["info"]["title"]).removeprefix("refstream ")


def test_every_call_of_the_contract_is_there(api: dict[str, Any]) -> None:
    there = {re.sub(r"\{[^}]*\}", "{}", call) for call, _ in _operations(api)}
    assert CALLS.get(_service(api), set()) <= there


def test_every_call_lies_under_its_service_and_is_described(api: dict[str, Any]) -> None:
    service = _service(api)
    assert api["info"]["description"]
    for call, operation in _operations(api):
        assert call.split(" ")[1].startswith(f"/{service}/"), call
        assert operation["summary"] and operation["tags"], call


def test_every_call_but_the_public_ones_needs_a_token(api: dict[str, Any]) -> None:
    service = _service(api)
    public = {f"GET /{service}/{name}" for name in ("healthz", "readyz", "metrics")} | {f"GET /{service}/r/{{code}}"}
    for call, operation in _operations(api):
        assert ("security" in operation) == (call not in public and not call.startswith("HEAD")), call
    assert api["components"]["securitySchemes"]["token"]["bearerFormat"] == "JWT"


def test_every_error_is_a_problem_document(api: dict[str, Any]) -> None:
    for call, operation in _operations(api):
        assert list(operation["responses"]["default"]["content"]) == ["application/problem+json"], call
        assert "422" not in operation["responses"], call
    assert set(api["components"]["schemas"]["ProblemDocument"]["properties"]) >= {"type", "title", "status", "code"}
    assert "HTTPValidationError" not in api["components"]["schemas"]


def test_every_post_needs_an_idempotency_key(api: dict[str, Any]) -> None:
    for call, operation in _operations(api):
        keys = [p for p in operation.get("parameters", ()) if p["name"] == "Idempotency-Key"]
        assert len(keys) == (1 if call.startswith("POST") else 0), call


def test_every_body_refuses_unknown_fields(api: dict[str, Any]) -> None:
    for call, operation in _operations(api):
        if "requestBody" not in operation:
            continue
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        for option in schema.get("anyOf", [schema]):
            if "$ref" in option:
                model = api["components"]["schemas"][option["$ref"].rsplit("/", 1)[1]]
                assert model["additionalProperties"] is False, call


def test_lists_have_items_and_a_cursor(api: dict[str, Any]) -> None:
    for call, operation in _operations(api):
        names = {parameter["name"] for parameter in operation.get("parameters", ())}
        assert ("limit" in names) == ("cursor" in names), call
        if "limit" not in names:
            continue
        shown = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        assert set(api["components"]["schemas"][shown]["properties"]) >= {"items", "next_cursor"}, call


def test_references_lead_somewhere(api: dict[str, Any]) -> None:
    schemas = api["components"]["schemas"]

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for inner in node.values():
                yield from references(inner)
        elif isinstance(node, list):
            for inner in node:
                yield from references(inner)

    assert all(reference.removeprefix("#/components/schemas/") in schemas for reference in references(api))
