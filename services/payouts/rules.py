"""The ledger of one partner: commissions become accruals, commands withdrawals, top-ups, deposits, client payments.

An event on a payment carries how its commission stands, so its row is set, not summed: which events came before makes
no difference. A command is decided on what the log holds when it is read; an accrual's maturity, and whether an account
was closed, are judged at the command's event time, and the program's terms are those in force then.
Source: contract.md, Balance and the payouts calls; programs.md, keycrm and message-help.
"""

from collections.abc import Iterable, Mapping

import msgspec

from schemas import commands, events, internal
from schemas.events import REASONS_FOR_PAYMENTS, Event, Payload, Standing
from schemas.ids import derived_id
from schemas.money import MAX_MINOR, Money
from schemas.programs.terms import IntegratorAccount
from services.payouts import client_payments, views
from services.payouts.allocation import funds, topup_worth
from services.payouts.deciding import LedgerChange, LedgerContext, absent, decided, no, program_of, written
from services.payouts.state import (
    AccrualRow,
    Bonus,
    DepositRow,
    Held,
    Person,
    Returned,
    Row,
    TopupRow,
    Use,
    WithdrawalRow,
    accrual_id,
    deposit_row_id,
    topup_row_id,
    withdrawal_row_id,
)
from services.runtime.stage import Change


def row_ids(event: Event) -> tuple[str, ...]:
    """The rows that an event reads in the common case."""
    match event.data:
        case (
            events.CommissionAccrued(payment_id=payment_id)
            | events.CommissionAdjusted(payment_id=payment_id)
            | events.CommissionReversed(payment_id=payment_id)
            | events.CommissionHeld(payment_id=payment_id)
            | events.CommissionDeclined(payment_id=payment_id)
        ):
            return (accrual_id(payment_id),)
        case commands.SettleWithdrawal(withdrawal_id=withdrawal_id):
            return (withdrawal_row_id(withdrawal_id),)
        case commands.RequestDeposit(command_id=command_id):
            return (deposit_row_id(_deposit_id(command_id)),)
        case commands.ConfirmDeposit(deposit_id=deposit_id):
            return (deposit_row_id(deposit_id),)
        case _:
            return ()


def step(context: LedgerContext, person: Person, event: Event) -> LedgerChange:
    """Fold one event of one person. Errors: Missing; NotYetPublished. Refusals are answers."""
    match event.data:
        case events.CommissionAccrued() | events.CommissionAdjusted() | events.CommissionHeld() as commission:
            return _stands(context, person, event, commission, commission.standing)
        case events.CommissionReversed(reason=reason) as commission:
            undone = reason in REASONS_FOR_PAYMENTS and not commission.standing.amount.minor
            return _stands(context, person, event, commission, commission.standing, undone)
        case events.CommissionDeclined(payment_id=payment_id):
            return _declined(context, person, event, payment_id)
        case events.PartnerActivated(program_id=program_id):
            programs = tuple(sorted({*person.programs, program_id}))
            return Change(state=msgspec.structs.replace(person, programs=programs))
        case events.AccountCreated(account_id=account_id):
            accounts = tuple(sorted({*person.accounts, account_id}))
            return Change(state=msgspec.structs.replace(person, accounts=accounts))
        case events.AccountClosed(account_id=account_id):
            # The first closing holds; another one is a conflicting repeat.
            closed = {account_id: event.time, **person.closed}
            return Change(state=msgspec.structs.replace(person, closed=closed))
        case internal.PersonForgotten():
            return _forget(context, person)
        case events.BonusGranted(customer_id=None) as granted:
            return Change(state=_with_bonus(person, granted, event.time))
        case commands.RequestWithdrawal() as command:
            return _withdraw(context, person, event, command)
        case commands.SettleWithdrawal() as command:
            return _settle(context, person, event, command)
        case commands.RequestTopup() as command:
            return _top_up(context, person, event, command)
        case commands.RequestDeposit() as command:
            return _deposit(context, person, event, command)
        case commands.ConfirmDeposit() as command:
            return _confirm(context, person, event, command)
        case commands.PayForClient() as command:
            return client_payments.pay(context, person, event, command)
        case _:  # the topics hold more than the ledger is about
            return Change()


# --- commissions ----------------------------------------------------------------------------------------------------

_Commission = events.CommissionAccrued | events.CommissionAdjusted | events.CommissionReversed | events.CommissionHeld


def _stands(
    context: LedgerContext,
    person: Person,
    event: Event,
    commission: _Commission,
    standing: Standing,
    undone: bool = False,
) -> LedgerChange:
    before = _accrual(context, commission.payment_id)
    row = AccrualRow(
        payment_id=commission.payment_id,
        program_id=commission.program_id,
        currency=standing.amount.currency,
        accrued_at=standing.accrued_at,
        base_minor=standing.base.minor,
        amount_minor=standing.amount.minor,
        available_at=standing.available_at,
        refunded_minor=standing.refunded_minor,
        reversals=tuple(Returned(r.reversed_at, r.amount.minor, r.reason) for r in standing.reversals),
        holds=tuple(Held(hold.held_from, hold.held_until) for hold in standing.holds),
        used_minor=before.used_minor if before else 0,
        undone=undone,
    )
    return written(context, person, event, {accrual_id(row.payment_id): _kept(row)})


