"""Publishing a program: the next version of its document, in the log's order of the program's own key."""

import msgspec
import orjson
from pydantic import ValidationError

from schemas import commands, events
from schemas.ids import derived_id
from schemas.moments import SECOND, WIRE
from schemas.programs.terms import Program, faults
from services.attribution.partnership import PersonChange
from services.attribution.state import Person, Version
from services.runtime.stage import Answer, Change, Emit, invalid

CLOCK_DIFFERENCE = 5 * SECOND
"""How far behind ours the clock of whoever says "from now on" may be. The version holds from its publication then."""


def publish(state: Person, asked: commands.PublishProgram, at: int) -> PersonChange:
    """Publish the next version of a program.

    Shape: one PublishProgram → one ProgramPublished with the whole document, and the document as answer. `only_first`:
    where any version exists it is answered and nothing is written.
    Errors: 422 `invalid` with the fields at fault; an `effective_at` that lies in the past is one.
    """
    if asked.only_first and state.versions:
        return Change(answers=(Answer(asked, 200, orjson.loads(state.versions[-1].document)),))
    number = state.versions[-1].version + 1 if state.versions else 1
    try:
        program = Program.model_validate({**asked.document, "version": number}, context=WIRE)
    except ValidationError as error:
        errors = [{"field": field, "message": message} for field, message in faults(error)]
        body = {"code": "invalid", "detail": "The document is no valid program.", "errors": errors}
        return Change(answers=(Answer(asked, 422, body),))
    if program.program_id != asked.partner_id:
        return Change(answers=(invalid(asked, "program_id", "This is not the program's id in the address."),))
    effective_at = at if program.effective_at is None else program.effective_at
    if effective_at < at - CLOCK_DIFFERENCE:
        return Change(answers=(invalid(asked, "effective_at", "A version cannot take effect in the past."),))
    document = program.as_document()
    published = events.ProgramPublished(
        program_id=program.program_id, version=number, effective_at=max(effective_at, at), document=document
    )
    version = Version(number, published.effective_at, orjson.dumps(document).decode())
    return Change(
        state=msgspec.structs.replace(state, versions=(*state.versions, version)),
        emits=(Emit(derived_id("published", program.program_id, number), at, published),),
        answers=(Answer(asked, 200, document),),
    )
