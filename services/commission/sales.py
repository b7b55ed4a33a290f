"""The fold of a customer's facts (stage `commission.sales`): what each payment is to the partner, said when it changes.

Shape: customers, payments, referrals, client payments → `sale.stated` for the partner's stage (all that the
customer's own facts decide), `commission.declined` where there is no partner, `activity.changed` when the earning spans
move.
A payment that the partner made for the customer is `integrator_paid` whatever else is known, so it waits for no signup;
only a binding that payouts has seen is waited for, to say it under the partner at once.
Errors: a conflicting repeat, or a refund in another currency than its payment, is a dead letter; the latter's id is
free for the right one.
Source: programs.md; contract.md, Order and Repeats.
"""

import hashlib
from collections.abc import Iterable

from msgspec.structs import replace

from schemas import events
from schemas.events import ActivityChanged, CommissionDeclined, Event, Hold, data_json, made, parse_event
from schemas.ids import derived_id
from schemas.internal import ClientPaid, SaleStated, TakenBack
from schemas.money import Money
from schemas.programs import Programs
from schemas.topics import CLIENT_PAYMENTS, CUSTOMERS, PAYMENTS, REFERRALS
from services.commission.state import (
    Account,
    Binding,
    Customer,
    Dispute,
    PaidByPartner,
    Parked,
    Payment,
    Refund,
    SubscriptionStep,
    commission_id,
)
from services.commission.terms import Frame, Seen, credits_of, earning_spans, frame, priced_by, reasons, unmoved
from services.runtime.repeats import Repeat, content, forgotten, identity, judge
from services.runtime.stage import Change, Context, DeadLetter, Emit, Record, Stage

Step = Change[Customer, Customer]


def step(context: Context[Customer], state: Customer, event: Event) -> Step:
    """Fold one event of a customer: learn the fact, then say what it changes."""
    if context.record.topic in (CUSTOMERS.name, PAYMENTS.name):
        repeat, seen = judge(state.seen, event)
        if repeat is Repeat.CONFLICT:
            repeat = _among_waiting(state, event)
        if repeat is Repeat.CONFLICT:
            return Change(dead_letters=(DeadLetter(context.record, "conflicting_repeat"),))
        if repeat is Repeat.SAME:
            return Change()
        learnt = _Learnt(replace(state, seen=seen))
    else:
        learnt = _Learnt(state)
    learnt.take(context.record, event)
    after, emits = _say(context, state, learnt.customer, learnt.touched, event)
    return Change(after, emits=emits, dead_letters=tuple(learnt.dead_letters), find=tuple(learnt.find))


def _among_waiting(state: Customer, event: Event) -> Repeat:
    """What a refund or dispute is to those that wait for their payment under its id, where it contradicts the first.

    One in another currency than they waits beside them: only the payment says which of them can count.
    """
    match event.data:
        case events.PaymentRefunded(payment_id=payment_id) | events.PaymentDisputed(payment_id=payment_id):
            waiting = [parse_event(parked.value) for parked in state.parked if parked.payment_id == payment_id]
        case _:
            return Repeat.CONFLICT
    same_id = [each for each in waiting if identity(each) == identity(event)]
    if any(content(each) == content(event) for each in same_id):
        return Repeat.SAME
    currencies = {each.data.amount.currency for each in same_id}  # type: ignore[attr-defined]
    return Repeat.NEW if currencies and event.data.amount.currency not in currencies else Repeat.CONFLICT


# --- learning: the facts, in any order ------------------------------------------------------------------------------


