"""Which program a body is about: a partner of several has to say."""

import json
from collections.abc import Callable, Sized
from typing import Any

from fastapi import Depends, Request

from schemas.ids import Id
from services.runtime.http.auth import PARTNERS, Caller, Door
from services.runtime.http.problems import program_required
from services.runtime.http.resources import TheResources
from services.runtime.stage import Row, Stage, State


def names_program(stage: Stage[State, Row], programs_of: Callable[[State], Sized], door: Door = PARTNERS) -> Any:
    """The dependency of a route of `/partners/{partner_id}/…` whose body names one of the partner's programs.

    It comes before the body is validated, which refuses a missing `program_id` of everybody else as `invalid`, and
    behind the route's door. Errors: those of the door; Problem 422 program_required for a partner of several programs.
    """

    async def named(request: Request, partner_id: Id, has: TheResources, _: Caller = Depends(door)) -> None:  # noqa: B008
        if await _leaves_it_out(request) and len(programs_of(await has.reader.state(stage, partner_id))) > 1:
            raise program_required()

    return Depends(named)


async def _leaves_it_out(request: Request) -> bool:
    """Whether the body is an object that says nothing of a program."""
    try:
        content = json.loads(await request.body())
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("program_id") is None
