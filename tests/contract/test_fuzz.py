"""Whatever is sent to an operation, the answer is one that its OpenAPI document knows; over the system in memory."""

from collections.abc import Iterator

import pytest
from schemathesis import Case, Response
from schemathesis.python import asgi

from tests import fuzzing
from tests.contract.test_access import PUBLIC, ROUTES
from tests.four_apis import FourApis, four_apis, with_partners
from tests.http_fakes import bearer

CALLS = sorted({*ROUTES, *PUBLIC})
EXAMPLES, LONG_EXAMPLES = 15, 20_000 // len(CALLS)
Prepared = tuple[FourApis, dict[str, tuple[str, ...]]]


@pytest.fixture(scope="module")
def apis() -> Iterator[Prepared]:
    with four_apis() as apis:
        partners = with_partners(apis).values()
        yield apis, {name: tuple(each[name] for each in partners) for name in next(iter(partners))}


@pytest.mark.parametrize("call", CALLS)
def test_every_answer_is_one_that_the_document_knows(apis: Prepared, call: str) -> None:
    _fuzz(*apis, call, EXAMPLES)


@pytest.mark.long
@pytest.mark.parametrize("call", CALLS)
def test_every_one_of_20_000_answers_is_one_that_the_document_knows(apis: Prepared, call: str) -> None:
    _fuzz(*apis, call, LONG_EXAMPLES)


def _fuzz(system: FourApis, ids: dict[str, tuple[str, ...]], call: str, examples: int) -> None:
    service = call.split("/")[1]
    (operation,) = (each for each in fuzzing.operations(system.documents[service]) if each.label == call)
    operation.app = system.clients[service].app

    with asgi.get_client(operation.app) as client:

        def send(case: Case, role: str, sub: str) -> Response:
            return case.call(session=client, headers=bearer(role, sub), allow_redirects=False)

        assert fuzzing.fuzz(operation, ids, send, examples)
