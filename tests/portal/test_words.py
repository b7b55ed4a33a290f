"""What pages say: every sentence in every language, and how figures are written."""

import ast
import re
from pathlib import Path
from string import Formatter

import pytest

from schemas.events import REASONS_FOR_PAYMENTS, DeclineReason
from services.attribution import binding
from services.commission import decisions
from services.portal.desk.pages import MENU
from services.portal.words import LANGUAGES, NARROW, Words, catalogue, preferred

PORTAL = Path(__file__).parents[2] / "services" / "portal"
RULES = {*decisions.RULES.values(), *(getattr(decisions, f"{name}_RULE") for name in ("CREDITS", "SHARE"))}
RULES |= {decisions.WAITING_RULE, decisions.COUNTING_RULE}


def _sentences() -> set[str]:
    """Every English sentence that a page may say."""
    found = {*MENU.values(), *RULES}
    for template in PORTAL.rglob("*.html"):
        found |= set(re.findall(r'(?<![\w.])_\("([^"]+)"', template.read_text()))
    for path in PORTAL.rglob("*.py"):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            place = {"words": 0, "self": 0, "add": 1, "Queue": 1}.get(ast.unparse(call.func))
            if place is not None and len(call.args) > place and isinstance(text := call.args[place], ast.Constant):
                found.add(text.value)
    return found


def test_ukrainian_says_every_sentence_and_every_code_and_nothing_else() -> None:
    assert set(catalogue("uk")) == _sentences() | set(catalogue("en"))


def test_a_translation_has_the_same_places() -> None:
    def places(text: str) -> set[str | None]:
        return {name for _, name, _, _ in Formatter().parse(text)} - {None}

    for key, said in catalogue("uk").items():
        assert places(said) == places(catalogue("en").get(key, key)), key


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_of_the_apis_has_words(language: str) -> None:
    reasons = {*REASONS_FOR_PAYMENTS, *DeclineReason.__args__}  # type: ignore[attr-defined]
    assert {reason for reason in reasons if f"reason.{reason}" not in catalogue(language)} == set()


LINES = (*decisions.LINES, *binding.LINES)


def test_every_line_of_arithmetic_has_words() -> None:
    assert {text for key, text in catalogue("en").items() if key.startswith("sum.")} == set(LINES)


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_arithmetic_is_said_in_ukrainian_with_its_figures(line: str) -> None:
    names = [name for _, name, _, _ in Formatter().parse(line) if name]
    values = {name: f"{number}00.50 USD" for number, name in enumerate(names, 1)}
    values |= {"reason": "dispute_lost", "cause": "d = 1 − taken back: x"}
    said = Words("uk").sum(line.format(**values))
    assert [said.count(values[name]) for name in names if name != "reason"] == [1] * len(set(names) - {"reason"})
    assert ("програний спір" in said) == ("reason" in names)
    assert re.findall(r"[a-z]+", said.replace(values["cause"], "")) == []


def test_a_line_of_arithmetic_that_is_new_is_shown_as_it_is() -> None:
    assert Words("uk").sum("1 + 1 = 2 of something") == "1 + 1 = 2 of something"


@pytest.mark.parametrize(
    ("header", "language"),
    [("uk-UA,uk;q=0.9,en;q=0.8", "uk"), ("en-GB,uk;q=0.5", "en"), ("de", "en"), ("", "en"), ("uk;q=nonsense", "uk")],
)
def test_the_browsers_language_is_taken_where_we_speak_it(header: str, language: str) -> None:
    assert preferred(header) == language


def test_figures_are_written_as_in_the_language() -> None:
    english, ukrainian = Words("en"), Words("uk")
    amount = {"minor": -123456789, "currency": "USD"}
    assert english.money(amount) == "−1,234,567.89\N{NO-BREAK SPACE}USD"
    assert ukrainian.money(amount) == f"−1{NARROW}234{NARROW}567,89\N{NO-BREAK SPACE}USD"
    assert english.money({"minor": 1234, "currency": "JPY"}) == "1,234\N{NO-BREAK SPACE}JPY"
    rates = ("0.20", "0.205", "1", "0", "0.001")
    assert [english.percent(rate) for rate in rates] == [
        f"{each}{NARROW}%" for each in ("20", "20.5", "100", "0", "0.1")
    ]
    assert ukrainian.percent("0.205") == f"20,5{NARROW}%"
    assert english.ratio(1, 3) == f"33.3{NARROW}%"
    assert english.ratio(1, 0) == "–"
    assert english.day("2026-02-08T23:59:59Z") == "8 Feb 2026"
    assert ukrainian.day("2026-02-08") == "08.02.2026"
