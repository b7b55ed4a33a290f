"""What is said of one payment's commission: the difference between how it stands and what was said before.

Whatever happened in between, per payment accrued + adjusted − reversed is what is left, and each event carries the
whole standing. Source: contract.md, `commission.*` and Order; programs.md, refunds and disputes.
"""

from collections import Counter
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from schemas.events import (
    CommissionAccrued,
    CommissionAdjusted,
    CommissionDeclined,
    CommissionHeld,
    CommissionReversed,
    Hold,
    Payload,
    Reversal,
    ReversalReason,
    Standing,
    made,
)
from schemas.ids import derived_id
from schemas.money import Money, decimal_text, part, share
from services.commission.state import Said, Sale, commission_id
from services.runtime.stage import Emit


class TakenBackAmount(Struct, frozen=True):
    """A part of an accrual that was taken back: minor units, above 0. `refunded`: of the base, up to and with it."""

    cause: str
    at: int
    minor: int
    reason: ReversalReason
    refunded: int


def reversals(sale: Sale, amount: int) -> tuple[tuple[TakenBackAmount, ...], int]:
    """What is taken back of an accrual of `amount`, in order of time, and how much of the base was refunded.

    After each refund the total is accrual × refunded so far ÷ paid, rounded half-even, and the reversal is the
    difference; refunds and lost disputes count up to what was paid. Leaving before the hold's end takes the rest.
    """
    taken: list[TakenBackAmount] = []
    refunded = total = 0
    for back in sale.taken_back:
        if sale.left_at is not None and back.at > sale.left_at:
            break
        refunded = min(sale.minor, refunded + back.minor)
        target = part(amount, refunded, sale.minor) if sale.minor else 0
        if target > total:
            taken.append(TakenBackAmount(back.cause, back.at, target - total, back.reason, refunded))
        total = target
    if sale.left_at is not None and amount > total:
        left_at = max(sale.left_at, sale.paid_at)
        taken.append(TakenBackAmount("left", left_at, amount - total, "left_before_hold", refunded))
    return tuple(taken), refunded


def say(sale: Sale, partner_id: str, rate: Decimal, caused_by: str) -> tuple[Said, tuple[Emit, ...]]:
    """What there is to say of a sale, and what will have been said then. Nothing new: no event."""
    teller = _Teller(sale, partner_id, caused_by)
    if sale.reasons:
        teller.decline()
    elif sale.credits is not None:
        teller.credit()
    else:
        teller.stand(rate)
    return teller.said, tuple(teller.emits)


