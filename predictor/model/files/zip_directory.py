"""Zip archives whose directory, the list of their members, is bounded before it is parsed.

Python's reader makes an object of half a kilobyte for each member, and a member takes less than fifty bytes in the
directory: a directory of 50 MB would take more than 500 MB of memory, and half a minute.

The records are those of PKWARE's APPNOTE 6.3.10, sections 4.3.14 to 4.3.16; torch.save always writes the zip64 ones.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Final

MAX_DIRECTORY_BYTES: Final = 1 << 18
"""Largest directory that is parsed, in bytes: a model has about ten members, each of about 70 bytes there."""

DIRECTORY_MEMORY: Final = 8 << 20
"""Upper bound on the bytes of memory that a parsed directory takes."""

# Errors that zipfile, according to its source, raises for invalid archives, and zlib for data that does not inflate.
ZIP_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    ValueError,
    OverflowError,
    EOFError,
    RuntimeError,
    OSError,
    KeyError,
)
"""Errors that reading an archive with :mod:`zipfile` raises."""

_END: Final = struct.Struct("<4s8xI4xH")
_END_SIGNATURE: Final = b"PK\x05\x06"
_MAX_COMMENT_BYTES: Final = (1 << 16) - 1
_LOCATOR_SIGNATURE: Final = b"PK\x06\x07"
_LOCATOR_BYTES: Final = 20
_END_64: Final = struct.Struct("<4s36xQ8x")
_END_64_SIGNATURE: Final = b"PK\x06\x06"
_IN_ZIP64: Final = (1 << 32) - 1


class DamagedZip(ValueError):
    """The data is not a zip archive, or is a damaged or ambiguous one."""


class DirectoryTooLarge(ValueError):
    """The directory has more members than any model."""


def open_zip(data: bytes, *, zip64: bool) -> zipfile.ZipFile:
    """Return the archive, whose directory was parsed only because it is small.

    Args:
        data: the whole file.
        zip64: whether the archive may have zip64 records, which allow for more than 65,535 members.

    Raises:
        DamagedZip: the data is not an archive, or its records contradict each other.
        DirectoryTooLarge: the directory is larger than :data:`MAX_DIRECTORY_BYTES`.
    """
    if _directory_bytes(data, zip64=zip64) > MAX_DIRECTORY_BYTES:
        raise DirectoryTooLarge
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except ZIP_ERRORS as error:
        raise DamagedZip from error


def _directory_bytes(data: bytes, *, zip64: bool) -> int:
    """Return the size of the directory, by the same records that :mod:`zipfile` uses."""
    begin = data.rfind(_END_SIGNATURE, max(0, len(data) - _END.size - _MAX_COMMENT_BYTES))
    if begin < 0 or begin + _END.size > len(data):
        raise DamagedZip
    _, size, _ = _END.unpack_from(data, begin)
    if not data[max(0, begin - _LOCATOR_BYTES) :].startswith(_LOCATOR_SIGNATURE):
        return int(size)
    if not zip64:
        raise DirectoryTooLarge
    record = begin - _LOCATOR_BYTES - _END_64.size
    if record < 0:
        raise DamagedZip
    signature, size64 = _END_64.unpack_from(data, record)
    # Otherwise, two readers might see two directories.
    if signature != _END_64_SIGNATURE or size not in (size64, _IN_ZIP64):
        raise DamagedZip
    return int(size64)
