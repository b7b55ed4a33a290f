"""The OpenAPI document: what the routes say, and what is true of all of them and stands in none."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.runtime.http.problems import MEDIA_TYPE, FieldError, ProblemDocument

DESCRIPTIONS = {
    "attribution": "Partners, links and promo codes, referrals and their decisions, program documents.",
    "commission": "What payments earned: commissions, tiers, and why each payment was decided as it was.",
    "rewards": "Credits and the reward store, bonuses, monthly discounts.",
    "payouts": "Balances and statements, withdrawals, top-ups, deposits, payments for clients.",
}

_PROBLEM_EXAMPLE = {
    "type": "about:blank",
    "title": "Not Found",
    "status": 404,
    "code": "not_found",
    "detail": "There is no such thing here.",
}
_PROBLEM_RESPONSE = {
    "description": "A problem (RFC 9457); `code` says which.",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}, "example": _PROBLEM_EXAMPLE}},
}
_RATE_LIMITED = {
    "description": "A problem with the code `rate_limited`: this caller asks too often; others are not affected.",
    "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "New for each new request. The same key and body get the first answer again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "example": "5f0c7f3e-2f0e-4b86-9f0b-0f3a1f6f7a10",
}
_PENDING = {
    "description": "Not decided within 5 seconds; ask at `Location`.",
    "headers": {"Location": {"schema": {"type": "string"}}, "Retry-After": {"schema": {"type": "integer"}}},
}


def document(app: FastAPI) -> dict[str, Any]:
    """The app's OpenAPI document."""
    found = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for model in (FieldError, ProblemDocument):
        own = model.model_json_schema(ref_template="#/components/schemas/{model}")
        own.pop("$defs", None)
        schemas[model.__name__] = own
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own shape of a 422, which is never answered
        schemas.pop(name, None)
    for method, operation in _operations(found):
        responses = operation["responses"]
        responses.pop("422", None)
        responses["default"] = _PROBLEM_RESPONSE
        if "health" not in operation["tags"]:
            responses["429"] = _RATE_LIMITED
        if method in ("post", "put") and "security" in operation:
            responses.setdefault("202", _PENDING)
        if method == "post" and "security" in operation:
            operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
    return found


def _operations(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in found["paths"].values():
        yield from path.items()