class _Learnt:
    """The customer with an event's facts added, and the payments that they touch."""

    def __init__(self, customer: Customer) -> None:
        self.customer = customer
        self.touched: list[str] = []
        self.dead_letters: list[DeadLetter] = []
        self.find: list[str] = []

    def take(self, record: Record, event: Event) -> None:
        customer, at = self.customer, event.time
        match event.data:
            case events.PaymentSucceeded() as data:  # first, since most events are
                self._paid(data, event)
            case events.CustomerSignedUp():
                self.customer = replace(customer, signed_up_at=at)
            case events.AccountCreated(account_id=account_id):
                self.customer = replace(customer, accounts=(*customer.accounts, Account(account_id, at)))
            case events.TrialStarted() as data:
                self._step(
                    SubscriptionStep(data.subscription_id, at, "trial", data.product_id, None, data.trial_ends_at)
                )
            case events.SubscriptionActivated() as data:
                self._step(SubscriptionStep(data.subscription_id, at, "activated", data.product_id, data.interval))
            case events.SubscriptionChanged() as data:
                self._step(SubscriptionStep(data.subscription_id, at, data.change, data.product_id))
            case events.SubscriptionCancelled() as data:
                self._step(SubscriptionStep(data.subscription_id, at, "cancelled"))
            case events.ReferralAttributed() as data:
                if customer.binding is None or not customer.binding.partner_id:
                    bound = Binding(
                        data.partner_id, data.program_id, data.program_version, data.attributed_at, event.id
                    )
                    self.customer = replace(customer, binding=bound)
            case events.ReferralDeclined():
                if customer.binding is None:
                    self.customer = replace(customer, binding=Binding("", "", 0, at, event.id))
            case ClientPaid() as data:
                self._paid_by_partner(data, event)
            case events.PaymentRefunded() | events.PaymentDisputed() | events.DisputeClosed() as data:
                self._after_payment(data, record, event)
            case events.ProgramPublished() as data:
                self.touched += _priced_since(customer, data)
            case _:
                pass  # pending and failed payments, closed accounts: nothing here depends on them

    def _step(self, taken: SubscriptionStep) -> None:
        self.customer = replace(self.customer, steps=(*self.customer.steps, taken))

    def _put(self, payment: Payment) -> None:
        self.customer = replace(self.customer, payments={**self.customer.payments, payment.payment_id: payment})
        self.touched.append(payment.payment_id)

    def _paid(self, data: events.PaymentSucceeded, event: Event) -> None:
        known = self.customer.payments.get(data.payment_id, _UNKNOWN)  # a partner's, or none
        self._put(
            Payment(
                data.payment_id,
                event.time,
                data.amount.minor,
                data.amount.currency,
                event.id,
                data.account_id,
                data.subscription_id,
                data.product_id,
                data.product_family,
                data.provider,
                None if data.quantity_gb is None else str(data.quantity_gb),
                data.interval,
                known.refunds,
                known.disputes,
                known.paid_by,
            )
        )
        self.find.append(f"payment:{data.payment_id}")
        self._unpark(data.payment_id)

    def _paid_by_partner(self, data: ClientPaid, event: Event) -> None:
        """What the platform said of the same payment holds; where it said nothing, the charge is the payment."""
        paid_by = PaidByPartner(
            data.partner_id,
            data.program_id,
            data.program_version,
            data.integration,
            data.charged.currency,
            data.list_price.minor,
            str(data.discount_rate),
            data.charged.minor,
            data.from_bonus.minor,
            data.bound,
        )
        known = self.customer.payments.get(data.payment_id)
        made = known or Payment(
            data.payment_id,
            event.time,
            data.charged.minor,
            data.charged.currency,
            event.id,
            data.account_id,
            interval=data.interval,
        )
        self._put(replace(made, caused_by=event.id, paid_by=paid_by))
        self.find.append(f"payment:{data.payment_id}")
        self._unpark(data.payment_id)

    def _unpark(self, payment_id: str) -> None:
        """Take in what waited for the payment, in the order in which it came."""
        waiting = [parked for parked in self.customer.parked if parked.payment_id == payment_id]
        if not waiting:
            return
        others = tuple(parked for parked in self.customer.parked if parked.payment_id != payment_id)
        self.customer = replace(self.customer, parked=others)
        for parked in waiting:
            record = Record(parked.topic, parked.partition, parked.offset, parked.key, parked.value, parked.appended_at)
            event = parse_event(parked.value)
            repeat, seen = judge(self.customer.seen, event)
            if repeat is Repeat.CONFLICT:  # it waited beside the one that counts
                self.dead_letters.append(DeadLetter(record, "conflicting_repeat"))
                continue
            self.customer = replace(self.customer, seen=seen)
            self.take(record, event)

    def _after_payment(
        self, data: events.PaymentRefunded | events.PaymentDisputed | events.DisputeClosed, record: Record, event: Event
    ) -> None:
        payment = self.customer.payments.get(data.payment_id)
        if payment is None:
            self._park(data.payment_id, record)
            return
        match data:
            case events.DisputeClosed():
                disputes = {dispute.dispute_id: dispute for dispute in payment.disputes}
                if data.dispute_id not in disputes:
                    self._park(data.payment_id, record)
                    return
                disputes[data.dispute_id] = replace(
                    disputes[data.dispute_id], closed_at=event.time, won=data.outcome == "won"
                )
                self._put(replace(payment, disputes=tuple(disputes.values()), caused_by=event.id))
            case _ if data.amount.currency != payment.currency:
                self.dead_letters.append(DeadLetter(record, "currency_mismatch", "data.amount.currency"))
                self.customer = replace(self.customer, seen=forgotten(self.customer.seen, event))
            case events.PaymentRefunded():
                refund = Refund(data.refund_id, event.time, data.amount.minor)
                self._put(replace(payment, refunds=(*payment.refunds, refund), caused_by=event.id))
            case events.PaymentDisputed():
                dispute = Dispute(data.dispute_id, event.time, data.amount.minor)
                self._put(replace(payment, disputes=(*payment.disputes, dispute), caused_by=event.id))
                self._unpark(data.payment_id)

    def _park(self, payment_id: str, record: Record) -> None:
        parked = Parked(
            payment_id,
            record.topic,
            record.partition,
            record.offset,
            record.key,
            record.value or b"",
            record.appended_at,
        )
        self.customer = replace(self.customer, parked=(*self.customer.parked, parked))


