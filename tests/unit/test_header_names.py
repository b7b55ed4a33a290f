"""A header's name that is no text stops nobody."""

import struct

import aiokafka.consumer.fetcher
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from services.runtime.header_names import accept_any_header_name

ATTRIBUTES, CRC = 21, 17
PLACE = b"name-of-a-header"


def _batch(name: bytes) -> bytes:
    """A batch of three records as a broker sends it; the second has a header of that name."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=10_000,
    )
    for offset in range(3):
        headers = [(PLACE.decode(), b"1")] if offset == 1 else []
        builder.append(offset, 1_000, b"key", b"value %d" % offset, headers)
    blob = bytearray(bytes(builder.build()).replace(PLACE, name))
    struct.pack_into(">I", blob, CRC, calc_crc32c(bytes(blob[ATTRIBUTES:])))
    return bytes(blob)


def _read(blob: bytes) -> list[tuple[int, bytes, list[tuple[str, bytes]]]]:
    accept_any_header_name()
    records = aiokafka.consumer.fetcher.MemoryRecords(blob)
    found = []
    while records.has_next():
        batch = records.next_batch()
        assert batch.validate_crc()
        found += [(record.offset, record.value, list(record.headers)) for record in batch]
        assert batch.next_offset == found[-1][0] + 1
    return found


def test_a_name_that_is_text_is_read_as_ever() -> None:
    assert _read(_batch(PLACE))[1] == (1, b"value 1", [(PLACE.decode(), b"1")])


def test_a_name_that_is_no_text_is_shown_escaped_and_every_record_is_read() -> None:
    no_text = b"\xff\xfe" + PLACE[2:]
    with pytest.raises(UnicodeDecodeError):
        list(DefaultRecordBatch(_batch(no_text)))
    assert _read(_batch(no_text) + _batch(PLACE)) == [
        (0, b"value 0", []),
        (1, b"value 1", [(r"\xff\xfe" + PLACE[2:].decode(), b"1")]),
        (2, b"value 2", []),
        *_read(_batch(PLACE)),
    ]
