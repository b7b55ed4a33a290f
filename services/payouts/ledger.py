"""The ledger: everything is a posting from one pot to another, and every figure is a sum of postings.

`postings` is a pure function of a row. What a balance shows is how much stands in a pot, so that the sum over all pots
is zero by construction; only `pending` asks more, when an accrual can be used. A book's totals are moved by what a
changed row posts now minus what it posted before, so they equal the sum over all rows at any time.
Source: contract.md, Balance.
"""

from collections.abc import Iterable, Iterator, Mapping
from operator import add, sub
from typing import Literal, assert_never

import msgspec

from services.payouts.state import (
    AccrualRow,
    Book,
    BookKey,
    ClientPaymentRow,
    DepositRow,
    Person,
    Row,
    Sums,
    TopupRow,
    WithdrawalRow,
    book_of,
)

Pot = Literal["program", "returns", "partner", "processing", "bank", "topups", "outside", "spent"]
Kind = Literal[
    "accrual",
    "reversal",
    "withdrawal",
    "withdrawal_paid",
    "withdrawal_rejected",
    "withdrawal_cancelled",
    "topup",
    "deposit",
    "client_payment",
]


class Posting(msgspec.Struct, frozen=True):
    """`amount_minor`, above 0, went from one pot to another at an instant. `reference`: the id it is about."""

    at: int
    source: Pot
    destination: Pot
    amount_minor: int
    currency: str
    program_id: str
    kind: Kind
    reference: str


class Figures(msgspec.Struct, frozen=True):
    """A balance of one book at an instant."""

    sums: Sums
    pending: int

    @property
    def account(self) -> int:
        """What stands in the partner's pot, pending money included."""
        s = self.sums
        return s.accrued - s.reversed - s.processing - s.paid - s.topped_up + s.deposits - s.spent

    @property
    def available(self) -> int:
        return self.account - self.pending


def postings(row: Row) -> tuple[Posting, ...]:
    """What a row posts, as it stands. Nothing is posted for an amount of 0."""
    return tuple(posting for posting in _posted(row) if posting.amount_minor)


def _posted(row: Row) -> Iterator[Posting]:
    match row:
        case AccrualRow():
            yield _posting(row, row.accrued_at, "program", "partner", row.amount_minor, "accrual", row.payment_id)
            for back in row.reversals:
                at, minor = back.returned_at, back.amount_minor
                yield _posting(row, at, "partner", "returns", minor, "reversal", row.payment_id)
        case WithdrawalRow(amount_minor=minor, withdrawal_id=own):
            yield _posting(row, row.created_at, "partner", "processing", minor, "withdrawal", own)
            settled_at = row.created_at if row.settled_at is None else row.settled_at
            match row.status:
                case "processing":
                    pass
                case "paid":
                    yield _posting(row, settled_at, "processing", "bank", minor, "withdrawal_paid", own)
                case "rejected":
                    yield _posting(row, settled_at, "processing", "partner", minor, "withdrawal_rejected", own)
                case "cancelled":
                    yield _posting(row, settled_at, "processing", "partner", minor, "withdrawal_cancelled", own)
                case _:
                    assert_never(row.status)
        case TopupRow():
            yield _posting(row, row.applied_at, "partner", "topups", row.amount_minor, "topup", row.topup_id)
        case DepositRow():
            if row.received_at is not None:
                yield _posting(row, row.received_at, "outside", "partner", row.amount_minor, "deposit", row.deposit_id)
        case ClientPaymentRow():
            yield _posting(row, row.made_at, "partner", "spent", row.charged_minor, "client_payment", row.payment_id)
        case _:
            assert_never(row)


def _posting(row: Row, at: int, source: Pot, destination: Pot, minor: int, kind: Kind, reference: str) -> Posting:
    return Posting(at, source, destination, minor, row.currency, row.program_id, kind, reference)


def pots(posted: Iterable[Posting]) -> dict[Pot, int]:
    """What stands in each pot."""
    standing: dict[Pot, int] = {}
    for posting in posted:
        standing[posting.source] = standing.get(posting.source, 0) - posting.amount_minor
        standing[posting.destination] = standing.get(posting.destination, 0) + posting.amount_minor
    return standing


def sums(posted: Iterable[Posting]) -> Sums:
    """The fields of a balance that are pots."""
    standing = pots(posted)
    return Sums(
        accrued=-standing.get("program", 0),
        reversed=standing.get("returns", 0),
        processing=standing.get("processing", 0),
        paid=standing.get("bank", 0),
        topped_up=standing.get("topups", 0),
        deposits=-standing.get("outside", 0),
        spent=standing.get("spent", 0),
    )


