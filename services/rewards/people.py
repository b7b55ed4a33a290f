"""The stage `rewards.people`: everything about one id that monthly discounts depend on.

As a customer: facts, in any order, from which follows when the referral is active; it is told to the partner's key
whenever it changes. As a partner: own accounts and payments, orders, referrals; and each month's verification, decided
once, when it is due.
Errors: a conflicting repeat counts as little as a repeat; its dead letter is its topic's first reader's to write.
Source: programs.md, active-referrals; contract.md, Order and Repeats.
"""

from msgspec.structs import replace

from schemas import commands, events, internal
from schemas.events import DiscountAssigned, DiscountLapsed, DiscountUsed, DiscountWithheld, Event
from schemas.ids import derived_id
from schemas.money import Money
from schemas.programs.terms import MonthlyDiscount
from schemas.topics import ACTIVES, COMMANDS_REWARDS, CUSTOMERS, PARTNERS, PAYMENTS, REFERRALS
from services.rewards.activity import active_spans
from services.rewards.discounts import held_for, off, outcome
from services.rewards.facts import (
    Account,
    Binding,
    Discount,
    Invoice,
    Order,
    Paying,
    Person,
    PersonRow,
    Referral,
    SubscriptionStep,
    Verification,
    account_name,
    invoice_row_id,
    referral_row_id,
)
from services.runtime.repeats import Repeat, identity, judge
from services.runtime.stage import Answer, Change, Context, Emit, Stage, refused

_Change = Change[Person, PersonRow]
_Context = Context[PersonRow]

FACTS = (
    events.AccountCreated,
    events.AccountClosed,
    events.TrialStarted,
    events.SubscriptionActivated,
    events.SubscriptionCancelled,
    events.PaymentPending,
    events.PaymentSucceeded,
    events.PaymentFailed,
)
"""What of the platform's events matters here."""


def row_ids(event: Event) -> tuple[str, ...]:
    """The rows that an event reads in the common case."""
    match event.data:
        case commands.UseDiscount(invoice_id=invoice_id):
            return (invoice_row_id(invoice_id),)
        case _:
            return ()


def step(context: _Context, person: Person, event: Event) -> _Change:
    """Fold one event of one id. Errors: Missing; NotYetPublished. Refusals are answers."""
    match event.data:
        case data if isinstance(data, FACTS):
            return _fact(context, person, event)
        case events.ReferralAttributed() as data:
            if person.binding is not None:
                return Change()
            bound = Binding(data.partner_id, data.program_id, data.program_version, data.attributed_at)
            return _told(context, replace(person, binding=bound), event)
        case events.PartnerActivated(program_id=program_id, activated_at=activated_at):
            return Change(replace(person, activations={program_id: activated_at, **person.activations}))
        case events.AccountsOrdered(program_id=program_id) as data:
            order = Order(data.effective_at, data.account_ids)
            orders = {**person.orders, program_id: (*person.orders.get(program_id, ()), order)}
            return Change(replace(person, orders=orders))
        case internal.ReferralActivity() as data:
            row = Referral(data.customer_id, data.program_id, data.active)
            return Change(rows={referral_row_id(data.customer_id): row})
        case internal.VerificationDue() as due:
            return _verify(context, person, due)
        case commands.UseDiscount() as asked:
            return _use(context, person, asked, event.time)
        case _:  # the topics hold more than discounts are about
            return Change()


# --- as a customer --------------------------------------------------------------------------------------------------


def _fact(context: _Context, person: Person, event: Event) -> _Change:
    repeat, seen = judge(person.seen, event)
    if repeat is not Repeat.NEW:
        return Change()
    person, at = replace(person, seen=seen), event.time
    match event.data:
        case events.AccountCreated(account_id=account_id):
            account = replace(person.accounts.get(account_id, Account()), created_at=at)
            after = replace(person, accounts={**person.accounts, account_id: account})
            return Change(after, find=(account_name(account_id),))
        case events.AccountClosed(account_id=account_id):
            account = replace(person.accounts.get(account_id, Account()), closed_at=at)
            return Change(replace(person, accounts={**person.accounts, account_id: account}))
        case events.PaymentPending(payment_id=payment_id):
            return Change(_paying(person, payment_id, replace(_payment(person, payment_id), pending_at=at)))
        case events.PaymentFailed(payment_id=payment_id):
            before = _payment(person, payment_id)
            first = at if before.failed_at is None else min(at, before.failed_at)
            return Change(_paying(person, payment_id, replace(before, failed_at=first)))
        case events.PaymentSucceeded(payment_id=payment_id) as data:
            paid = replace(
                _payment(person, payment_id), succeeded_at=at, subscription_id=data.subscription_id, trial=data.trial
            )
            return _told(context, _paying(person, payment_id, paid), event)
        case events.TrialStarted(subscription_id=subscription_id, trial_ends_at=trial_ends_at):
            taken = SubscriptionStep(subscription_id, at, "trial", trial_ends_at)
        case events.SubscriptionActivated(subscription_id=subscription_id):
            taken = SubscriptionStep(subscription_id, at, "activated")
        case events.SubscriptionCancelled(subscription_id=subscription_id):
            taken = SubscriptionStep(subscription_id, at, "cancelled")
        case _:
            return Change()
    return _told(context, replace(person, steps=(*person.steps, taken)), event)


