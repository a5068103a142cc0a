"""TorchServe's archive: a zip of a model's files, of its handler, and of ``MAR-INF/MANIFEST.json``, which names them.

The format is that of torch-model-archiver 0.12. Archives can come from anywhere, so they are read as data, and nothing
is inflated before its size is known to be within bounds.
"""

from __future__ import annotations

import io
import json
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, Final

from serving.domain.errors import InvalidModelFile, ModelIncomplete

MAR_MANIFEST: Final = "MAR-INF/MANIFEST.json"
MAX_MAR_MANIFEST_BYTES: Final = 1 << 20

# Earliest time that a zip can record; constant, so that equal models give equal archives.
_MOMENT: Final = (1980, 1, 1, 0, 0, 0)
_CREATED_ON: Final = "01/01/1980 00:00:00"
_ARCHIVER_VERSION: Final = "0.12.0"
_MODE: Final = (stat.S_IFREG | 0o644) << 16

_DIRECTORY_END: Final = struct.Struct("<4s8xI4xH")
_DIRECTORY_END_SIGNATURE: Final = b"PK\x05\x06"
_ZIP64_SIGNATURE: Final = b"PK\x06\x07"
_ZIP64_BYTES: Final = 20
_MAX_COMMENT_BYTES: Final = (1 << 16) - 1
# Archives have about ten members, each of which takes some fifty bytes and its name in the directory.
_MAX_DIRECTORY_BYTES: Final = 1 << 18

_ENCRYPTED: Final = 0x41
_LEAVES: Final = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.([/\\]|\Z)", re.DOTALL)

_DAMAGED: Final = "the archive is damaged, or is not an archive of TorchServe; export it again"

# Errors that zipfile, according to its source, raises for invalid archives, and zlib for data that does not inflate.
_ZIP_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    OverflowError,
    EOFError,
    RuntimeError,
    OSError,
    KeyError,
)


def mar_manifest(model_name: str, model_version: str, handler: str, weights: str) -> bytes:
    """Return the text of ``MAR-INF/MANIFEST.json``."""
    model = {
        "modelName": model_name,
        "serializedFile": weights,
        "handler": handler,
        "modelVersion": model_version,
    }
    document = {
        "createdOn": _CREATED_ON,
        "runtime": "python",
        "model": model,
        "archiverVersion": _ARCHIVER_VERSION,
    }
    return json.dumps(document, indent=2).encode()


def write_archive(members: Mapping[str, bytes]) -> bytes:
    """Return an archive of ``members``, which are keyed by name. Equal members give equal bytes."""
    buffer = io.BytesIO()
    # Stored, because compressed data differs from one release of zlib to the next.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo(name, _MOMENT)
            member.external_attr = _MODE
            archive.writestr(member, content)
    return buffer.getvalue()


class Archive:
    """An open TorchServe archive, none of whose members has been inflated.

    Args:
        data: the whole file.

    Raises:
        InvalidModelFile: the archive is damaged, ambiguous or encrypted, or holds links or members that would be
            unpacked outside of its folder.
    """

    def __init__(self, data: bytes) -> None:
        _check_directory(data)
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(data))
        except _ZIP_ERRORS as error:
            raise InvalidModelFile(_DAMAGED) from error
        members = self._archive.infolist()
        self._members = {member.filename: member for member in members}
        if len(self._members) != len(members):
            raise InvalidModelFile("the archive holds two members with the same name; export it again")
        for member in members:
            _check(member)

    def read(self, limits: Mapping[str, int]) -> dict[str, bytes]:
        """Return the members named in ``limits``, each with at most the given number of bytes, by name.

        Raises:
            ModelIncomplete: a member is missing.
            InvalidModelFile: a member is larger, or damaged.
        """
        missing = [name for name in limits if name not in self._members]
        if missing:
            raise ModelIncomplete(f"the archive has no {' and no '.join(missing)}")
        for name, limit in limits.items():
            if self._members[name].file_size > limit:
                raise InvalidModelFile(f"{name} of the archive is larger than the limit of {limit} bytes")
        return {name: self._read(self._members[name]) for name in limits}

    def model_name(self) -> str:
        """Return the name that the archive gives its model.

        Raises:
            ModelIncomplete: the archive has no MANIFEST.json.
            InvalidModelFile: MANIFEST.json names no model, or is damaged.
        """
        data = self.read({MAR_MANIFEST: MAX_MAR_MANIFEST_BYTES})[MAR_MANIFEST]
        try:
            document: Any = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InvalidModelFile(f"{MAR_MANIFEST} of the archive is not valid JSON; export it again") from error
        match document:
            case {"model": {"modelName": str() as name}}:
                return name
        raise InvalidModelFile(f"{MAR_MANIFEST} of the archive names no model; export it again")

    def _read(self, member: zipfile.ZipInfo) -> bytes:
        try:
            with self._archive.open(member) as file:
                # A bounded read inflates no more than its bound, however large the member is.
                data = file.read(member.file_size + 1)
        except _ZIP_ERRORS as error:
            raise InvalidModelFile(_DAMAGED) from error
        if len(data) != member.file_size:
            raise InvalidModelFile(_DAMAGED)
        return data


def _check_directory(data: bytes) -> None:
    """Check the size of the member list before it is read, because each member would take memory."""
    begin = data.rfind(_DIRECTORY_END_SIGNATURE, max(0, len(data) - _DIRECTORY_END.size - _MAX_COMMENT_BYTES))
    if begin < 0 or begin + _DIRECTORY_END.size > len(data):
        raise InvalidModelFile(_DAMAGED)
    _, size, _ = _DIRECTORY_END.unpack_from(data, begin)
    zip64 = data[max(0, begin - _ZIP64_BYTES) :].startswith(_ZIP64_SIGNATURE)
    if size > _MAX_DIRECTORY_BYTES or zip64:
        raise InvalidModelFile("the archive has far more members than a model's; export it again")


def _check(member: zipfile.ZipInfo) -> None:
    # Some readers end a name at its first null, others continue after it.
    if _LEAVES.match(member.filename) or member.filename != member.orig_filename:
        raise InvalidModelFile("the archive holds a member that would be unpacked outside of its folder; refused")
    if member.flag_bits & _ENCRYPTED:
        raise InvalidModelFile("the archive is encrypted; export it without a password")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InvalidModelFile(
            "the archive holds a link, or another member that is not a file; export it with its files"
        )
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidModelFile("the archive uses an unsupported compression; export it again")
