"""The bytes of a stored file, block by block, decompressed where its name ends in .gz or .zst."""

import gzip
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from data.sources.locations import StoredFile

COMPRESSED_SUFFIXES = (".gz", ".zst")

_BLOCK_BYTES = 2**20
# Small, because one call decompresses the whole of it.
_ZSTD_BLOCK_BYTES = 2**14


class DamagedFileError(OSError):
    """Compressed data that is cut short or not what the name says."""


def is_compressed(name: str) -> bool:
    """Whether a file of this name is decompressed when it is read."""
    return name.lower().endswith(COMPRESSED_SUFFIXES)


def without_compression(name: str) -> str:
    """The name in lower case, less a .gz or .zst at its end."""
    name = name.lower()
    for suffix in COMPRESSED_SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def read_blocks(file: StoredFile) -> Iterator[bytes]:
    """The file's bytes in blocks of about 1 MiB, so that a file of any size needs little memory.

    Raises:
        OSError: it cannot be read; `DamagedFileError` where it does not decompress.
    """
    name = file.path.lower()
    with file.open() as stream:
        if name.endswith(".gz"):
            yield from _gzip_blocks(stream)
        elif name.endswith(".zst"):
            yield from _zstd_blocks(stream)
        else:
            while block := stream.read(_BLOCK_BYTES):
                yield block


def _gzip_blocks(stream: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=stream) as unzipped:
        while True:
            try:
                block = unzipped.read(_BLOCK_BYTES)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise DamagedFileError(f"damaged gzip data: {error}") from error
            if not block:
                return
            yield block


def _zstd_blocks(stream: BinaryIO) -> Iterator[bytes]:
    """All frames one after another; zstandard's own reader takes a cut file for a whole one."""
    import zstandard

    # 2**31 is what `zstd --long=31` makes.
    decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
    frame = None
    while data := stream.read(_ZSTD_BLOCK_BYTES):
        while data:
            frame = frame or decompressor.decompressobj()
            try:
                block = frame.decompress(data)
            except zstandard.ZstdError as error:
                raise DamagedFileError(f"damaged zstd data: {error}") from error
            if block:
                yield block
            data = b""
            if frame.eof:
                data, frame = frame.unused_data, None
    if frame is not None:
        raise DamagedFileError("damaged zstd data: it ends inside a frame")
