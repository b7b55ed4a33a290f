"""The folds of rewards: bonuses that follow from an activation or from a signup; credits and claims. Pure.

Source: programs.md, message-help: the new client's bonus, the welcome bonus; proxy-credits.
"""

from msgspec.structs import replace

from schemas.commands import RequestClaim, SettleClaim
from schemas.events import BonusGranted, Event, PartnerActivated, ReferralAttributed
from schemas.ids import derived_id
from schemas.internal import SaleStated
from schemas.moments import DAY
from schemas.money import Money
from schemas.programs.terms import SignupBonus, WelcomeBonus
from schemas.topics import COMMANDS_REWARDS, PARTNERS, PAYOUTS, REFERRALS, SALES, TOPIC_OF
from services.rewards import bonuses, claims, purchases
from services.rewards.state import Bonus, NewCustomer, Row, Wallet, claim_row, purchase_row
from services.runtime.stage import Change, Context, Emit, Stage


def row_ids(event: Event) -> tuple[str, ...]:
    """The row of a wallet that an event reads."""
    match event.data:
        case SaleStated(payment_id=payment_id) as stated if purchases.concerns(stated):
            return (purchase_row(payment_id),)
        case SettleClaim(claim_id=claim_id):
            return (claim_row(claim_id),)
        case _:
            return ()


def wallet_step(context: Context[Row], state: Wallet, event: Event) -> Change[Wallet, Row]:
    """Fold one event of a partner: what grants, uses and ends bonuses; credits, and the claims on them."""
    match event.data:
        case PartnerActivated() as data:
            return _activated(context, state, data)
        case SaleStated() as stated if purchases.concerns(stated):
            return purchases.stand(context, state, stated)
        case RequestClaim() as command:
            return claims.request(context, state, event, command)
        case SettleClaim() as command:
            return claims.settle(context, state, event, command)
        case _ if TOPIC_OF[type(event.data)] is PAYOUTS:
            return bonuses.settle(bonuses.learn(state, event), context.key)
        case _:
            return Change()


def _activated(context: Context[Row], state: Wallet, data: PartnerActivated) -> Change[Wallet, Row]:
    """A partner was activated: from then on the welcome bonus, where the program has one, is usable for some days.

    Shape: partner.activated → bonus.granted, once per program. Errors: NotYetPublished.
    """
    if data.program_id in state.programs:
        return Change()
    after = replace(state, programs=(*state.programs, data.program_id))
    program = context.programs.in_force(data.program_id, data.activated_at)
    welcome = program.term(WelcomeBonus)
    if welcome is None:
        return Change(after)
    bonus = Bonus(
        derived_id("bonus", data.partner_id, data.program_id, "welcome"),
        data.program_id,
        welcome.amount.currency,
        data.activated_at,
        welcome.amount.minor,
        welcome.amount.minor,
        data.activated_at + welcome.usable_days * DAY,
    )
    granted = BonusGranted(
        bonus_id=bonus.bonus_id,
        partner_id=data.partner_id,
        program_id=data.program_id,
        amount=Money(minor=bonus.minor, currency=bonus.currency),
        expires_at=bonus.expires_at,
    )
    emit = Emit(derived_id("evt", bonus.bonus_id), data.activated_at, granted)
    settled = bonuses.settle(replace(after, bonuses=(*state.bonuses, bonus)), context.key)
    return Change(settled.state, emits=(emit, *settled.emits))


def customer_step(context: Context[NewCustomer], state: NewCustomer, event: Event) -> Change[NewCustomer, NewCustomer]:
    """A customer was bound in a way that earns a bonus: an event for the platform to apply, once.

    Shape: referral.attributed → bonus.granted, keyed by the customer.
    """
    data = event.data
    if state.bonus_id or not isinstance(data, ReferralAttributed):
        return Change()
    terms = context.programs.version(data.program_id, data.program_version).term(SignupBonus)
    if terms is None or data.method not in terms.methods:
        return Change()
    bonus_id = derived_id("bonus", data.customer_id, data.program_id, "signup")
    granted = BonusGranted(
        bonus_id=bonus_id,
        partner_id=data.partner_id,
        program_id=data.program_id,
        customer_id=data.customer_id,
        amount=terms.amount,
    )
    emit = Emit(derived_id("evt", bonus_id), data.attributed_at, granted, key=data.customer_id)
    return Change(NewCustomer(bonus_id), emits=(emit,))


WALLETS: Stage[Wallet, Row] = Stage(
    "rewards.wallets", (PARTNERS, PAYOUTS, SALES, COMMANDS_REWARDS), Wallet(), wallet_step, row=Row, row_ids=row_ids
)
CUSTOMERS: Stage[NewCustomer, NewCustomer] = Stage("rewards.customers", (REFERRALS,), NewCustomer(), customer_step)
