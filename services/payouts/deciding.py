"""What every decision of the ledger has: the program in force; a refusal, or changed rows, what is said, an answer."""

from collections.abc import Mapping

from schemas.commands import Command, UnderTerms
from schemas.events import Event, Payload
from schemas.ids import derived_id
from schemas.moments import SECOND
from schemas.programs.terms import Program
from services.payouts import views
from services.payouts.ledger import rebooked
from services.payouts.state import Person, Row
from services.runtime.border import FUTURE_SECONDS
from services.runtime.stage import Answer, Change, Context, Emit, refused

LedgerChange = Change[Person, Row]
LedgerContext = Context[Row]


def program_of(context: LedgerContext, person: Person, event: Event, command: UnderTerms) -> Program | None:
    """The program's version in force at the command, or None where the person is no partner of it.

    Errors: NotYetPublished while a version that the API knew has not been read.
    """
    if command.program_id not in person.programs:
        return None
    return context.programs.in_force(command.program_id, event.time, command.program_version)


def no(command: Command, code: str, detail: str) -> LedgerChange:
    """A refusal that changes nothing."""
    return Change(answers=(refused(command, code, detail),))


def absent(command: Command) -> LedgerChange:
    """What an absent thing and a foreign one answer alike."""
    return Change(answers=(refused(command, "not_found", "There is no such thing here.", status=404),))


def decided(
    context: LedgerContext,
    person: Person,
    event: Event,
    command: Command,
    changed: Mapping[str, Row | None],
    said: tuple[Payload, ...],
    status: int,
    body: views.View,
    find: tuple[str, ...] = (),
    forget: tuple[str, ...] = (),
) -> LedgerChange:
    """A command that is granted: the rows it changes, what is said of it, its answer."""
    done = written(context, person, event, changed)
    return Change(
        state=done.state,
        rows=done.rows,
        emits=tuple(Emit(derived_id("evt", command.command_id, data.type), event.time, data) for data in said),
        answers=(Answer(command, status, body.model_dump(mode="json")),),
        find=find,
        forget=forget,
    )


def written(context: LedgerContext, person: Person, event: Event, changed: Mapping[str, Row | None]) -> LedgerChange:
    """Rows to write, and the books moved by what they post now and did not before.

    An event's time is at most `FUTURE_SECONDS` ahead of the clock, so nobody asks any more what is available earlier
    than that before it.
    """
    pairs = [(context.rows.get(row_id), row) for row_id, row in changed.items()]
    return Change(state=rebooked(person, pairs, event.time - FUTURE_SECONDS * SECOND), rows=changed)
