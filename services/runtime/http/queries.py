"""Query parameters: times, and the refusal of parameters that a route does not know.

A mistyped `as_off` would silently show today's figures; it is refused like an unknown field of a body. Public routes
take any: links get decorated by mail tools and social networks.
"""

from typing import Annotated

from fastapi import Query, Request
from pydantic import AfterValidator
from starlette.types import Scope

from schemas.moments import Instant
from services.runtime.http.bodies import LATEST
from services.runtime.http.problems import FieldError, Problem

AsOf = Annotated[
    Annotated[Instant, AfterValidator(lambda at: min(at, LATEST))] | None,
    Query(description="Count events strictly before this time; a hold that ends at it is over. RFC 3339."),
]
"""Parameter type of `as_of`: microseconds since 1970 UTC, or None. Without an offset: 422.

A time beyond `LATEST` shows what `LATEST` shows: nothing happens later.
"""

Search = Annotated[
    str | None, Query(max_length=256, description="Only where an id, a name, an e-mail or a phone holds this text.")
]
"""Parameter type of `search`."""


def route_template(scope: Scope, service: str) -> str | None:
    """The matched route as OpenAPI writes it, like `/payouts/partners/{partner_id}/balance`, or None."""
    path = getattr(scope.get("route"), "path", None)
    if not isinstance(path, str):
        return None
    prefix = f"/{service}"  # newer versions of FastAPI leave the prefix of an included router out
    return path if path.startswith(prefix + "/") else prefix + path


def refuse_unknown_query(request: Request) -> None:
    """Errors: Problem 422 that names every query parameter which the matched route's OpenAPI entry does not."""
    if not request.query_params:
        return
    path = route_template(request.scope, request.app.state.service)
    operation = request.app.openapi()["paths"].get(path, {}).get(request.method.lower())
    if operation is None:
        return
    known = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"}
    if unknown := sorted(set(request.query_params) - known):
        errors = [FieldError(field=name, message="There is no such parameter.") for name in unknown]
        raise Problem(422, "invalid", "The request is not valid.", errors)


def wants_csv(accept: str) -> bool:
    """Whether an Accept header prefers CSV to JSON. Unreadable weights count as 1."""
    weights = {"text/csv": 0.0, "application/json": 0.0}
    for item in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        if kind in weights:
            weights[kind] = _weight(parameters)
    return weights["text/csv"] > weights["application/json"]


def _weight(parameters: list[str]) -> float:
    stated = next((text[2:] for text in parameters if text.startswith("q=")), "1")
    try:
        return float(stated)
    except ValueError:
        return 1.0
