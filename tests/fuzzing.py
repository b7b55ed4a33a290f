"""Requests that schemathesis makes up from the OpenAPI documents, and what every answer must be.

Half of the ids and names in a request are those that exist, so that it gets past the door and into the rules.
"""

from collections.abc import Callable
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, Response
from schemathesis.specs.openapi import checks as conformance

Send = Callable[[Case, str, str], Response]
"""Sends a case as somebody: a role and a `sub`."""

CHECKS = [
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_headers_conformance,
    conformance.response_schema_conformance,
]
PROGRAMS = ("keycrm", "jupsoft", "message-help", "proxy-credits", "active-referrals")
EUR, USD = ({"minor": 1, "currency": currency} for currency in ("EUR", "USD"))
NAMES: dict[str, tuple[Any, ...]] = {
    "program_id": PROGRAMS,
    "provider": ("packetstream",),
    "integration": ("amo", "altegio"),
    "amount": (EUR, USD),
    "list_price": (EUR, USD),
    "date": ("2026-02-28", "2026-01-28"),
    "month": ("2026-02",),
    "currency": ("USD", "EUR"),
    "from": ("2026-01-01", "2026-01-01T00:00:00Z"),
    "to": ("2026-12-01", "2026-12-01T00:00:00Z"),
    "as_of": ("2026-06-01T00:00:00Z", "2099-01-01T00:00:00+02:00"),
    "destination": ("https://crm.example.com/x", "UA90 3052"),
}
"""Values that mean something, besides the ids that a test knows."""


def operations(document: dict[str, Any]) -> list[Any]:
    """The operations of an OpenAPI document, as schemathesis knows them."""
    return [found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()]


def fuzz(operation: Any, ids: dict[str, tuple[str, ...]], send: Send, examples: int) -> int:
    """Ask so many requests of an operation. Answers how many were sent.

    `ids`: those that exist, by the name of the parameter or field; `partner_id` are also the partners who ask.
    """
    known = {**NAMES, **ids}
    sent = 0

    @hypothesis_settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data: st.DataObject) -> None:
        nonlocal sent
        mode = data.draw(st.sampled_from((GenerationMode.POSITIVE, GenerationMode.POSITIVE, GenerationMode.NEGATIVE)))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        for part in (case.path_parameters, case.query, case.body) if mode == GenerationMode.POSITIVE else ():
            _lived_in(part, known, data)
        role = data.draw(st.sampled_from(("partner", "platform", "admin")))
        sub = data.draw(st.sampled_from(ids["partner_id"])) if role == "partner" else role
        if role == "partner" and data.draw(st.booleans()) and "partner_id" in (case.path_parameters or {}):
            case.path_parameters["partner_id"] = sub
        sent += 1
        answered_well(case, send(case, role, sub))

    run()
    return sent


def _lived_in(part: Any, known: dict[str, tuple[Any, ...]], data: st.DataObject) -> None:
    if isinstance(part, dict):
        for name in part.keys() & known.keys():
            if data.draw(st.booleans()):
                part[name] = data.draw(st.sampled_from(known[name]))


def answered_well(case: Case, response: Response) -> None:
    """No fault of ours (503 only while something is rebuilt), and nothing that the document does not say."""
    if response.status_code >= 500:
        document = response.json()
        assert (response.status_code, document["code"]) == (503, "rebuilding"), (case.as_curl_command(), response.text)
        assert response.headers["retry-after"]
    case.validate_response(response, checks=CHECKS)
