"""Money, rates and the only rounding.

Money is an integer of its currency's minor unit (USD cents, JPY yen, KWD fils) and an ISO 4217 code.
Rates are exact decimals, written as text. Nothing near money is a float.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)

MAX_MINOR = 2**53 - 1  # of what comes in: the most that every JSON writer can say exactly
MAX_SUM_MINOR = 2**63 - 1  # of what goes out: a sum of the largest payments is an amount as well


class CurrencyMismatch(ValueError):
    """Two amounts of different currencies met in one sum."""


class Money(BaseModel):
    """An amount: `minor` units of `currency`. Negative only where a field says so."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    minor: int = Field(ge=-MAX_SUM_MINOR, le=MAX_SUM_MINOR, examples=[1250])
    currency: str = Field(pattern=r"^[A-Z]{3}$", examples=["USD"])

    def __add__(self, other: "Money") -> "Money":
        self._same(other)
        return Money(minor=self.minor + other.minor, currency=self.currency)

    def __sub__(self, other: "Money") -> "Money":
        self._same(other)
        return Money(minor=self.minor - other.minor, currency=self.currency)

    def _same(self, other: "Money") -> None:
        if self.currency != other.currency:
            raise CurrencyMismatch(f"{self.currency} and {other.currency} do not add up")


def round_half_even(exact: Fraction) -> int:
    """The project's one rounding: to the nearest integer, a half to the even neighbour."""
    return _rounded(exact.numerator, exact.denominator)


def _rounded(numerator: int, denominator: int) -> int:
    """The rounding of `numerator / denominator`, exact; `denominator` above 0."""
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1))


def share(minor: int, rate: Fraction | Decimal) -> int:
    """`rate` of `minor`, rounded once."""
    numerator, denominator = rate.as_integer_ratio()
    return _rounded(minor * numerator, denominator)


def part(whole: int, taken: int, of: int) -> int:
    """`taken / of` of `whole`, rounded once; `of` above 0. `part(x, n, n) == x`, so parts add up to the whole."""
    return _rounded(whole * taken, of)


# No exponent: "1e999999999" is ten characters, and a gigabyte once it is an exact number.
_DECIMAL = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")


def _decimal_text(value: Any) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if not isinstance(value, str):
        raise ValueError('write a decimal as text, like "0.20"')  # noqa: TRY004  # pydantic catches ValueError alone
    return _decimal(value)


@lru_cache(maxsize=1 << 10)
def _decimal(text: str) -> Decimal:
    """Remembered, since there are few rates and many events with one."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f'{text[:40]!r} is no decimal number; write it like "0.20"')
    return Decimal(text)


def decimal_text(value: Decimal) -> str:
    """The decimal as it was written, without an exponent."""
    return format(value, "f")


ExactDecimal = Annotated[
    Decimal,
    BeforeValidator(_decimal_text, json_schema_input_type=str),
    PlainSerializer(decimal_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DECIMAL.pattern}$", "examples": ["0.20"]}),
]
"""A decimal that travels as text: `"0.20"`, `"2"`."""

Rate = Annotated[ExactDecimal, Field(ge=0, le=1, examples=["0.20"])]
"""A share between 0 and 1 as decimal text."""


def _from(least_minor: int) -> Callable[[Money], Money]:
    """A check of what comes in: `least_minor` to MAX_MINOR."""

    def checked(money: Money) -> Money:
        kind = "greater_than_equal" if money.minor < least_minor else "less_than_equal"
        if not least_minor <= money.minor <= MAX_MINOR:
            # As an error of `minor` itself, so that a dead letter names the field to mend.
            limits = {"ge": least_minor, "le": MAX_MINOR}
            fault = {"type": kind, "loc": ("minor",), "input": money.minor, "ctx": limits}
            raise ValidationError.from_exception_data("Money", [fault])  # type: ignore[list-item]
        return money

    return checked


def _bounds(least_minor: int) -> Any:
    return Field(json_schema_extra={"properties": {"minor": {"minimum": least_minor, "maximum": MAX_MINOR}}})


Charge = Annotated[Money, AfterValidator(_from(0)), _bounds(0)]
"""Money that somebody pays: 0 or more."""

PositiveMoney = Annotated[Money, AfterValidator(_from(1)), _bounds(1)]
"""Money that somebody asks for: more than 0."""


def _known_fields(value: Any) -> Any:
    """A newer producer's event may say more of an amount than we know; elsewhere that is a mistake."""
    if isinstance(value, dict) and (unknown := value.keys() - Money.model_fields.keys()):
        faults = [{"type": "extra_forbidden", "loc": (name,), "input": value[name]} for name in sorted(unknown)]
        raise ValidationError.from_exception_data("Money", faults)  # type: ignore[arg-type]
    return value


_closed = Field(json_schema_extra={"unevaluatedProperties": False})

PositiveAmount = Annotated[PositiveMoney, BeforeValidator(_known_fields), _closed]
"""Money in a request or a program document, more than 0."""

ChargedAmount = Annotated[Charge, BeforeValidator(_known_fields), _closed]
"""Money in a request, 0 or more."""

# ISO 4217: currencies whose minor unit is not a hundredth.
_CURRENCIES_BY_DIGITS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_DIGITS = {currency: digits for digits, currencies in _CURRENCIES_BY_DIGITS.items() for currency in currencies.split()}


def decimal_amount(minor: int, currency: str) -> str:
    """An amount in the currency's own unit: 1250 USD is 12.50, 1250 JPY is 1250."""
    digits = _DIGITS.get(currency, 2)
    whole, rest = divmod(abs(minor), 10**digits)
    return f"{'-' if minor < 0 else ''}{whole}" + (f".{rest:0{digits}}" if digits else "")
