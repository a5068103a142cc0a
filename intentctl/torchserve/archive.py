"""TorchServe's archive: a zip of a model's files, of its handler, and of ``MAR-INF/MANIFEST.json``, which names them.

The format is that of torch-model-archiver 0.12. Archives can come from anywhere, so they are read as data, and nothing
is inflated before its size is known to be within bounds.
"""

from __future__ import annotations

import io
import json
import re
import stat
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final

from predictor.model.files.foreign import kind_of
from predictor.model.files.zip_directory import ZIP_ERRORS, DamagedZip, DirectoryTooLarge, open_zip
from serving.domain.errors import InvalidModelFile, ModelIncomplete

MAR_MANIFEST: Final = "MAR-INF/MANIFEST.json"
MAX_MAR_MANIFEST_BYTES: Final = 1 << 20

# Earliest time that a zip can record; constant, so that identical models yield identical archives.
_MOMENT: Final = (1980, 1, 1, 0, 0, 0)
_CREATED_ON: Final = "01/01/1980 00:00:00"
_ARCHIVER_VERSION: Final = "0.12.0"
_MODE: Final = (stat.S_IFREG | 0o644) << 16

_ENCRYPTED: Final = 0x41
_LEAVES: Final = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.([/\\]|\Z)", re.DOTALL)

_PICKLE: Final = b"\x80"
DAMAGED: Final = "the archive is damaged, or is not an archive of TorchServe; export it again"
TOO_MANY_MEMBERS: Final = "the archive has far more members than a model's; export it again"
TWO_OF_ONE_NAME: Final = "the archive holds two members with the same name; export it again"
OUTSIDE: Final = "the archive holds a member that would be unpacked outside of its folder; refused"
NO_FILE: Final = "the archive holds a link, or another member that is not a file; export it with its files"


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
    """Return an archive of ``members``, which are keyed by name. Identical members yield identical bytes."""
    buffer = io.BytesIO()
    # Stored, because compressed data differs from one release of zlib to the next.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo(name, _MOMENT)
            member.external_attr = _MODE
            archive.writestr(member, content)
    return buffer.getvalue()


class Archive(ABC):
    """An open TorchServe archive, none of whose members has been read."""

    @abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """Return the size of each member in bytes, by name."""

    @abstractmethod
    def content(self, name: str) -> bytes:
        """Return a member.

        Raises:
            InvalidModelFile: the member is damaged.
        """

    def read(self, limits: Mapping[str, int]) -> dict[str, bytes]:
        """Return the members named in ``limits``, each with at most the given number of bytes, by name.

        Raises:
            ModelIncomplete: a member is missing.
            InvalidModelFile: a member is larger, or damaged.
        """
        sizes = self.sizes()
        missing = [name for name in limits if name not in sizes]
        if missing:
            raise ModelIncomplete(f"the archive has no {' and no '.join(missing)}")
        for name, limit in limits.items():
            if sizes[name] > limit:
                raise InvalidModelFile(f"{name} of the archive is larger than the limit of {limit} bytes")
        return {name: self.content(name) for name in limits}

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


class ZipArchive(Archive):
    """An archive as torch-model-archiver makes it by default.

    Args:
        data: the whole file.

    Raises:
        InvalidModelFile: the archive is damaged, ambiguous or encrypted, or holds links or members that would be
            unpacked outside its folder.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._archive = open_zip(data, zip64=False)
        except DamagedZip as error:
            raise InvalidModelFile(damage_of(data)) from error
        except DirectoryTooLarge as error:
            raise InvalidModelFile(TOO_MANY_MEMBERS) from error
        members = self._archive.infolist()
        self._members = {member.filename: member for member in members}
        if len(self._members) != len(members):
            raise InvalidModelFile(TWO_OF_ONE_NAME)
        for member in members:
            _check(member)

    def sizes(self) -> Mapping[str, int]:
        """Return the size of each member in bytes, by name."""
        return {name: member.file_size for name, member in self._members.items()}

    def content(self, name: str) -> bytes:
        """Return a member. Raises InvalidModelFile."""
        member = self._members[name]
        try:
            with self._archive.open(member) as file:
                # A bounded read inflates no more than the bound, however large the member is.
                data = file.read(member.file_size + 1)
        except ZIP_ERRORS as error:
            raise InvalidModelFile(DAMAGED) from error
        if len(data) != member.file_size:
            raise InvalidModelFile(DAMAGED)
        return data


def damage_of(data: bytes) -> str:
    """Return why a file that is not an archive is refused: what the file seems to be, if its first bytes show that."""
    kind = "a pickle" if data.startswith(_PICKLE) else kind_of(data)
    if kind is None:
        return DAMAGED
    # The advice that follows is for weights.
    return (
        f"the archive seems to be {kind.partition(';')[0]}; give an archive of TorchServe, a .mar or .tar.gz file of "
        "torch-model-archiver"
    )


def leaves_its_folder(name: str) -> bool:
    """Return whether a member of this name would be unpacked outside the folder of its archive, on any system."""
    return _LEAVES.match(name) is not None


def _check(member: zipfile.ZipInfo) -> None:
    # Some readers end a name at its first null, others continue after it.
    if leaves_its_folder(member.filename) or member.filename != member.orig_filename:
        raise InvalidModelFile(OUTSIDE)
    if member.flag_bits & _ENCRYPTED:
        raise InvalidModelFile("the archive is encrypted; export it without a password")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InvalidModelFile(NO_FILE)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidModelFile("the archive uses an unsupported compression; export it again")
