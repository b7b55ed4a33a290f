"""What a JSON body of a request is built from."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from schemas.moments import format_instant, parse_instant

EARLIEST, LATEST = -62_135_596_800_000_000, 253_370_764_799_999_999
"""The years 1 to 9998: what calendar arithmetic can still add to."""


def _moment(value: Any) -> int:
    return parse_instant(value)


Moment = Annotated[
    int,
    BeforeValidator(_moment, json_schema_input_type=str),
    Field(ge=EARLIEST, le=LATEST),
    PlainSerializer(format_instant, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-02-28T12:00:00Z"]}),
]
"""A time in a request: RFC 3339 text with an offset, in code microseconds since 1970 UTC. Unlike `schemas.Instant` it
never takes a bare number, whatever validates it."""

Text = Annotated[str, Field(strict=True, min_length=1, max_length=1024)]
"""Free text from a caller."""


class Body(BaseModel):
    """Base of every request body: frozen, and a field that it does not know is refused.

    Fields have the names of the command's fields; `Commands.run` copies them. Times are `Moment`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class NoBody(Body):
    """The body of a POST that says everything in its path: nothing, or `{}`. Declare it `NoBody | None = None`."""
