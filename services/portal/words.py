"""What pages say, in English or Ukrainian, and how money, rates and times are written there.

Sentences are keyed by their English text, codes (a reason, a state) by `kind.code`. `messages/en.json` has the codes,
and the lines of arithmetic as the APIs write them; `messages/uk.json` has everything.
"""

import json
import re
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from schemas.money import decimal_amount

LANGUAGES = {"en": "English", "uk": "Українська"}
DEFAULT = "en"
MESSAGES = Path(__file__).parent / "messages"
NARROW = "\N{NARROW NO-BREAK SPACE}"


@cache
def catalogue(language: str) -> dict[str, str]:
    """A language's messages by key."""
    found: dict[str, str] = json.loads((MESSAGES / f"{language}.json").read_text(encoding="utf-8"))
    return found


def preferred(accept_language: str) -> str:
    """The best of our languages for an Accept-Language header. Unreadable weights count as 1."""
    weights: dict[str, float] = {}
    for item in accept_language.split(","):
        name, _, weight = item.strip().partition(";q=")
        try:
            weights.setdefault(name.strip().lower().split("-")[0], float(weight or 1))
        except ValueError:
            weights.setdefault(name.strip().lower().split("-")[0], 1.0)
    return max(LANGUAGES, key=lambda language: (weights.get(language, 0), language == DEFAULT))


@cache
def sums() -> dict[str, re.Pattern[str]]:
    """How each line of arithmetic is known by what the APIs say, by its key. A figure has no sign and no small letter
    in it, so a line is of one kind alone."""
    places = {"reason": r"(?P<reason>[a-z_]+)", "cause": r"(?P<cause>.+)"}

    def place(found: re.Match[str]) -> str:
        return places.get(found[1], rf"(?P<{found[1]}>[^a-z×÷−=]+)")

    said = {key: re.escape(text) for key, text in catalogue(DEFAULT).items() if key.startswith("sum.")}
    return {key: re.compile(re.sub(r"\\{(\w+)\\}", place, text)) for key, text in said.items()}


class Words:
    """The words of one language. Call it with an English sentence: `words("Log out")`."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._known = catalogue(language)

    def __call__(self, text: str, **values: Any) -> str:
        """A sentence, with values in its {places}."""
        said = self._known.get(text, text)
        return said.format(**values) if values else said

    def code(self, kind: str, code: str) -> str:
        """What a code of the APIs means; one that is not known here is shown as it is."""
        return self._known.get(f"{kind}.{code}") or code.replace("_", " ")

    def knows(self, kind: str, code: str) -> bool:
        return f"{kind}.{code}" in self._known

    def rule(self, rule: str) -> str:
        """A decision's rule: a sentence of commission's, or attribution's name for how evidence is judged."""
        model, within, rest = rule.partition("_within_")
        days = rest.removesuffix("_days")
        match (model, bool(within)):
            case ("first_click", True):
                return self("First click within {days} days", days=days)
            case ("last_click", True):
                return self("Last click within {days} days", days=days)
            case ("first_click", False):
                return self("First click")
            case ("last_click", False):
                return self("Last click")
            case _:
                return self(rule)

    def input(self, name: str, value: str) -> str:
        """What a decision looked at: the words of a code or a rule; anything else is shown as it is."""
        if name == "rule":
            return self.rule(value)
        kinds = {"reasons": ("reason",), "signup": ("reason", "outcome")}.get(name, (name,))
        return next((self.code(kind, value) for kind in kinds if self.knows(kind, value)), value)

    def sum(self, line: str) -> str:
        """A line of a decision's arithmetic; one that is not known here is shown as it is."""
        for key, form in sums().items():
            if found := form.fullmatch(line):
                values = found.groupdict()
                if "reason" in values:
                    values["reason"] = self.code("reason", values["reason"])
                return self(key, **values)
        return line

    def money(self, amount: dict[str, Any]) -> str:
        """`{"minor": 123456, "currency": "USD"}` → 1,234.56 USD."""
        whole, point, rest = decimal_amount(amount["minor"], amount["currency"]).partition(".")
        sign, digits = ("−", whole[1:]) if whole.startswith("-") else ("", whole)
        grouped = self.number(int(digits))
        comma = "," if self.language == "uk" else "."
        return f"{sign}{grouped}{comma if point else ''}{rest}\N{NO-BREAK SPACE}{amount['currency']}"

    def number(self, value: int) -> str:
        return f"{value:,}".replace(",", NARROW) if self.language == "uk" else f"{value:,}"

    def percent(self, rate: str) -> str:
        """`"0.205"` → 20.5 %: a rate as the APIs write it."""
        whole, _, rest = rate.partition(".")
        digits = rest.ljust(2, "0")
        shown = f"{int(whole + digits[:2])}.{digits[2:]}".rstrip("0").rstrip(".")
        return f"{shown.replace('.', ',') if self.language == 'uk' else shown}{NARROW}%"

    def whole_percent(self, percent: int) -> str:
        return f"{percent}{NARROW}%"

    def ratio(self, part: int, of: int) -> str:
        """`part` of `of` in percent with one digit; a dash of nothing."""
        if not of:
            return "–"
        tenths = (2000 * part + of) // (2 * of)
        comma = "," if self.language == "uk" else "."
        return f"{tenths // 10}{comma}{tenths % 10}{NARROW}%"

    def day(self, moment: str | None) -> str:
        """A time or a date of the APIs as a day, UTC."""
        if not moment:
            return "–"
        at = datetime.fromisoformat(moment)
        return f"{at:%d.%m.%Y}" if self.language == "uk" else f"{at.day} {at:%b %Y}"

    def time(self, moment: str | None) -> str:
        """A time of the APIs, UTC."""
        return f"{self.day(moment)}, {datetime.fromisoformat(moment):%H:%M} UTC" if moment else "–"
