"""TFRecord files without TensorFlow: the records' bytes, one after another.

A record is its length (8 bytes, little-endian), a checksum of those 8 bytes (4), its data, and a
checksum of the data (4); see tensorflow/core/lib/io/record_writer.h. Checksums are CRC-32C,
rotated right by 15 bits, plus a constant. That of the length is checked, which finds every cut or
shifted file; that of the data is not, since Python needs 0.1 µs a byte for it.
"""

import struct
from collections.abc import Iterator
from functools import cache
from typing import BinaryIO

_CRC_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8


def read_tfrecords(stream: BinaryIO) -> Iterator[bytes]:
    """The records of a stream.

    Raises:
        EOFError: it ends inside a record.
        ValueError: a length and its checksum differ.
    """
    while header := stream.read(12):
        if len(header) < 12:
            raise EOFError("the file ends inside a record")
        length, checksum = struct.unpack("<QI", header)
        if checksum != _masked_crc(header[:8]):
            raise ValueError("a record's length does not match its checksum")
        record = stream.read(length)
        if len(record) < length or len(stream.read(4)) < 4:
            raise EOFError("the file ends inside a record")
        yield record


def _masked_crc(data: bytes) -> int:
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


@cache
def _crc_table() -> list[int]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table