_UNKNOWN = Payment("", 0, 0, "", "")


def _priced_since(customer: Customer, published: events.ProgramPublished) -> list[str]:
    """The payments that a program version prices, as far as their dates and their customer's binding tell."""
    binding = customer.binding
    if binding is None or binding.program_id != published.program_id:
        return []
    return [payment.payment_id for payment in customer.payments.values() if payment.at >= published.effective_at]


def repriced(state: Customer, published: events.ProgramPublished) -> bool:
    """Whether a version that becomes known late can change what was said of a payment of this customer."""
    return bool(_priced_since(state, published))


def waiting(state: Customer) -> int:
    """Payments that wait for their signup's decision, refunds and disputes that wait for their payment."""
    if state.binding is not None and state.binding.partner_id:
        return len(state.parked)  # the signup's decision is all that any payment waits for
    return len(state.parked) + sum(not is_decided(state, payment) for payment in state.payments.values())


def is_decided(customer: Customer, payment: Payment) -> bool:
    """Whether there is an answer: the signup's is known, or the partner paid and no binding is on its way."""
    binding = customer.binding
    if payment.paid_by is None:
        return binding is not None
    return not payment.paid_by.bound or (binding is not None and binding.partner_id != "")


# --- saying: what the facts mean, where that differs from what was said before --------------------------------------


def _say(
    context: Context[Customer], before: Customer, after: Customer, touched: Iterable[str], event: Event
) -> tuple[Customer, tuple[Emit, ...]]:
    touched = dict.fromkeys(touched)
    seen = frame(context.programs, after)
    same_frame = unmoved(context.programs, seen, before, after, touched)
    emits: list[Emit] = []
    told: dict[str, bytes] = {}
    for payment_id in touched if same_frame else sorted(after.payments):
        payment = after.payments[payment_id]
        if not is_decided(after, payment):
            continue
        data = statement(context.programs, context.key, after, seen, payment, event.id)
        written = data_json(data)
        digest = _digest(_without_cause(written))
        if after.told.get(payment_id) != digest:
            told[payment_id] = digest
            emits.append(Emit(derived_id("sale", payment_id, event.id), payment.at, data, written=written))
    if told:
        after = replace(after, told={**after.told, **told})
    if seen and not same_frame:
        earning = earning_spans(seen, after)
        told_earning = _digest(repr(earning).encode())
        if told_earning != (after.told_earning or _digest(repr(((seen.binding.attributed_at, None),)).encode())):
            changed = ActivityChanged(
                partner_id=seen.binding.partner_id,
                program_id=seen.binding.program_id,
                customer_id=context.key,
                earning=earning,
            )
            emits.append(Emit(derived_id("activity", context.key, identity(event)), event.time, changed))
            after = replace(after, told_earning=told_earning)
    return after, tuple(emits)


