"""Money is exact: one rounding, parts that add up, currencies that never mix, decimals that are text."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.money import (
    MAX_MINOR,
    Charge,
    CurrencyMismatch,
    ExactDecimal,
    Money,
    PositiveMoney,
    Rate,
    decimal_text,
    part,
    round_half_even,
    share,
)

MINOR = st.integers(min_value=-MAX_MINOR, max_value=MAX_MINOR)
HALF = Fraction(1, 2)


@pytest.mark.parametrize(
    ("exact", "rounded"),
    [
        (Fraction(1, 2), 0),
        (Fraction(3, 2), 2),
        (Fraction(5, 2), 2),
        (Fraction(7, 2), 4),
        (Fraction(-1, 2), 0),
        (Fraction(-3, 2), -2),
        (Fraction(-5, 2), -2),
        (Fraction(49, 100), 0),
        (Fraction(51, 100), 1),
        (Fraction(10**30 + 1, 2), 10**30 // 2),
        (Fraction(0), 0),
    ],
)
def test_half_goes_to_the_even_neighbour(exact: Fraction, rounded: int) -> None:
    assert round_half_even(exact) == rounded


@pytest.mark.parametrize(
    ("minor", "rate", "earned"),
    [(1999, "0.20", 400), (25, "0.10", 2), (35, "0.10", 4), (1, "0.5", 0), (3, "0.5", 2), (0, "0.30", 0), (5, "1", 5)],
)
def test_share_is_rounded_once(minor: int, rate: str, earned: int) -> None:
    assert share(minor, Decimal(rate)) == earned
    assert share(minor, Fraction(rate)) == earned


@given(minor=st.integers(0, MAX_MINOR), rate=st.decimals(0, 1, places=4))
def test_share_lies_within_half_a_unit_of_the_exact_one(minor: int, rate: Decimal) -> None:
    assert abs(share(minor, rate) - minor * Fraction(rate)) <= HALF
    assert 0 <= share(minor, rate) <= minor


@given(whole=st.integers(-MAX_MINOR, MAX_MINOR), of=st.integers(1, 10**9), rate=st.decimals(-2, 2, places=6))
def test_rounding_is_that_of_exact_fractions(whole: int, of: int, rate: Decimal) -> None:
    assert share(whole, rate) == share(whole, Fraction(rate)) == round(whole * Fraction(rate))
    assert part(whole, of // 2, of) == round(Fraction(whole * (of // 2), of))
    assert round_half_even(Fraction(whole, of)) == round(Fraction(whole, of))


@given(whole=st.integers(-MAX_MINOR, MAX_MINOR), pieces=st.lists(st.integers(0, 10**6), min_size=1, max_size=12))
def test_running_parts_add_up_to_the_whole(whole: int, pieces: list[int]) -> None:
    of = sum(pieces) or 1
    pieces = pieces if sum(pieces) else [1]
    taken, given_out, parts = 0, 0, []
    for piece in pieces:
        taken += piece
        parts.append(part(whole, taken, of) - given_out)
        given_out += parts[-1]
    assert sum(parts) == part(whole, of, of) == whole
    assert all(abs(each - Fraction(whole * piece, of)) <= 1 for each, piece in zip(parts, pieces, strict=True))
    assert all(each * whole >= 0 for each in parts)


@given(whole=st.integers(0, MAX_MINOR), taken=st.integers(0, 10**9), more=st.integers(0, 10**9))
def test_part_never_falls_as_more_is_taken(whole: int, taken: int, more: int) -> None:
    of = taken + more or 1
    assert part(whole, 0, of) == 0 <= part(whole, taken, of) <= part(whole, min(taken + 1, of), of) <= whole


@given(left=st.integers(-(2**51), 2**51), right=st.integers(-(2**51), 2**51))
def test_sum_and_difference_undo_each_other(left: int, right: int) -> None:
    one, other = Money(minor=left, currency="USD"), Money(minor=right, currency="USD")
    assert one + other - other == one
    assert (one + other).minor == left + right


def test_two_currencies_do_not_add_up() -> None:
    hryvnia, dollar = Money(minor=1999, currency="UAH"), Money(minor=1, currency="USD")
    with pytest.raises(CurrencyMismatch, match="UAH and USD"):
        hryvnia + dollar
    with pytest.raises(CurrencyMismatch, match="USD and UAH"):
        dollar - hryvnia


def test_sum_of_the_largest_payments_is_an_amount_and_no_payment_is_larger() -> None:
    largest = Money(minor=MAX_MINOR, currency="USD")
    assert (largest + largest).minor == 2 * MAX_MINOR
    payable = TypeAdapter(Charge)
    assert payable.validate_python({"minor": MAX_MINOR, "currency": "USD"}) == largest
    with pytest.raises(ValidationError) as caught:
        payable.validate_python({"minor": MAX_MINOR + 1, "currency": "USD"})
    assert caught.value.errors()[0]["loc"] == ("minor",)


@pytest.mark.parametrize("minor", [1.0, 1.5, True, "1", None, 2**63, -(2**63), 10**30, Decimal(1)])
def test_minor_is_an_integer_and_nothing_like_one(minor: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Money.model_validate({"minor": minor, "currency": "USD"})
    assert caught.value.errors()[0]["loc"] == ("minor",)


@pytest.mark.parametrize("currency", ["usd", "US", "USDT", "US1", "USD\n", " USD", "", None, 840])
def test_currency_is_three_capital_letters(currency: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Money.model_validate({"minor": 1, "currency": currency})
    assert caught.value.errors()[0]["loc"] == ("currency",)


@pytest.mark.parametrize(("kind", "least"), [(Charge, 0), (PositiveMoney, 1)])
def test_amount_below_the_least_is_refused_at_minor(kind: Any, least: int) -> None:
    adapter = TypeAdapter[Money](kind)
    assert adapter.validate_python({"minor": least, "currency": "USD"}).minor == least
    with pytest.raises(ValidationError) as caught:
        adapter.validate_python({"minor": least - 1, "currency": "USD"})
    assert [error["loc"] for error in caught.value.errors()] == [("minor",)]


@given(number=st.decimals(0, 10**12, places=6))
def test_decimal_travels_as_text_and_comes_back_the_same(number: Decimal) -> None:
    adapter = TypeAdapter[Decimal](ExactDecimal)
    text = decimal_text(number)
    assert adapter.validate_python(text) == number
    assert adapter.dump_python(number, mode="json") == text
    assert decimal_text(adapter.validate_python(text)) == text


@pytest.mark.parametrize("text", ["0.20", "0", "1", "12.500"])
def test_decimal_is_kept_as_it_was_written(text: str) -> None:
    assert decimal_text(TypeAdapter[Decimal](ExactDecimal).validate_python(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", " 1", "1 ", "1_000", "1,5", "+1", ".5", "1.", "0x1", "１", "NaN", "Infinity", "1\n"),
        *("1e5", "1E+2", "1e999999999", "9" * 19, "0." + "1" * 19),
        *(0.2, 1, True, None),
    ],
)
def test_what_is_no_plain_decimal_text_is_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[Decimal](ExactDecimal).validate_python(text)


@pytest.mark.parametrize("text", ["-0.01", "1.01", "2"])
def test_rate_lies_between_0_and_1(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[Decimal](Rate).validate_python(text)


@given(minor=MINOR)
def test_money_survives_json(minor: int) -> None:
    money = Money(minor=minor, currency="JPY")
    assert Money.model_validate_json(money.model_dump_json()) == money
