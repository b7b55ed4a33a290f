"""What `refstream verify` found last of each service: a note in Redis beside the service's cells, for its operator.

It is a fact about Redis and not about the log, so no fold gives it again; a new Redis has none until the next run.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schemas.moments import Instant


class Verified(BaseModel):
    """One run: when it ended, how many cells and records it folded again, and how many differences it found."""

    model_config = ConfigDict(frozen=True)
    at: Instant
    cells: int = Field(examples=[12])
    records: int = Field(examples=[25681])
    differences: int = Field(examples=[0])


async def note(redis: Any, service: str, verified: Verified) -> None:
    """Write down what a run found, over what the one before did."""
    await redis.hset(_key(service), "run", verified.model_dump_json())


async def last(redis: Any, service: str) -> Verified | None:
    """What the last run found; None where there was none."""
    told = await redis.hget(_key(service), "run")
    return None if told is None else Verified.model_validate_json(told)


def _key(service: str) -> str:
    """Of the service's own keys, so that its API may read it and the operator may write it."""
    return f"{{{service}.verified}}:last"
