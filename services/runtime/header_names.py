"""Header names that are no text: Kafka takes any bytes, aiokafka raises and would read no further on that partition.

One such record of the platform's would stop everybody behind it. What is no UTF-8 in a name is shown as `\\xff` here.
"""

from collections.abc import Iterator
from typing import Any

import aiokafka.consumer.fetcher
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy


def accept_any_header_name() -> None:
    """Let all of aiokafka's consumers in this process read them."""
    aiokafka.consumer.fetcher.MemoryRecords = _Records


class _Records(_MemoryRecordsPy):  # type: ignore[misc]
    """What a fetch brought of one partition, batch by batch; each is read by the compiled reader if that can."""

    def next_batch(self, *_: Any) -> Any:
        blob = self._next_slice
        batch = super().next_batch()
        return _Batch(batch, blob) if isinstance(batch, DefaultRecordBatch) else batch


class _Batch:
    def __init__(self, batch: Any, blob: memoryview) -> None:
        self._batch, self._blob = batch, blob

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        """The one record of a transaction's end, which aiokafka takes so from a batch."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except UnicodeDecodeError:
            return iter(_AnyNames(bytes(self._blob)))


class _AnyNames(_DefaultRecordBatchPy):  # type: ignore[misc]
    def __iter__(self) -> Any:
        records = super().__iter__()
        records._buffer = _Forgiving(records._buffer)
        return records


class _Forgiving(bytearray):
    """Bytes whose slices become text whatever they hold."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Forgiving(found) if isinstance(at, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "") -> str:
        return super().decode(encoding, "backslashreplace")
