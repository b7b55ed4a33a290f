"""Whatever is sent to a running refstream, the answer is one that its OpenAPI documents know."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from schemathesis import Case, Response

from services.cli.token import Role, signed
from tests import fuzzing
from tests.contract.test_access import PUBLIC, ROUTES
from tests.e2e.conftest import Running

pytestmark = pytest.mark.infra

CALLS = sorted({*ROUTES, *PUBLIC})
PARTNERS = ("fuzz-1", "fuzz-2")
EXAMPLES, LONG_EXAMPLES = 5, 50


@pytest.fixture(scope="module")
def ids(running: Running) -> dict[str, tuple[str, ...]]:
    """Two partners, with a link each, and a withdrawal that never was."""
    codes = []
    for partner in PARTNERS:
        for program in ("jupsoft", "message-help", "proxy-credits", "active-referrals"):
            body = {"partner_id": partner, "program_id": program, "accepted_terms": True}
            made(running, "/attribution/partners", Role.platform, "platform", body)
        link = made(running, f"/attribution/partners/{partner}/links", Role.partner, partner, {"program_id": "jupsoft"})
        codes.append(link["code"])
    # No day that verifies a month: what is verified on shared servers stays verified.
    return {"partner_id": PARTNERS, "code": tuple(codes), "date": ("2026-02-27",)}


def made(running: Running, path: str, role: Role, sub: str, body: dict[str, Any]) -> Any:
    headers = {"authorization": f"Bearer {signed(running.settings, role, sub)}", "idempotency-key": f"{path} {body}"}
    answer = httpx.post(running.url + path, json=body, headers=headers, timeout=20, trust_env=False)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def fuzz(running: Running, ids: dict[str, tuple[str, ...]]) -> Callable[[str, int], None]:
    services = sorted({call.split("/")[1] for call in CALLS})
    documents = [httpx.get(f"{running.url}/{each}/openapi.json", trust_env=False).json() for each in services]
    operations = {each.label: each for document in documents for each in fuzzing.operations(document)}

    def send(case: Case, role: str, sub: str) -> Response:
        token = signed(running.settings, Role(role), sub)
        headers = {"authorization": f"Bearer {token}"}
        return case.call(base_url=running.url, headers=headers, allow_redirects=False, timeout=20)

    def run(call: str, examples: int) -> None:
        assert fuzzing.fuzz(operations[call], ids, send, examples)

    return run


@pytest.mark.parametrize("call", CALLS)
def test_every_answer_of_a_running_refstream_is_one_that_its_documents_know(
    fuzz: Callable[[str, int], None], call: str
) -> None:
    fuzz(call, EXAMPLES)


@pytest.mark.long
@pytest.mark.parametrize("call", CALLS)
def test_every_one_of_many_answers_of_a_running_refstream_is_one_that_its_documents_know(
    fuzz: Callable[[str, int], None], call: str
) -> None:
    fuzz(call, LONG_EXAMPLES)