def _payment(person: Person, payment_id: str) -> Paying:
    return person.payments.get(payment_id, Paying())


def _paying(person: Person, payment_id: str, payment: Paying) -> Person:
    return replace(person, payments={**person.payments, payment_id: payment})


def _told(context: _Context, person: Person, event: Event) -> _Change:
    """Say when the referral is active, where that differs from what was said before."""
    binding = person.binding
    if binding is None:
        return Change(person)
    if context.programs.version(binding.program_id, binding.program_version).term(MonthlyDiscount) is None:
        return Change(person)
    spans = active_spans(binding, person.steps, person.payments.values())
    if spans == person.told:
        return Change(person)
    said = internal.ReferralActivity(
        partner_id=binding.partner_id, program_id=binding.program_id, customer_id=context.key, active=spans
    )
    emit = Emit(derived_id("active", context.key, identity(event)), event.time, said)
    return Change(replace(person, told=spans), emits=(emit,))


# --- as a partner: a month's verification ---------------------------------------------------------------------------


def _verify(context: _Context, person: Person, due: internal.VerificationDue) -> _Change:
    """Decide a month for the partner, once.

    Shape: one verification.due → discount.assigned for each company above 0 %, or discount.withheld; discount.lapsed
    for what earlier verifications gave and nobody used; all dated at the verification. verification.done says it whole.
    A month that is verified after a later one gives what lapsed at that later one already.
    """
    if any(each.program_id == due.program_id and each.month == due.month for each in person.verifications):
        return Change()
    program = context.programs.in_force(due.program_id, due.as_of)
    referrals = (row for row in context.rows.all().values() if isinstance(row, Referral))
    found = outcome(person, referrals, program, due.as_of)
    given = tuple(Discount(each.account_id, each.percent, each.referrals_counted) for each in found.shares)
    own = Verification(due.program_id, due.month, due.as_of, found.active_referrals, found.withheld, given)
    verifications, lapsed = _lapsed(person, own)
    later = [each.as_of for each in verifications if each.program_id == due.program_id and each.as_of > due.as_of]
    if later:
        own, at_once = _lapsing(person, own, min(later))
        lapsed += [(own, discount) for discount in at_once]
    emits = [_assigned(context.key, own, discount) for discount in own.discounts]
    emits += [_lapse(context.key, of, discount) for of, discount in lapsed]
    if own.withheld:
        withheld = DiscountWithheld(
            partner_id=context.key, program_id=own.program_id, month=own.month, reason="pending_payment"
        )
        emits.append(Emit(derived_id("withheld", context.key, own.program_id, own.month), own.as_of, withheld))
    done = internal.VerificationDone(
        partner_id=context.key,
        program_id=own.program_id,
        month=own.month,
        as_of=own.as_of,
        active_referrals=own.active_referrals,
        assigned=tuple(_verified(own, discount) for discount in own.discounts),
        lapsed=tuple(_verified(of, discount) for of, discount in lapsed),
        withheld=own.withheld,
    )
    emits.append(Emit(derived_id("verified", context.key, own.program_id, own.month), own.as_of, done))
    return Change(replace(person, verifications=(*verifications, own)), emits=tuple(emits))


def _lapsed(person: Person, own: Verification) -> tuple[tuple[Verification, ...], list[tuple[Verification, Discount]]]:
    """The verifications with what lapses at `own`, and each discount that does: given earlier, and not used or lost."""
    after: list[Verification] = []
    lapsed: list[tuple[Verification, Discount]] = []
    for verification in person.verifications:
        if verification.program_id == own.program_id and verification.as_of < own.as_of:
            verification, ended = _lapsing(person, verification, own.as_of)
            lapsed += [(verification, discount) for discount in ended]
        after.append(verification)
    return tuple(after), lapsed


def _lapsing(person: Person, of: Verification, at: int) -> tuple[Verification, list[Discount]]:
    """A verification after what it gave has lapsed at an instant, and what does so then."""
    discounts = tuple(
        replace(each, lapsed_at=at) if each.lapsed_at is None and _is_open(person, each, at) else each
        for each in of.discounts
    )
    ended = [now for now, before in zip(discounts, of.discounts, strict=True) if now is not before]
    return replace(of, discounts=discounts), ended


