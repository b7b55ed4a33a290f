"""The stage `attribution.people`: everything about one id, as a customer, as a partner and as a program."""

import msgspec

from schemas import commands, events, internal
from schemas.events import Event
from schemas.moments import moment
from services.attribution import partnership, publishing, retention, signups
from services.attribution.state import (
    Account,
    ClickDay,
    Link,
    Person,
    PersonRow,
    PromoCode,
    Referral,
    click_row_id,
    referral_row_id,
)
from services.runtime import repeats
from services.runtime.repeats import Repeat
from services.runtime.stage import Change, Context, DeadLetter

PersonChange = Change[Person, PersonRow]

OF_CUSTOMERS = (
    events.CustomerSignedUp,
    events.AccountCreated,
    events.AccountClosed,
    events.TrialStarted,
    events.SubscriptionActivated,
    events.SubscriptionChanged,
    events.SubscriptionCancelled,
)
"""What this stage reads first of all: the same event again changes nothing, and a conflict is a dead letter."""


def utc_date(instant: int) -> str:
    """The UTC day of an instant, like 2026-02-28."""
    return moment(instant).date().isoformat()


def row_ids(event: Event) -> tuple[str, ...]:
    """The rows that `step` reads for an event."""
    match event.data:
        case (
            internal.ReferralListed(customer_id=customer_id)
            | internal.ReferralActivity(customer_id=customer_id)
            | events.ActivityChanged(customer_id=customer_id)
        ):
            return (referral_row_id(customer_id),)
        case internal.ClickCounted(program_id=program_id, clicked_at=clicked_at):
            return (click_row_id(program_id, utc_date(clicked_at)),)
        case _:
            return ()


def step(context: Context[PersonRow], state: Person, event: Event) -> PersonChange:
    """The stage's step. Errors: Missing; NotYetPublished."""
    match event.data:
        case data if isinstance(data, OF_CUSTOMERS):
            return _of_customer(context, state, event)
        case internal.PersonForgotten():
            return Change(state=_forgotten(state))
        case commands.ActivatePartner() as asked:
            return partnership.activate(context, state, asked, event.time)
        case commands.CreateLink() as asked:
            return partnership.create_link(context, state, asked, event.time)
        case commands.CreatePromoCode() as asked:
            return partnership.create_promo_code(context, state, asked, event.time)
        case commands.OrderAccounts() as asked:
            return partnership.order_accounts(context, state, asked, event.time)
        case commands.RequestRetention() as asked:
            return retention.request(context, state, asked, event.time)
        case commands.SettleRetention() as asked:
            return retention.settle(context, state, asked, event.time)
        case internal.BindingRequested() as asked:
            return retention.bind(context, state, asked, event.time)
        case events.RetentionApproved() | events.RetentionRejected() as data:
            return Change(state=retention.settled(state, data, event.time))
        case commands.PublishProgram() as asked:
            return publishing.publish(state, asked, event.time)
        case events.LinkCreated() | events.PromoCodeCreated() as data:
            return Change(state=_with_code(state, data, event.time))
        case (
            internal.ReferralListed()
            | internal.ReferralActivity()
            | events.ActivityChanged()
            | internal.ClickCounted() as data
        ):
            return _in_rows(context, data)
        case _:
            return Change()


def _of_customer(context: Context[PersonRow], state: Person, event: Event) -> PersonChange:
    repeat, seen = repeats.judge(state.seen, event)
    if repeat is Repeat.SAME:
        return Change()
    if repeat is Repeat.CONFLICT:
        return Change(dead_letters=(DeadLetter(context.record, "conflicting_repeat"),))
    state = msgspec.structs.replace(state, seen=seen)
    match event.data:
        case events.CustomerSignedUp() as data:
            return signups.sign_up(context, state, data, event.time)
        case events.AccountCreated(account_id=account_id):
            account = msgspec.structs.replace(_account(state, account_id), created_at=event.time)
            return Change(state=_with_account(state, account_id, account))
        case events.AccountClosed(account_id=account_id):
            account = msgspec.structs.replace(_account(state, account_id), closed_at=event.time)
            return Change(state=_with_account(state, account_id, account))
        case _:  # a subscription's step: only its repeats are ours to find
            return Change(state=state)


def _account(state: Person, account_id: str) -> Account:
    return state.accounts.get(account_id, Account())


def _with_account(state: Person, account_id: str, account: Account) -> Person:
    return msgspec.structs.replace(state, accounts={**state.accounts, account_id: account})


def _forgotten(state: Person) -> Person:
    """The person without digests of addresses, and without what the person wrote, once that is settled."""
    return msgspec.structs.replace(
        state,
        forgotten=True,
        claims={claim_id: retention.of_forgotten(claim) for claim_id, claim in state.claims.items()},
        signup=state.signup and msgspec.structs.replace(state.signup, marks=()),
        activations={
            program_id: msgspec.structs.replace(activation, marks=())
            for program_id, activation in state.activations.items()
        },
    )


def _with_code(state: Person, data: events.LinkCreated | events.PromoCodeCreated, at: int) -> Person:
    match data:
        case events.LinkCreated():
            link = Link(data.code, data.program_id, data.url, data.destination, at)
            return msgspec.structs.replace(state, links=(*state.links, link))
        case events.PromoCodeCreated():
            promo_code = PromoCode(data.code, data.program_id, at)
            return msgspec.structs.replace(state, promo_codes=(*state.promo_codes, promo_code))


def _in_rows(
    context: Context[PersonRow],
    data: internal.ReferralListed | internal.ReferralActivity | events.ActivityChanged | internal.ClickCounted,
) -> PersonChange:
    """What a partner's lists are made of. Listing and activity come from several topics, in any order."""
    match data:
        case internal.ReferralListed():
            row_id = referral_row_id(data.customer_id)
            listed = msgspec.structs.replace(
                _referral(context, row_id, data),
                program_id=data.program_id,
                listed=True,
                attributed_at=data.attributed_at,
                signed_up_at=data.signed_up_at,
                retained=data.method == "retention",
            )
            return Change(rows={row_id: listed})
        case events.ActivityChanged():
            row_id = referral_row_id(data.customer_id)
            referral = _referral(context, row_id, data)
            return Change(rows={row_id: msgspec.structs.replace(referral, earning=data.earning)})
        case internal.ReferralActivity():
            row_id = referral_row_id(data.customer_id)
            referral = _referral(context, row_id, data)
            return Change(rows={row_id: msgspec.structs.replace(referral, active=data.active)})
        case internal.ClickCounted():
            date = utc_date(data.clicked_at)
            row_id = click_row_id(data.program_id, date)
            counted = context.rows.get(row_id)
            before = counted.clicks if isinstance(counted, ClickDay) else 0
            return Change(rows={row_id: ClickDay(data.program_id, date, before + 1)})


def _referral(
    context: Context[PersonRow],
    row_id: str,
    data: internal.ReferralListed | internal.ReferralActivity | events.ActivityChanged,
) -> Referral:
    row = context.rows.get(row_id)
    return row if isinstance(row, Referral) else Referral(data.customer_id, data.program_id)
