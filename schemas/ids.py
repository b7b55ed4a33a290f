"""Ids: what an id may look like, where a key lives, and ids that derive from their cause."""

import hashlib
from functools import lru_cache
from typing import Annotated

from aiokafka.partitioner import murmur2
from pydantic import Field

Id = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9._:@-]{1,128}$", examples=["c-1001"])]
"""1–128 characters out of letters, digits and `._:@-`."""


@lru_cache(maxsize=1 << 17)
def partition_of(key: str | bytes, partitions: int) -> int:
    """The partition of a key: Kafka's own default, murmur2 of its (UTF-8) bytes."""
    hashed: int = murmur2(key.encode() if isinstance(key, str) else key)
    return (hashed & 0x7FFFFFFF) % partitions


def derived_id(prefix: str, *cause: object) -> str:
    """An id that follows from its cause: the same cause gives the same id on every replay."""
    digest = hashlib.blake2b("\x1f".join(map(str, cause)).encode(), digest_size=12).hexdigest()
    return f"{prefix}_{digest}"
