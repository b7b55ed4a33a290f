"""Every error that the APIs answer: an RFC 9457 problem document with a stable `code`.

A route raises `Problem`; whatever else goes wrong is turned into one here, so that no other shape of error exists.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import ConnectionError as RedisUnreachable
from redis.exceptions import TimeoutError as RedisTooSlow
from starlette.exceptions import HTTPException
from starlette.responses import Response

from schemas.programs import NotYetPublished
from services.runtime.reader import Rebuilding

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
ALWAYS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Headers of every answer; here too because an uncaught error is answered outside the middleware."""


class FieldError(BaseModel):
    """One field of a request that was refused. `field` is dotted, without `body` or `query` in front."""

    model_config = ConfigDict(frozen=True)
    field: str = Field(examples=["amount.minor"])
    message: str = Field(examples=["Input should be a valid integer"])


class ProblemDocument(BaseModel):
    """What an error looks like: RFC 9457 with a stable `code`."""

    model_config = ConfigDict(frozen=True)
    type: str = Field("about:blank", description="always about:blank; `code` tells problems apart")
    title: str = Field(description="the HTTP status in words", examples=["Not Found"])
    status: int = Field(examples=[404])
    code: str = Field(description="stable, for programs to act on", examples=["not_found"])
    detail: str = Field(description="for people; may change", examples=["There is no such thing here."])
    errors: tuple[FieldError, ...] | None = Field(None, description="with code `invalid`: the fields at fault")


class Problem(Exception):
    """A request that is answered with a problem document. `more` are further members of the document."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[FieldError] | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code)
        self.status, self.code, self.detail = status, code, detail
        self.errors, self.headers, self.more = errors, headers, more

    def response(self) -> Response:
        """The document as a response."""
        document: dict[str, Any] = {
            **(self.more or {}),
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.errors is not None:
            document["errors"] = [error.model_dump() for error in self.errors]
        return Response(orjson.dumps(document), self.status, {**ALWAYS, **(self.headers or {})}, MEDIA_TYPE)


def not_found() -> Problem:
    """What an absent id and a foreign one answer alike, byte for byte."""
    return Problem(404, "not_found", "There is no such thing here.")


def invalid(field: str, message: str) -> Problem:
    """One field that no schema could refuse by itself."""
    return Problem(422, "invalid", "The request is not valid.", [FieldError(field=field, message=message)])


def program_required() -> Problem:
    """What a partner of several programs is told who left `program_id` out."""
    return Problem(422, "program_required", "Name the program: program_id.")


def rebuilding() -> Problem:
    return Problem(503, "rebuilding", "The state is being rebuilt; ask again soon.", headers={"Retry-After": "1"})


def unavailable() -> Problem:
    return Problem(
        503, "unavailable", "Something needed is out of reach; ask again soon.", headers={"Retry-After": "1"}
    )


def _field_error(error: Mapping[str, Any]) -> FieldError:
    """Pydantic's error, without the `body` or `query` in front; `body` stands for the body as a whole."""
    place, *rest = error["loc"]
    if error["type"] == "json_invalid" or not rest:
        return FieldError(field=str(place), message="Write a JSON object." if place == "body" else error["msg"])
    message = str(error["msg"]).removeprefix("Value error, ")
    return FieldError(field=".".join(map(str, rest)), message=message)


def _of_validation(error: RequestValidationError) -> Problem:
    found = error.errors()
    if any(each["loc"][0] == "path" for each in found):
        return not_found()  # an id that cannot exist names nothing
    return Problem(422, "invalid", "The request is not valid.", [_field_error(each) for each in found])


def _of_http(error: HTTPException) -> Problem:
    """Starlette's and FastAPI's own refusals: unknown routes and methods, bodies that cannot be read."""
    if error.status_code == HTTPStatus.NOT_FOUND:
        return not_found()
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return Problem(405, "method_not_allowed", "The method is not allowed here.", headers=error.headers)
    if error.status_code == HTTPStatus.BAD_REQUEST:
        return invalid("body", "Write a JSON object.")
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return Problem(error.status_code, code, str(error.detail), headers=error.headers)


def _is_unreadable(error: Exception) -> bool:
    """Whether FastAPI could not make anything of a body, which it reads before it comes to a route's dependencies."""
    match error:
        case RequestValidationError():
            return any(each["type"] == "json_invalid" for each in error.errors())
        case HTTPException():
            return error.status_code == HTTPStatus.BAD_REQUEST
        case _:
            return False


def install(app: FastAPI, admit: Callable[[Request], Awaitable[None]]) -> None:
    """Make every error of the app a problem document.

    `admit`: raises the Problem of a caller who may not know what is wrong with a body.
    """

    async def raised(request: Request, error: Exception) -> Response:
        if _is_unreadable(error):
            try:
                await admit(request)
            except Problem as problem:
                error = problem
        match error:
            case Problem():
                return error.response()
            case RequestValidationError():
                return _of_validation(error).response()
            case HTTPException():
                return _of_http(error).response()
            case Rebuilding() | NotYetPublished():
                return rebuilding().response()
            case RedisUnreachable() | RedisTooSlow():
                log.warning("redis out of reach")
                return unavailable().response()
            case _:  # the server logs the traceback; the caller learns nothing of the inside
                return Problem(500, "internal", "This is a fault of ours.").response()

    for kind in (
        Problem,
        RequestValidationError,
        HTTPException,
        Rebuilding,
        NotYetPublished,
        RedisUnreachable,
        RedisTooSlow,
        Exception,
    ):
        app.add_exception_handler(kind, raised)
