"""Credits of purchases in a partner's wallet: granted, taken back, corrected. Pure.

How many credits a purchase earns, and what each refund takes back of them, its customer's facts say (`sale.stated`);
here that becomes a balance, and the difference to what was said before becomes events. A statement is the whole of it,
so the order of statements makes no difference to what stands in the end.
Source: programs.md, proxy-credits; contract.md, `credit.*` and Order.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from schemas.events import CreditGranted, CreditReversed, Payload
from schemas.ids import derived_id
from schemas.internal import SaleStated
from services.rewards.state import Purchase, Purse, Row, Taken, Told, Wallet, purchase_row
from services.runtime.stage import Change, Context, Emit


def concerns(stated: SaleStated) -> bool:
    """Whether a statement can be one of credits: given now, or declined and perhaps given before."""
    return stated.credits is not None or bool(stated.reasons)


def stand(context: Context[Row], wallet: Wallet, stated: SaleStated) -> Change[Wallet, Row]:
    """Take in how a purchase stands.

    Shape: one sale.stated → credit.granted, credit.reversed, as far as they say something new.
    Per payment granted − reversed is what is left. The balance may go below zero: claims wait until it is enough again.
    """
    row_id = purchase_row(stated.payment_id)
    before = context.rows.get(row_id)
    assert before is None or isinstance(before, Purchase)
    if before is None and stated.credits is None:
        return Change()  # a decline: commission says so
    now = Purchase(
        stated.payment_id,
        stated.customer_id,
        stated.program_id,
        stated.paid_at,
        stated.credits,
        tuple(Taken(back.id, back.at, back.credits or 0, back.reason) for back in stated.taken_back),
        before.told if before else Told(),
    )
    teller = _Teller(now, stated)
    teller.tell()
    entries = int(now.credits is not None) - int(before is not None and before.credits is not None)
    wallet = moved(wallet, now.program_id, now.left - (before.left if before else 0), entries)
    return Change(wallet, rows={row_id: replace(now, told=teller.told)}, emits=tuple(teller.emits))


def moved(wallet: Wallet, program_id: str, credits_more: int, entries_more: int) -> Wallet:
    """The wallet with a program's balance moved; without a purse where nothing is left to make one up."""
    old = wallet.purses.get(program_id, Purse())
    purse = Purse(old.balance + credits_more, old.entries + entries_more)
    purses = {**wallet.purses, program_id: purse}
    if not purse.entries:
        del purses[program_id]
    return replace(wallet, purses=purses)


class _Teller:
    """One purchase's next words."""

    def __init__(self, purchase: Purchase, stated: SaleStated) -> None:
        self.purchase, self.told = purchase, purchase.told
        self.emits: list[Emit] = []
        self._declined = stated.reasons
        self._ids = {
            "partner_id": stated.partner_id,
            "program_id": purchase.program_id,
            "customer_id": purchase.customer_id,
            "payment_id": purchase.payment_id,
        }

    def tell(self) -> None:
        purchase, before = self.purchase, self.told
        if purchase.credits is None:
            if before.granted and before.left > 0:
                self._take(before.left, self._declined[0], purchase.paid_at)
            self.told = Told(self.told.turn)
            return
        if not before.granted:
            self._grant(purchase.credits)
            known: Mapping[str, int] = {}
        else:
            known = self._correct(purchase.credits)
        owed = self.told.left - purchase.left
        new = [part for part in purchase.taken if part.cause not in known]
        for number, part in enumerate(new, 1):
            # A late refund can move a credit between those said: the last new one carries it.
            share = owed if number == len(new) else min(owed, part.credits)
            if share > 0:
                self._take(share, part.reason, part.at, part.id)
                owed -= share
        taken = {part.cause: part.credits for part in purchase.taken}
        self.told = Told(self.told.turn, True, purchase.credits, taken, purchase.left)

    def _correct(self, credits_now: int) -> Mapping[str, int]:
        """Say what a rate that became known late changes; answers the refunds that count as said then."""
        before = self.told
        if credits_now == before.credits:
            return before.taken
        still = {part.cause: part.credits for part in self.purchase.taken if part.cause in before.taken}
        difference = credits_now - sum(still.values()) - before.left
        if difference > 0:
            self._grant(difference)
        elif difference < 0:
            self._take(-difference, "rate_corrected", self.purchase.paid_at)
        return still

    def _grant(self, more: int) -> None:
        granted = CreditGranted(**self._ids, credits=more)
        self._say(self.purchase.paid_at, granted, more)

    def _take(self, less: int, reason: str, at: int, cause: str | None = None) -> None:
        taken = CreditReversed.model_validate({**self._ids, "credits": less, "reason": reason, "cause": cause})
        self._say(at, taken, -less)

    def _say(self, at: int, data: Payload, more: int) -> None:
        turn = self.told.turn
        self.emits.append(Emit(derived_id("evt", data.type, self.purchase.payment_id, turn), at, data))
        self.told = replace(self.told, turn=turn + 1, left=self.told.left + more)