def _declined(context: LedgerContext, person: Person, event: Event, payment_id: str) -> LedgerChange:
    """A payment earns nothing; when it did before and that was used, the use is left as a debt."""
    before = _accrual(context, payment_id)
    if before is None:
        return Change()
    row = msgspec.structs.replace(before, amount_minor=0, refunded_minor=0, reversals=(), holds=(), undone=True)
    return written(context, person, event, {accrual_id(payment_id): _kept(row)})


def _accrual(context: LedgerContext, payment_id: str) -> AccrualRow | None:
    row = context.rows.get(accrual_id(payment_id))
    return row if isinstance(row, AccrualRow) else None


def _kept(row: AccrualRow) -> AccrualRow | None:
    return None if row.undone and not row.used_minor else row


# --- bonuses --------------------------------------------------------------------------------------------------------


def _with_bonus(person: Person, granted: events.BonusGranted, at: int) -> Person:
    """A bonus of the partner's own, usable from the grant on. A customer's own bonus is for the platform to apply."""
    if any(bonus.bonus_id == granted.bonus_id for bonus in person.bonuses):
        return person
    amount = granted.amount
    bonus = Bonus(granted.bonus_id, granted.program_id, amount.currency, amount.minor, at, granted.expires_at)
    return msgspec.structs.replace(person, bonuses=(*person.bonuses, bonus))


# --- withdrawals ----------------------------------------------------------------------------------------------------


def _withdraw(
    context: LedgerContext, person: Person, event: Event, command: commands.RequestWithdrawal
) -> LedgerChange:
    program = program_of(context, person, event, command)
    if program is None:
        return absent(command)
    amount, terms = command.amount, program.payouts
    if not terms.withdrawals:
        return no(command, "withdrawals_not_offered", "This program pays nothing out.")
    minimum = {least.currency: least.minor for least in terms.minimums}
    if minimum and amount.currency not in minimum:
        return no(command, "currency_not_supported", f"Withdraw in {', '.join(sorted(minimum))}.")
    if amount.minor < minimum.get(amount.currency, 1):
        return no(command, "below_minimum", "The amount is below the program's least withdrawal.")
    rows = context.rows.all()
    able = funds(rows.values(), (program.program_id, amount.currency), event.time)
    if amount.minor > able.available_minor:
        return no(command, "insufficient_balance", "The amount is more than what is available.")
    row = WithdrawalRow(
        withdrawal_id=derived_id("wd", command.command_id),
        program_id=program.program_id,
        currency=amount.currency,
        amount_minor=amount.minor,
        destination=command.destination,
        created_at=event.time,
        comment=command.comment,
        used=able.take(amount.minor),
        commands=(command.command_id,),
    )
    said = events.WithdrawalRequested(
        withdrawal_id=row.withdrawal_id,
        partner_id=command.partner_id,
        program_id=row.program_id,
        amount=amount,
        destination=command.destination,
        comment=command.comment,
    )
    name = withdrawal_row_id(row.withdrawal_id)
    changed = {name: row, **_using(rows, row.used, 1)}
    return decided(context, person, event, command, changed, (said,), 201, views.withdrawal(row), find=(name,))


def _settle(context: LedgerContext, person: Person, event: Event, command: commands.SettleWithdrawal) -> LedgerChange:
    name = withdrawal_row_id(command.withdrawal_id)
    before = context.rows.get(name)
    if not isinstance(before, WithdrawalRow):
        return absent(command)
    if before.status != "processing":
        return no(command, "already_settled", f"The withdrawal is {before.status}.")
    row = msgspec.structs.replace(
        before,
        status=command.outcome,
        settled_at=event.time,
        reason=command.reason if command.outcome == "rejected" else None,
        commands=(*before.commands, command.command_id),
    )
    forget: tuple[str, ...] = ()
    if person.forgotten:
        row, forget = _without_person(row), before.commands
    changed: dict[str, Row | None] = {name: row}
    if row.status != "paid":
        changed |= _using(context.rows.all(), row.used, -1)
    said = (_settled(command, row),)
    return decided(context, person, event, command, changed, said, 200, views.withdrawal(row), forget=forget)


def _forget(context: LedgerContext, person: Person) -> LedgerChange:
    """Nothing of the person stays but ids and money; what is still to be paid keeps its destination until then."""
    settled = {
        name: row
        for name, row in (context.rows.all().items() if person.is_partner else ())
        if isinstance(row, WithdrawalRow) and row.status != "processing"
    }
    return Change(
        state=msgspec.structs.replace(person, forgotten=True),
        rows={name: _without_person(row) for name, row in settled.items()},
        forget=tuple(command_id for row in settled.values() for command_id in row.commands),
    )


def _without_person(row: WithdrawalRow) -> WithdrawalRow:
    return msgspec.structs.replace(row, destination=None, comment=None, commands=())