class _Teller:
    """One payment's next words."""

    def __init__(self, sale: Sale, partner_id: str, caused_by: str) -> None:
        self.sale, self.said = sale, sale.said
        self._turn, self._accruals = sale.said.turn, sale.said.accruals
        self.emits: list[Emit] = []
        self._caused_by = caused_by
        self._commission_id = commission_id(sale.payment_id)
        self._ids = {
            "commission_id": self._commission_id,
            "payment_id": sale.payment_id,
            "customer_id": sale.customer_id,
            "account_id": sale.account_id,
            "partner_id": partner_id,
            "program_id": sale.program_id,
            "program_version": sale.program_version,
        }

    def _money(self, minor: int) -> Money:
        return Money(minor=minor, currency=self.sale.currency)

    def _id(self, prefix: str, *cause: object) -> str:
        return derived_id(prefix, self._commission_id, self._turn, *cause)

    def _tell(self, at: int, data: Payload) -> None:
        self.emits.append(Emit(self._id("evt", data.type), at, data))
        self._turn += 1

    # --- the payment earns nothing ---

    def decline(self) -> None:
        reason, left = self.sale.reasons[0], self.said.left
        if not self.said.accrued and self.said.reason == reason:
            return
        if self.said.accrued and left > 0:
            nothing = Standing(
                accrued_at=self.sale.paid_at,
                base=self._money(self.sale.minor),
                amount=self._money(0),
                available_at=self.sale.paid_at,
            )
            reversal_id = self._id("rev", reason)
            self._tell(
                self.sale.paid_at,
                CommissionReversed(
                    **self._ids, reversal_id=reversal_id, amount=self._money(left), reason=reason, standing=nothing
                ),
            )
        else:
            self._tell(self.sale.paid_at, CommissionDeclined(**self._ids, reason=reason))
        self.said = Said(turn=self._turn, reason=reason, accruals=self.said.accruals)

    # --- the payment earns credits: rewards says so, here an earlier decline is no longer the last word ---

    def credit(self) -> None:
        self.said = Said(turn=self._turn, accruals=self.said.accruals)

    # --- the payment earns ---

    def stand(self, rate: Decimal) -> None:
        sale, before = self.sale, self.said
        amount = share(sale.minor, rate)
        taken, refunded = reversals(sale, amount)
        self._accruals = before.accruals + (not before.accrued)
        standing = made(
            Standing,
            accrued_at=sale.paid_at,
            base=self._money(sale.minor),
            amount=self._money(amount),
            available_at=sale.available_at,
            refunded_minor=refunded,
            reversals=tuple(
                Reversal(
                    reversal_id=self._reversal_id(back),
                    reversed_at=back.at,
                    amount=self._money(back.minor),
                    reason=back.reason,
                )
                for back in taken
            ),
            holds=tuple(Hold(held_from=since, held_until=until) for since, until in sale.holds),
        )
        if not before.accrued:
            self._accrue(rate, standing)
            known: dict[str, int] = {}
        else:
            known = self._adjust(rate, amount, taken, standing)
        told = _to_tell(taken, known)
        for back in told:
            self._tell(
                back.at,
                CommissionReversed(
                    **self._ids,
                    reversal_id=self._reversal_id(back),
                    amount=self._money(back.minor),
                    reason=back.reason,
                    standing=standing,
                ),
            )
        reversed_by = {back.cause: (back.at, back.minor) for back in taken}
        # Where a late refund moves a cent between those said, what is new cannot always carry it.
        moved = sum(known.values()) + sum(back.minor for back in told) - sum(back.minor for back in taken)
        if moved or (not self.emits and (reversed_by, refunded) != (before.reversals, before.refunded)):
            self._tell_adjusted(rate, moved, standing)  # 0: taken back at other times, or of another base
        if not self.emits and before.holds != sale.holds:
            self._hold(before, standing)
        self.said = Said(
            self._turn,
            True,
            None,
            decimal_text(rate),
            amount,
            sale.available_at,
            reversed_by,
            refunded,
            sale.holds,
            self._accruals,
        )

    def _reversal_id(self, back: TakenBackAmount) -> str:
        """What was taken back of an accrual that a decline undid is taken back of the next one as something new."""
        return derived_id("rev", self._commission_id, self._accruals, back.cause)

    def _accrue(self, rate: Decimal, standing: Standing) -> None:
        self._tell(
            self.sale.paid_at,
            made(
                CommissionAccrued,
                **self._ids,
                base=standing.base,
                rate=rate,
                amount=standing.amount,
                available_at=standing.available_at,
                standing=standing,
            ),
        )

    def _adjust(
        self, rate: Decimal, amount: int, taken: tuple[TakenBackAmount, ...], standing: Standing
    ) -> dict[str, int]:
        """Say a correction of what was said, if there is one; answers the reversals that count as said then."""
        before = self.said
        still = {back.cause: back.minor for back in taken if back.cause in before.reversals}
        unchanged = amount == before.amount and decimal_text(rate) == before.rate
        undone = before.reversals.keys() - still.keys()
        if unchanged and self.sale.available_at == before.available_at and not undone:
            return {cause: minor for cause, (_, minor) in before.reversals.items()}
        self._tell_adjusted(rate, (amount - sum(still.values())) - before.left, standing)
        return still

    def _tell_adjusted(self, rate: Decimal, difference: int, standing: Standing) -> None:
        adjustment_id = self._id("adj", self._caused_by)
        self._tell(
            self.sale.paid_at,
            CommissionAdjusted(
                **self._ids,
                adjustment_id=adjustment_id,
                rate=rate,
                amount=self._money(difference),
                available_at=standing.available_at,
                caused_by=self._caused_by,
                standing=standing,
            ),
        )

    def _hold(self, before: Said, standing: Standing) -> None:
        # Counted, since two disputes may begin at one instant and end at one.
        changed = Counter(self.sale.holds) - Counter(before.holds)
        for since, until in [*changed][-1:]:
            self._tell(
                until if until is not None else since,
                CommissionHeld(**self._ids, held=until is None, standing=standing),
            )


def _to_tell(taken: tuple[TakenBackAmount, ...], known: dict[str, int]) -> tuple[TakenBackAmount, ...]:
    """The reversals not said yet. A late refund can move a cent between those said: the new one carries it."""
    new = [back for back in taken if back.cause not in known]
    if not new:
        return ()
    owed = sum(back.minor for back in taken) - sum(known.values())
    last = replace(new[-1], minor=owed - sum(back.minor for back in new[:-1]))
    return tuple(back for back in (*new[:-1], last) if back.minor > 0)
