"""TorchServe's archive as torch-model-archiver makes it with ``--archive-format tgz``: a tar archive inside gzip.

The headers are those of POSIX.1-2001, ``pax``, "ustar Interchange Format". They are checked before Python's reader
sees them: it reads extended headers of any size.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

from intentctl.torchserve.archive import (
    DAMAGED,
    MAR_MANIFEST,
    NO_FILE,
    OUTSIDE,
    TOO_MANY_MEMBERS,
    TWO_OF_ONE_NAME,
    Archive,
    damage_of,
    leaves_its_folder,
)
from predictor.model.files.foreign import kind_of
from serving.domain.errors import InvalidModelFile
from serving.volume.model_store import MANIFEST_FILE

GZIP: Final = b"\x1f\x8b"
"""First bytes of a file of gzip."""

_BLOCK: Final = 512
_MAGIC: Final = b"ustar"
_MAGIC_AT: Final = 257
_SIZE: Final = slice(124, 136)
_TYPE: Final = slice(156, 157)
_FILES: Final = (b"0", b"\0")
_FOLDER: Final = b"5"
_EXTENDED: Final = (b"x", b"g", b"L")
_MAX_EXTENDED_BYTES: Final = 1 << 16
_MAX_MEMBERS: Final = 4096
_ERRORS: Final = (tarfile.TarError, zlib.error, ValueError, OverflowError, EOFError, OSError)


class TarArchive(Archive):
    """An archive in gzip. Its files may be at the top, or in a single folder.

    Args:
        data: the whole file.
        most_bytes: maximum bytes of the archive once it is inflated.

    Raises:
        InvalidModelFile: the archive is damaged, ambiguous or too large, or holds links or members that would be
            unpacked outside its folder.
    """

    def __init__(self, data: bytes, most_bytes: int) -> None:
        try:
            with gzip.open(io.BytesIO(data)) as file:
                inflated = file.read(most_bytes + 1)
        except _ERRORS as error:
            raise InvalidModelFile(DAMAGED) from error
        if len(inflated) > most_bytes:
            raise InvalidModelFile(f"the archive is larger than the {most_bytes} bytes that are read")
        if kind_of(inflated) is not None and not inflated.startswith(_MAGIC, _MAGIC_AT):
            raise InvalidModelFile(damage_of(inflated))
        _check_headers(inflated)
        try:
            self._archive = tarfile.TarFile(fileobj=io.BytesIO(inflated))
            members = self._archive.getmembers()
        except _ERRORS as error:
            raise InvalidModelFile(DAMAGED) from error
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in members:
            _check(member)
            name = member.name.removeprefix("./")
            if not member.isfile():
                continue
            if name in self._members:
                raise InvalidModelFile(TWO_OF_ONE_NAME)
            self._members[name] = member
        if MANIFEST_FILE not in self._members and MAR_MANIFEST not in self._members:
            self._members = _without_folder(self._members)

    def sizes(self) -> Mapping[str, int]:
        """Return the size of each member in bytes, by name."""
        return {name: member.size for name, member in self._members.items()}

    def content(self, name: str) -> bytes:
        """Return a member. Raises InvalidModelFile."""
        member = self._members[name]
        try:
            file = self._archive.extractfile(member)
            data = b"" if file is None else file.read()
        except _ERRORS as error:
            raise InvalidModelFile(DAMAGED) from error
        if len(data) != member.size:
            raise InvalidModelFile(DAMAGED)
        return data


def _check_headers(data: bytes) -> None:
    """Check the kinds of all members, their number, and the sizes of extended headers."""
    for number, (kind, size) in enumerate(_headers(data)):
        if number >= _MAX_MEMBERS or (kind in _EXTENDED and size > _MAX_EXTENDED_BYTES):
            raise InvalidModelFile(TOO_MANY_MEMBERS)
        if kind not in (*_FILES, *_EXTENDED, _FOLDER):
            raise InvalidModelFile(NO_FILE)


def _headers(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the kind and the size of each member, and of each extended header."""
    position = 0
    while len(header := data[position : position + _BLOCK]) == _BLOCK and header.strip(b"\0"):
        try:
            size = int(header[_SIZE].strip(b" \0") or b"0", 8)
        except ValueError as error:
            raise InvalidModelFile(DAMAGED) from error
        if size < 0:
            raise InvalidModelFile(DAMAGED)
        yield header[_TYPE], size
        position += _BLOCK + -(-size // _BLOCK) * _BLOCK


def _check(member: tarfile.TarInfo) -> None:
    if leaves_its_folder(member.name):
        raise InvalidModelFile(OUTSIDE)
    # An extended header can turn a file into a sparse one, whose size is not that of its data.
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise InvalidModelFile(NO_FILE)


def _without_folder(members: dict[str, tarfile.TarInfo]) -> dict[str, tarfile.TarInfo]:
    """Return the members named from the folder that all of them are in, if they are in one."""
    folders = {name.partition("/")[0] for name in members}
    if len(folders) != 1 or not all("/" in name for name in members):
        return members
    return {name.partition("/")[2]: member for name, member in members.items()}
