"""Which money a withdrawal or a top-up takes: the oldest accruals first, then deposits.

Source: programs.md, keycrm (oldest accruals first, ties by id; a part of an accrual is worth its share).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from schemas.money import round_half_even
from services.payouts.ledger import balance, is_pending, net
from services.payouts.state import AccrualRow, BookKey, Row, Use, book_of


@dataclass(frozen=True, slots=True)
class Funds:
    """What a command may take from one book. `parts`: of accruals, oldest first; `other_minor`: deposits.

    The two together are the balance's `available`; `other_minor` is below 0 where debts exceed everything.
    """

    parts: tuple[Use, ...]
    other_minor: int

    @property
    def earned_minor(self) -> int:
        return sum(part.amount_minor for part in self.parts)

    @property
    def available_minor(self) -> int:
        return self.earned_minor + self.other_minor

    def take(self, minor: int) -> tuple[Use, ...]:
        """The parts that `minor` uses, oldest first; what they do not cover comes from deposits."""
        taken: list[Use] = []
        for part in self.parts:
            if not minor:
                break
            use = min(minor, part.amount_minor)
            taken.append(Use(part.payment_id, use))
            minor -= use
        return tuple(taken)


def funds(rows: Iterable[Row], book: BookKey, at: int) -> Funds:
    """What can be taken from a book at an instant.

    An accrual that was taken back, or is held, after it was used leaves a debt; so do client payments beyond the
    deposits. Debts are filled from the oldest remainders before anything is taken: nothing is moved for that, the
    remainders in front are only left alone as long as the debt lasts.
    """
    own = [row for row in rows if book_of(row) == book]
    accruals = [row for row in own if isinstance(row, AccrualRow)]
    accruals.sort(key=lambda row: (row.accrued_at, row.payment_id))
    remainders = [(row, (0 if is_pending(row, at) else net(row)) - row.used_minor) for row in accruals]
    earned = sum(minor for _, minor in remainders)
    figures = balance(own, at).get(book)
    other = figures.available - earned if figures else 0
    debt = sum(-minor for _, minor in remainders if minor < 0) + max(0, -other)
    parts = []
    for row, minor in remainders:
        if minor > 0:
            filling = min(debt, minor)
            debt -= filling
            if minor > filling:
                parts.append(Use(row.payment_id, minor - filling))
    return Funds(tuple(parts), max(0, other) - debt)


def topup_worth(used: Iterable[Use], accruals: Mapping[str, AccrualRow], points: Decimal) -> int:
    """What bonus money is worth in the partner's own account: itself, and `points` of the payments it stands for.

    A part of an accrual stands for the same part of what is left of its payment. Exact, rounded once at the end.
    """
    worth = Fraction(0)
    for use in used:
        row = accruals[use.payment_id]
        paid = Fraction(use.amount_minor, net(row)) * (row.base_minor - row.refunded_minor)
        worth += use.amount_minor + Fraction(points) * paid
    return round_half_even(worth)