def _without_cause(written: bytes) -> bytes:
    """A statement without its last field, which it names but does not say: the same for another cause is no news."""
    said, cause, _ = written.rpartition(b',"caused_by":')
    return said + b"}" if cause else written


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=8).digest()


def statement(
    programs: Programs, customer_id: str, customer: Customer, seen: Seen | None, payment: Payment, caused_by: str
) -> SaleStated | CommissionDeclined:
    """How a payment stands, as far as the customer's own facts decide it. It is decided (`is_decided`)."""
    binding = customer.binding
    why = reasons(programs, customer, seen, payment)
    if binding is None or "not_referred" in why:
        return CommissionDeclined(
            commission_id=commission_id(payment.payment_id),
            payment_id=payment.payment_id,
            customer_id=customer_id,
            account_id=payment.account_id,
            program_id=payment.paid_by.program_id if payment.paid_by else None,
            program_version=payment.paid_by.program_version if payment.paid_by else None,
            reason=why[0],
        )
    shared = seen if isinstance(seen, Frame) else None
    hold_until = shared.hold_until if shared and shared.hold_until is not None else payment.at
    earned = None if why else credits_of(programs, seen, payment)
    return made(
        SaleStated,
        payment_id=payment.payment_id,
        customer_id=customer_id,
        account_id=payment.account_id,
        partner_id=binding.partner_id,
        program_id=binding.program_id,
        program_version=priced_by(programs, binding, payment.at).version,
        paid_at=payment.at,
        base=Money(minor=payment.minor, currency=payment.currency),
        reasons=why,
        available_at=max(payment.at, hold_until),
        taken_back=taken_back(payment, earned),
        left_at=shared.left_at if shared and not why else None,
        holds=tuple(Hold(held_from=d.opened_at, held_until=d.closed_at) for d in payment.disputes),
        credits=earned,
        caused_by=caused_by,
    )


def taken_back(payment: Payment, earned: int | None = None) -> tuple[TakenBack, ...]:
    """Refunds and lost disputes in order of time; none is dated before the payment.

    `earned`: the payment's credits. After each refund credits × refunded so far ÷ paid are taken back together,
    rounded down; refunds and lost disputes count up to what was paid. Source: programs.md, proxy-credits.
    """
    if not payment.refunds and not payment.disputes:
        return ()
    parts = [
        TakenBack(id=r.refund_id, at=max(r.at, payment.at), minor=r.minor, reason="refund") for r in payment.refunds
    ]
    parts += [
        TakenBack(id=d.dispute_id, at=max(d.closed_at, payment.at), minor=d.minor, reason="dispute_lost")
        for d in payment.disputes
        if d.closed_at is not None and not d.won
    ]
    ordered = sorted(parts, key=lambda part: (part.at, part.id))
    if earned is None:
        return tuple(ordered)
    refunded = total = 0
    counted: list[TakenBack] = []
    for part in ordered:
        refunded = min(payment.minor, refunded + part.minor)
        so_far = earned * refunded // payment.minor if payment.minor else 0
        counted.append(part.model_copy(update={"credits": so_far - total}))
        total = so_far
    return tuple(counted)


SALES: Stage[Customer, Customer] = Stage(
    name="commission.sales",
    reads=(CUSTOMERS, PAYMENTS, REFERRALS, CLIENT_PAYMENTS),
    empty=Customer(),
    step=step,
    waiting=waiting,
    repriced=repriced,
)