def _is_open(person: Person, discount: Discount, as_of: int) -> bool:
    """Whether a discount is neither used nor lost by what happened before an instant: only then it lapses."""
    closed_at = person.accounts[discount.account_id].closed_at
    return discount.invoice_id is None and (closed_at is None or closed_at >= as_of)


def _assigned(partner_id: str, of: Verification, discount: Discount) -> Emit:
    data = DiscountAssigned(
        partner_id=partner_id,
        account_id=discount.account_id,
        program_id=of.program_id,
        month=of.month,
        percent=discount.percent,
        referrals_counted=discount.referrals_counted,
        assigned_at=of.as_of,
    )
    return Emit(derived_id("assigned", partner_id, of.program_id, of.month, discount.account_id), of.as_of, data)


def _lapse(partner_id: str, of: Verification, discount: Discount) -> Emit:
    data = DiscountLapsed(
        partner_id=partner_id,
        account_id=discount.account_id,
        program_id=of.program_id,
        month=of.month,
        percent=discount.percent,
    )
    emit_id = derived_id("lapsed", partner_id, of.program_id, of.month, discount.account_id)
    assert discount.lapsed_at is not None
    return Emit(emit_id, discount.lapsed_at, data)


def _verified(of: Verification, discount: Discount) -> internal.VerifiedDiscount:
    return internal.VerifiedDiscount(
        account_id=discount.account_id,
        month=of.month,
        percent=discount.percent,
        referrals_counted=discount.referrals_counted,
    )


# --- as a partner: an invoice takes a discount ----------------------------------------------------------------------


def _use(context: _Context, person: Person, asked: commands.UseDiscount, at: int) -> _Change:
    """Answer an invoice with the discount that it takes; the same invoice again with the same answer.

    Shape: one UseDiscount → discount.used where a discount holds at the issue; nothing where none does.
    Errors: 404 for an account that is not the person's.
    """
    known = context.rows.get(invoice_row_id(asked.invoice_id))
    if isinstance(known, Invoice):
        return Change(answers=(_invoiced(asked, known),))
    if asked.account_id not in person.accounts:
        return Change(answers=(refused(asked, "not_found", "There is no such thing here.", status=404),))
    held = held_for(person, asked.account_id, asked.issued_at)
    minor, currency = asked.amount.minor, asked.amount.currency
    if held is None:
        row = Invoice(asked.invoice_id, asked.account_id, asked.issued_at, 0, 0, minor, currency)
        return Change(rows={invoice_row_id(row.invoice_id): row}, answers=(_invoiced(asked, row),))
    percent, of = held.discount.percent, held.verification
    row = Invoice(
        asked.invoice_id,
        asked.account_id,
        asked.issued_at,
        percent,
        off(minor, percent),
        minor,
        currency,
        of.program_id,
        of.month,
    )
    used = replace(held.discount, invoice_id=row.invoice_id, used_at=at, off_minor=row.off_minor, currency=row.currency)
    after = replace(of, discounts=tuple(used if each == held.discount else each for each in of.discounts))
    data = DiscountUsed(
        partner_id=context.key,
        account_id=row.account_id,
        program_id=of.program_id,
        month=of.month,
        percent=percent,
        invoice_id=row.invoice_id,
        discount=Money(minor=row.off_minor, currency=currency),
        amount=Money(minor=minor - row.off_minor, currency=currency),
    )
    emit = Emit(derived_id("used", context.key, of.program_id, of.month, row.account_id), at, data)
    return Change(
        replace(person, verifications=tuple(after if each == of else each for each in person.verifications)),
        rows={invoice_row_id(row.invoice_id): row},
        emits=(emit,),
        answers=(_invoiced(asked, row),),
    )


def _invoiced(asked: commands.UseDiscount, row: Invoice) -> Answer:
    body = {
        "invoice_id": row.invoice_id,
        "account_id": row.account_id,
        "program_id": row.program_id or None,
        "month": row.month or None,
        "percent": row.percent,
        "discount": {"minor": row.off_minor, "currency": row.currency},
        "amount": {"minor": row.minor - row.off_minor, "currency": row.currency},
    }
    return Answer(asked, 200, body)


PEOPLE: Stage[Person, PersonRow] = Stage(
    name="rewards.people",
    reads=(CUSTOMERS, PAYMENTS, REFERRALS, PARTNERS, ACTIVES, COMMANDS_REWARDS),
    empty=Person(),
    step=step,
    row=PersonRow,
    row_ids=row_ids,
)
