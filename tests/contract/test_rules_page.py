"""Every rule of the shipped programs leads to the document's field that holds it and to the tests that show it."""

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from schemas.programs import SHIPPED
from schemas.rules import GENERAL, PAGE, Rule, documents, page, rules, value_at

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "golden"
RULES = rules()
DOCUMENTS = documents()
NO_RULE = {"program_id", "name"}
"""Fields of a document that name it and rule nothing."""


@cache
def _tests_of(file: str) -> frozenset[str]:
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _exists(test: str) -> bool:
    file, _, name = test.partition("::")
    if not name:
        return (GOLDEN / f"{test}.jsonl").is_file()
    return name.startswith("test_") and name in _tests_of(file)


def _leaves(value: Any, path: str = "") -> Iterator[str]:
    """The dotted paths of what a document says; a list that is not of terms is one thing."""
    if isinstance(value, list) and path == "terms":
        value = {term["kind"]: {name: held for name, held in term.items() if name != "kind"} for term in value}
    if isinstance(value, dict) and value:
        for name, held in value.items():
            yield from _leaves(held, f"{path}.{name}" if path else name)
    else:
        yield path


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs` and commit docs/rules.md"


def test_a_rule_is_said_once_and_of_a_program_that_is_shipped() -> None:
    ids = [rule.id for rule in RULES]
    assert sorted(set(ids)) == sorted(ids)
    assert {rule.program for rule in RULES} == {GENERAL, *SHIPPED}
    assert [rule.id for rule in RULES if not rule.id.startswith(f"{rule.program}.")] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_fields_of_a_rule_are_in_the_shipped_document(rule: Rule) -> None:
    for program in SHIPPED if rule.program == GENERAL else (rule.program,):
        for path in rule.fields:
            value_at(DOCUMENTS[program], path)


def test_a_field_that_no_document_has_is_named() -> None:
    for path in ("terms.share.windows", "terms.credits", "attribution.model.first", "payout"):
        with pytest.raises(LookupError, match=path):
            value_at(DOCUMENTS["keycrm"], path)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_journeys_and_tests_of_a_rule_exist(rule: Rule) -> None:
    assert [test for test in rule.tests if not _exists(test)] == []


def test_a_test_that_does_not_exist_is_noticed() -> None:
    for name in ("keycrm/no-such-journey", "tests/no_such.py::test_x", "tests/contract/test_rules_page.py::test_x"):
        assert not _exists(name)
    assert not _exists("tests/contract/test_rules_page.py")
    assert _exists("tests/contract/test_rules_page.py::test_a_test_that_does_not_exist_is_noticed")


def test_every_golden_journey_shows_a_rule() -> None:
    journeys = {f"{path.parent.name}/{path.stem}" for path in GOLDEN.glob("*/*.jsonl")}
    assert sorted(journeys - {test for rule in RULES for test in rule.tests}) == []


@pytest.mark.parametrize("program", SHIPPED)
def test_everything_that_a_document_says_is_a_rule(program: str) -> None:
    written = json.loads((ROOT / "schemas" / "programs" / f"{program}.json").read_bytes())
    held = [path for rule in RULES if rule.program in (GENERAL, program) for path in rule.fields]
    unsaid = [
        leaf
        for leaf in _leaves(written)
        if leaf not in NO_RULE and not any(leaf == path or leaf.startswith(f"{path}.") for path in held)
    ]
    assert unsaid == []
