"""The statement: every posting to or from the partner's pot, oldest first, with what stood there after it. Pure."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import Field

from schemas.ids import Id
from schemas.moments import Instant, format_instant
from schemas.money import Money, decimal_amount
from services.payouts.ledger import Kind, Posting, postings
from services.payouts.state import BookKey, Row, WithdrawalRow
from services.payouts.views import View

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


@dataclass(frozen=True, slots=True)
class Line:
    """A posting as the partner sees it: `amount_minor` below 0 where money left the partner's pot.

    `balance_minor`: what stood in the partner's pot of this program and currency after it. `place`: where the line
    stands, unique; money that comes stands before money that goes at the same instant.
    """

    posting: Posting
    amount_minor: int
    balance_minor: int
    place: tuple[int, int, str, str, str, str, int]


class StatementLine(View):
    occurred_at: Instant
    kind: Kind
    program_id: Id
    reference: str = Field(description="the payment, withdrawal, top-up, deposit or client payment")
    amount: Money = Field(description="below 0 where money left the partner's account")
    balance: Money = Field(description="of this program and currency after the line, pending money included")


def lines(rows: Iterable[Row]) -> Iterator[Line]:
    """Every line of a partner, oldest first."""
    found = []
    alike = Counter[tuple[int | str, ...]]()  # only of one moment: what is taken back late moves no other line
    for row in rows:
        for posting in postings(row):
            if "partner" in (posting.source, posting.destination):
                comes = posting.destination == "partner"
                book = posting.program_id, posting.currency
                same = posting.at, 0 if comes else 1, *book, posting.kind, posting.reference
                alike[same] += 1
                place = (*same, alike[same])
                found.append((place, posting, posting.amount_minor if comes else -posting.amount_minor))
    found.sort(key=lambda each: each[0])
    standing: dict[BookKey, int] = {}
    for place, posting, amount_minor in found:
        book = posting.program_id, posting.currency
        standing[book] = standing.get(book, 0) + amount_minor
        yield Line(posting, amount_minor, standing[book], place)


def shown(line: Line) -> StatementLine:
    posting = line.posting
    return StatementLine(
        occurred_at=posting.at,
        kind=posting.kind,
        program_id=posting.program_id,
        reference=posting.reference,
        amount=Money(minor=line.amount_minor, currency=posting.currency),
        balance=Money(minor=line.balance_minor, currency=posting.currency),
    )


def as_csv(of: Iterable[Line]) -> str:
    """The lines as CSV with a header row. Amounts are decimals of the currency; no cell is taken for a formula."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("occurred_at", "kind", "program_id", "reference", "amount", "balance", "currency"))
    for line in of:
        posting = line.posting
        amounts = (decimal_amount(minor, posting.currency) for minor in (line.amount_minor, line.balance_minor))
        cells = (posting.kind, posting.program_id, posting.reference)
        writer.writerow((format_instant(posting.at), *map(harmless, cells), *amounts, posting.currency))
    return text.getvalue()


def harmless(cell: str) -> str:
    """A text cell that a spreadsheet shows as it stands."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def withdrawals_as_csv(of: Iterable[tuple[str, WithdrawalRow]]) -> str:
    """Withdrawals with their partners, oldest first, for a bank: the destinations in full, empty once forgotten."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("created_at", "withdrawal_id", "partner_id", "destination", "amount", "currency", "comment"))
    for partner_id, row in sorted(of, key=lambda each: (each[1].created_at, each[1].withdrawal_id)):
        cells = map(harmless, (row.withdrawal_id, partner_id, row.destination or ""))
        amount = decimal_amount(row.amount_minor, row.currency)
        writer.writerow((format_instant(row.created_at), *cells, amount, row.currency, harmless(row.comment or "")))
    return text.getvalue()