def _settled(command: commands.SettleWithdrawal, row: WithdrawalRow) -> Payload:
    own, partner, program, amount = row.withdrawal_id, command.partner_id, row.program_id, _money(row)
    match command.outcome:
        case "paid":
            return events.WithdrawalPaid(withdrawal_id=own, partner_id=partner, program_id=program, amount=amount)
        case "rejected":
            return events.WithdrawalRejected(
                withdrawal_id=own, partner_id=partner, program_id=program, amount=amount, reason=command.reason or ""
            )
        case "cancelled":
            return events.WithdrawalCancelled(withdrawal_id=own, partner_id=partner, program_id=program, amount=amount)


def _using(rows: Mapping[str, Row], used: Iterable[Use], sign: int) -> dict[str, Row | None]:
    """The accruals with parts taken (sign 1) or given back (-1)."""
    changed: dict[str, Row | None] = {}
    for use in used:
        row = rows[accrual_id(use.payment_id)]
        assert isinstance(row, AccrualRow)
        used_minor = row.used_minor + sign * use.amount_minor
        changed[accrual_id(use.payment_id)] = _kept(msgspec.structs.replace(row, used_minor=used_minor))
    return changed


# --- top-ups --------------------------------------------------------------------------------------------------------


def _top_up(context: LedgerContext, person: Person, event: Event, command: commands.RequestTopup) -> LedgerChange:
    program = program_of(context, person, event, command)
    if program is None:
        return absent(command)
    terms, amount = program.payouts.topup, command.amount
    if terms is None:
        return no(command, "topup_not_offered", "This program tops no accounts up.")
    if not person.owns(command.account_id, event.time):
        return no(command, "account_not_owned", "The account is not an open account of your own.")
    rows = context.rows.all()
    able = funds(rows.values(), (program.program_id, amount.currency), event.time)
    if amount.minor > able.earned_minor:  # deposits are no bonus money
        return no(command, "insufficient_balance", "The amount is more than the bonus money that is available.")
    used = able.take(amount.minor)
    accruals = {row.payment_id: row for row in rows.values() if isinstance(row, AccrualRow)}
    worth = topup_worth(used, accruals, terms.points)
    if worth > MAX_MINOR:
        return no(command, "amount_too_large", "What that is worth is more than an amount can say.")
    row = TopupRow(
        topup_id=derived_id("tu", command.command_id),
        program_id=program.program_id,
        currency=amount.currency,
        amount_minor=amount.minor,
        account_id=command.account_id,
        credited_minor=worth,
        applied_at=event.time,
        used=used,
    )
    said = events.TopupApplied(
        topup_id=row.topup_id,
        partner_id=command.partner_id,
        program_id=row.program_id,
        account_id=row.account_id,
        amount=amount,
        credited=Money(minor=row.credited_minor, currency=row.currency),
    )
    changed = {topup_row_id(row.topup_id): row, **_using(rows, used, 1)}
    return decided(context, person, event, command, changed, (said,), 201, views.topup(row))


# --- deposits -------------------------------------------------------------------------------------------------------


def _deposit_id(command_id: str) -> str:
    return derived_id("dep", command_id)


def _deposit(context: LedgerContext, person: Person, event: Event, command: commands.RequestDeposit) -> LedgerChange:
    program = program_of(context, person, event, command)
    if program is None:
        return absent(command)
    if program.term(IntegratorAccount) is None:
        return no(command, "deposits_not_offered", "This program has no account to pay into.")
    row = DepositRow(
        deposit_id=_deposit_id(command.command_id),
        program_id=program.program_id,
        currency=command.amount.currency,
        amount_minor=command.amount.minor,
        method=command.method,
        created_at=event.time,
    )
    said: tuple[Payload, ...] = ()
    if row.method == "invoice":
        said = (
            events.DepositInvoiced(
                deposit_id=row.deposit_id,
                partner_id=command.partner_id,
                program_id=row.program_id,
                amount=command.amount,
                method=row.method,
            ),
        )
    name = deposit_row_id(row.deposit_id)
    return decided(context, person, event, command, {name: row}, said, 201, views.deposit(row), find=(name,))


def _confirm(context: LedgerContext, person: Person, event: Event, command: commands.ConfirmDeposit) -> LedgerChange:
    name = deposit_row_id(command.deposit_id)
    before = context.rows.get(name)
    if not isinstance(before, DepositRow):
        return absent(command)
    if before.received_at is not None:
        return no(command, "already_settled", "The deposit was confirmed before.")
    row = msgspec.structs.replace(before, received_at=event.time)
    said = events.DepositReceived(
        deposit_id=row.deposit_id,
        partner_id=command.partner_id,
        program_id=row.program_id,
        amount=_money(row),
        method=row.method,
    )
    return decided(context, person, event, command, {name: row}, (said,), 200, views.deposit(row))


def _money(row: WithdrawalRow | DepositRow) -> Money:
    return Money(minor=row.amount_minor, currency=row.currency)