def began_at(row: Row) -> int | None:
    """When a row first made something happen, or None when nothing did (still, or after all)."""
    match row:
        case AccrualRow():
            return None if row.undone else row.accrued_at
        case WithdrawalRow():
            return row.created_at
        case TopupRow():
            return row.applied_at
        case DepositRow():
            return row.received_at
        case ClientPaymentRow():
            return row.made_at
        case _:
            assert_never(row)


def net(row: AccrualRow, before: int | None = None) -> int:
    """What is left of an accrual after what was taken back before an instant (None: after all of it)."""
    if before is not None and row.accrued_at >= before:
        return 0
    taken = (back.amount_minor for back in row.reversals if before is None or back.returned_at < before)
    return row.amount_minor - sum(taken)


def is_pending(row: AccrualRow, at: int, before: int | None = None) -> bool:
    """Whether an accrual cannot be used at `at`: not available yet, or held by an open dispute.

    `before` looks back: a dispute counts when it began before, and is open when it ended at a later instant than `at`.
    Without it all that is known counts, so a dispute is open while its end is unknown.
    """
    return row.available_at > at or any(
        hold.held_until is None if before is None else _was_open(hold.held_from, hold.held_until, before)
        for hold in row.holds
    )


def _was_open(held_from: int, held_until: int | None, before: int) -> bool:
    return held_from < before and (held_until is None or held_until > before)


def balance(rows: Iterable[Row], at: int, before: int | None = None) -> dict[BookKey, Figures]:
    """Every book's figures, summed over all rows. `before`: events at that instant or later do not count yet."""
    posted: dict[BookKey, list[Posting]] = {}
    pending: dict[BookKey, int] = {}
    for row in rows:
        since, book = began_at(row), book_of(row)
        if since is None or (before is not None and since >= before):
            continue
        posted.setdefault(book, []).extend(p for p in postings(row) if before is None or p.at < before)
        if isinstance(row, AccrualRow) and is_pending(row, at, before):
            pending[book] = pending.get(book, 0) + net(row, before)
    return {book: Figures(sums(posted[book]), pending.get(book, 0)) for book in sorted(posted)}


def totals(person: Person, at: int) -> dict[BookKey, Figures] | None:
    """Every book's figures from its running totals; None when `at` lies before what they still tell apart."""
    if at < person.matured_until:
        return None
    return {
        (book.program_id, book.currency): Figures(
            book.sums, book.held_minor + sum(minor for free_at, minor in book.maturing.items() if free_at > at)
        )
        for book in person.books
    }


def rebooked(person: Person, changes: Iterable[tuple[Row | None, Row | None]], matured_until: int) -> Person:
    """The person with books moved by changed rows (before, after).

    `matured_until`: no later question is about an earlier instant. An instant before the person's own changes nothing.
    """
    floor = max(person.matured_until, matured_until)
    books = {(book.program_id, book.currency): book for book in person.books}
    if floor > person.matured_until:
        books = {key: _matured(book, floor) for key, book in books.items()}
    for before, after in changes:
        for sign, row in ((-1, before), (1, after)):
            if row is not None:
                key = book_of(row)
                books[key] = _moved(books.get(key, Book(*key)), row, sign, floor)
    kept = tuple(books[key] for key in sorted(books) if books[key].entries)
    return msgspec.structs.replace(person, books=kept, matured_until=floor)


def _matured(book: Book, floor: int) -> Book:
    if all(free_at > floor for free_at in book.maturing):
        return book
    maturing = {free_at: minor for free_at, minor in book.maturing.items() if free_at > floor}
    return msgspec.structs.replace(book, maturing=maturing)


def _moved(book: Book, row: Row, sign: int, floor: int) -> Book:
    held, maturing = book.held_minor, book.maturing
    if isinstance(row, AccrualRow):
        left = sign * net(row)
        if any(hold.held_until is None for hold in row.holds):
            held += left
        elif row.available_at > floor:
            maturing = _added(maturing, row.available_at, left)
    return Book(
        program_id=book.program_id,
        currency=book.currency,
        entries=book.entries + sign * (began_at(row) is not None),
        sums=_sum(book.sums, sums(postings(row)), sign),
        held_minor=held,
        maturing=maturing,
    )


def _added(maturing: Mapping[int, int], free_at: int, minor: int) -> dict[int, int]:
    added = {**maturing, free_at: maturing.get(free_at, 0) + minor}
    return {at: added[at] for at in sorted(added) if added[at]}


def _sum(one: Sums, other: Sums, sign: int) -> Sums:
    moved = add if sign > 0 else sub
    return Sums(*map(moved, msgspec.structs.astuple(one), msgspec.structs.astuple(other)))
