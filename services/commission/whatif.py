"""What partners would have earned, had another document of a program been in force. Pure.

Everything is decided anew from the facts that customers' states hold, once by the versions that were in force and once
by the supposed one, so what differs can only come of the document. Who brought whom is decided once and stays, and so
does what was asked for (withdrawals, top-ups, claims, client payments). Source: contract.md, `whatif`.
"""

from collections import Counter, defaultdict

from msgspec.structs import replace

from schemas.internal import SaleStated
from schemas.money import share
from schemas.programs import Programs
from schemas.programs.terms import Program
from services.commission.partners import rates, sale_of
from services.commission.sales import is_decided, statement
from services.commission.saying import reversals
from services.commission.state import Customer, Said, Sale
from services.commission.terms import frame

CREDITS = "credits"
"""What is earned that is no currency."""

Earned = Counter[tuple[str, str]]
"""What is left to partners after refunds, by partner and currency (or `CREDITS`): minor units, whole credits."""


class Supposed(Programs):
    """The published versions, but that in a span of time `[since, until)` a document was in force instead of its
    program's own; None: from the beginning, to the end.

    The document prices what a version in force then would have priced: referrals made in the span or, where the program
    is priced at the event, payments made in it. Errors: Unpublished for a program that has no version.
    """

    def __init__(
        self, published: Programs, document: Program, since: int | None = None, until: int | None = None
    ) -> None:
        own = published.versions(document.program_id)
        if not own:
            raise Unpublished(document.program_id)
        self._published, self._since, self._until = published, since, until
        self.document = document.model_copy(update={"version": own[-1][1].version + 1})
        versions = {program_id: published.versions(program_id) for program_id in published}
        super().__init__(versions | {document.program_id: (*own, (0, self.document))})

    def at(self, program_id: str, instant: int) -> Program | None:
        if program_id == self.document.program_id and self._covers(instant):
            return self.document
        return self._published.at(program_id, instant)

    def bound(self, customer: Customer) -> Customer:
        """The customer as its referral would have been priced."""
        binding = customer.binding
        if binding is None or binding.program_id != self.document.program_id or not self._covers(binding.attributed_at):
            return customer
        return replace(customer, binding=replace(binding, program_version=self.document.version))

    def _covers(self, instant: int) -> bool:
        return (self._since is None or self._since <= instant) and (self._until is None or instant < self._until)


class Unpublished(LookupError):
    """Nobody can have been bound under the program: it has no version."""


class WhatIf:
    """The sales of one program's referrals, as they stand and as they would have."""

    def __init__(self, published: Programs, supposed: Supposed) -> None:
        self._published, self._supposed = published, supposed
        self._sales: tuple[_Sales, _Sales] = defaultdict(dict), defaultdict(dict)

    def take(self, customer_id: str, customer: Customer) -> None:
        """Decide a customer's payments both ways. Once more: the latest counts."""
        if customer.binding is None or customer.binding.program_id != self._supposed.document.program_id:
            return
        _decide(self._published, customer_id, customer, self._sales[0])
        _decide(self._supposed, customer_id, self._supposed.bound(customer), self._sales[1])

    @property
    def payments(self) -> int:
        """How many payments were decided."""
        return sum(map(len, self._sales[0].values()))

    def earned(self) -> tuple[Earned, Earned]:
        """What all partners have, and what they would have."""
        return _earned(self._published, self._sales[0]), _earned(self._supposed, self._sales[1])


_Sales = defaultdict[str, dict[str, Sale]]
"""By partner and payment."""


def _decide(programs: Programs, customer_id: str, customer: Customer, sales: _Sales) -> None:
    seen = frame(programs, customer)
    for payment in customer.payments.values():
        if is_decided(customer, payment):
            stated = statement(programs, customer_id, customer, seen, payment, "")
            if isinstance(stated, SaleStated):
                sales[stated.partner_id][stated.payment_id] = sale_of(stated, Said())


def _earned(programs: Programs, sales: _Sales) -> Earned:
    earned = Earned()
    for partner_id, own in sales.items():
        for sale, rate in rates(programs, own.values()):
            if sale.credits is not None:
                earned[partner_id, CREDITS] += sale.credits - sum(part.credits or 0 for part in sale.taken_back)
            elif sale.accrues:
                amount = share(sale.minor, rate)
                taken, _ = reversals(sale, amount)
                earned[partner_id, sale.currency] += amount - sum(part.minor for part in taken)
    return earned
