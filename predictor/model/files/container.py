"""Containers that PyTorch and pickle write, opened without torch: a pickled object and the storages beside it.

Three kinds are read: the zip archive of torch 1.6 and later; the concatenated pickles that earlier releases of
torch.save wrote; a bare pickle. The formats are defined by ``torch/serialization.py`` of PyTorch (``save``,
``_legacy_save``).
"""

from __future__ import annotations

import struct
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from zlib_ng import zlib_ng

from predictor.model.files.allowance import Allowance, allowance_for
from predictor.model.files.foreign import kind_of
from predictor.model.files.pickle_reader import Global, read_pickle
from predictor.model.files.zip_directory import DamagedZip, DirectoryTooLarge, open_zip
from serving.domain.errors import InvalidModelFile

_LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL: Final = 1001
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
_LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_COUNT: Final = struct.Struct("<q")
_THE_FILE: Final = "a file of the model"
_DAMAGED: Final = f"{_THE_FILE} is damaged; publish the model again"
_NO_USE: Final = f"{_THE_FILE} holds members that no model has a use for; save it with torch.save"

# Members that torch.save has written in any release, other than storages; and folders, which other tools add.
_MEMBERS: Final = frozenset(
    {
        "data.pkl",
        "version",
        "byteorder",
        ".data/serialization_id",
        ".format_version",
        ".storage_alignment",
        "",
        "data/",
        ".data/",
    }
)
_STORAGE: Final = "data/"

STORAGES: Final = {
    Global("torch", name): size
    for name, size in {
        "DoubleStorage": 8,
        "FloatStorage": 4,
        "HalfStorage": 2,
        "BFloat16Storage": 2,
        "LongStorage": 8,
        "IntStorage": 4,
        "ShortStorage": 2,
        "CharStorage": 1,
        "ByteStorage": 1,
        "BoolStorage": 1,
    }.items()
}
"""Storage classes and the size of one element of each, in bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A reference from the pickled object to the elements of tensors."""

    kind: Global
    """Storage class, one of :data:`STORAGES`, which determines the type of the elements."""
    key: str
    count: int
    """Number of elements."""

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.count * STORAGES[self.kind]


class TorchFile(ABC):
    """An opened file: its object, and the bytes of its storages."""

    @abstractmethod
    def read(self, allowed: Collection[Global], allowance: Allowance | None = None) -> Any:
        """Return the pickled object, in the form of :func:`~predictor.model.files.pickle_reader.read_pickle`.

        Args:
            allowed: globals that the pickle may name.
            allowance: bounds on memory, items and time, as in that function.

        Raises:
            ForbiddenPickle, InvalidModelFile: as in that function; or the file holds members that are of no use.
        """

    @abstractmethod
    def storage(self, storage: Storage) -> memoryview:
        """Return the bytes of the elements of ``storage``.

        Raises:
            InvalidModelFile: the storage is missing or damaged.
        """


def open_torch_file(data: bytes) -> TorchFile:
    """Open a file that torch.save or pickle.dump wrote.

    Raises:
        InvalidModelFile: the file is damaged, compressed, ambiguous or of another kind.
    """
    if not data:
        raise InvalidModelFile(f"{_THE_FILE} is empty; publish the model again")
    if data[:4] == _LOCAL_SIGNATURE:
        return _ZipFile(data)
    kind = kind_of(data)
    if kind is not None:
        raise InvalidModelFile(f"{_THE_FILE} seems to be {kind}")
    return _PickleFile(data)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Let errors of the block name the file: readers of containers do not know which file of the model they read."""
    try:
        yield
    except InvalidModelFile as error:
        message = str(error)
        if _THE_FILE not in message:
            raise
        raise type(error)(message.replace(_THE_FILE, name, 1)) from error.__cause__


class _ZipFile(TorchFile):
    def __init__(self, data: bytes) -> None:
        try:
            with open_zip(data, zip64=True) as archive:
                members = archive.infolist()
        except DamagedZip as error:
            raise InvalidModelFile(_DAMAGED) from error
        except DirectoryTooLarge as error:
            raise InvalidModelFile(_NO_USE) from error
        names = {member.filename for member in members}
        if len(names) != len(members):
            raise InvalidModelFile("a file of the model holds two members with the same name; publish the model again")
        stems = {name.split("/", 1)[0] for name in names}
        if any(f"{stem}/constants.pkl" in names for stem in stems):
            raise InvalidModelFile("a file of the model is a TorchScript archive; save the state_dict instead")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise InvalidModelFile(
                "a file of the model is compressed; save it with torch.save, which does not compress"
            )
        # Overlapping members would be read many times over.
        if sum(member.file_size for member in members) > len(data):
            raise InvalidModelFile("a file of the model declares more data than it holds; publish the model again")
        if len(stems) != 1 or f"{(stem := stems.pop())}/data.pkl" not in names:
            raise InvalidModelFile(f"{_THE_FILE} was not written by torch.save{_kind_of_zip(names)}")
        own = {name[len(stem) + 1 :] for name in names}
        self._unused = {name for name in own if name.startswith(_STORAGE) and name not in _MEMBERS}
        """Storages that no object read so far refers to."""
        if own - self._unused - _MEMBERS:
            raise InvalidModelFile(_NO_USE)
        self._data = data
        self._stem = stem
        self._members = {member.filename: member for member in members}
        self._storages: dict[str, memoryview] = {}

    def read(self, allowed: Collection[Global], allowance: Allowance | None = None) -> Any:
        begin, end = self._place("data.pkl")
        value, _ = read_pickle(
            self._data, allowed=allowed, persistent=self._persistent, start=begin, end=end, allowance=allowance
        )
        if self._unused:
            raise InvalidModelFile(_NO_USE)
        return value

    def _persistent(self, identity: object) -> Storage:
        storage = _storage(identity)
        self._unused.discard(_STORAGE + storage.key)
        return storage

    def storage(self, storage: Storage) -> memoryview:
        # torch records the byte order since 2.1; before that, all machines that it ran on were little-endian.
        # The first bytes are enough: the member may be as large as the file.
        if f"{self._stem}/byteorder" in self._members and bytes(self._member("byteorder")[:7]) != b"little":
            raise InvalidModelFile("a file of the model is big-endian; save it on a little-endian machine")
        # A storage is read once, however many tensors share it.
        if storage.key not in self._storages:
            self._storages[storage.key] = self._member(f"data/{storage.key}")
        elements = self._storages[storage.key]
        if len(elements) < storage.size:
            raise InvalidModelFile(_DAMAGED)
        return elements[: storage.size]

    def _member(self, name: str) -> memoryview:
        """Return a view of a member's bytes in the file, after verifying their checksum."""
        begin, end = self._place(name)
        return memoryview(self._data)[begin:end]

    def _place(self, name: str) -> tuple[int, int]:
        """Return the positions at which a member's bytes begin and end, after verifying their checksum."""
        member = self._members.get(f"{self._stem}/{name}")
        if member is None:
            raise InvalidModelFile(_DAMAGED)
        try:
            signature, name_length, extra_length = _LOCAL_HEADER.unpack_from(self._data, member.header_offset)
        except struct.error as error:
            raise InvalidModelFile(_DAMAGED) from error
        begin = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        content = memoryview(self._data)[begin : begin + member.file_size]
        if signature != _LOCAL_SIGNATURE or len(content) != member.file_size or zlib_ng.crc32(content) != member.CRC:
            raise InvalidModelFile(_DAMAGED)
        return begin, begin + member.file_size


def _kind_of_zip(names: Collection[str]) -> str:
    """Return what an archive with these members seems to be, and advice, phrased as the end of a sentence."""
    if "MAR-INF/MANIFEST.json" in names:
        return ", and seems to be an archive of TorchServe; import it with intentctl import"
    if any(name.endswith(".npy") for name in names):
        return ", and seems to be an archive of NumPy; save the state_dict with torch.save"
    return "; publish the model again"


class _PickleFile(TorchFile):
    """Concatenated pickles (magic number, protocol, system, object, storage keys) and raw storages; or one pickle."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._referenced: dict[str, Storage] = {}
        self._storages: dict[str, memoryview] | None = None
        self._behind_object: int | None = None
        self._allowance: Allowance | None = None

    def read(self, allowed: Collection[Global], allowance: Allowance | None = None) -> Any:
        self._allowance = allowance_for(len(self._data)) if allowance is None else allowance
        value, position = self._next(allowed, 0)
        if value != _LEGACY_MAGIC:
            return value
        version, position = self._next((), position)
        if version != _LEGACY_PROTOCOL:
            raise InvalidModelFile(_DAMAGED)
        _, position = self._next((), position)
        value, self._behind_object = self._next(allowed, position)
        return value

    def storage(self, storage: Storage) -> memoryview:
        if self._storages is None:
            self._storages = dict(self._raw_storages())
        try:
            return self._storages[storage.key]
        except KeyError as error:
            raise InvalidModelFile(_DAMAGED) from error

    def _raw_storages(self) -> Iterator[tuple[str, memoryview]]:
        if self._behind_object is None:
            return
        keys, position = self._next((), self._behind_object)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise InvalidModelFile(_DAMAGED)
        for key in keys:
            storage = self._referenced.get(key)
            end = position + _COUNT.size + (storage.size if storage else 0)
            if storage is None or end > len(self._data):
                raise InvalidModelFile(_DAMAGED)
            if _COUNT.unpack_from(self._data, position) != (storage.count,):
                raise InvalidModelFile(_DAMAGED)
            yield key, memoryview(self._data)[position + _COUNT.size : end]
            position = end

    def _next(self, allowed: Collection[Global], position: int) -> tuple[Any, int]:
        return read_pickle(
            self._data, allowed=allowed, persistent=self._persistent, start=position, allowance=self._allowance
        )

    def _persistent(self, identity: object) -> object:
        # torch stores a class together with its source text, which it needs for a warning.
        if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
            return identity[1]
        storage = _storage(identity)
        known = self._referenced.setdefault(storage.key, storage)
        # A tensor must not be mapped onto fewer bytes than its own reference declares.
        if (known.kind, known.count) != (storage.kind, storage.count):
            raise InvalidModelFile(_DAMAGED)
        return known


def _storage(identity: object) -> Storage:
    """Return the storage that a persistent id refers to: ``("storage", class, key, device, elements[, view])``."""
    match identity:
        case ("storage", Global() as kind, str() as key, str(), int() as count) if kind in STORAGES and count >= 0:
            return Storage(kind, key, count)
        case ("storage", Global() as kind, str() as key, str(), int() as count, None) if (
            kind in STORAGES and count >= 0
        ):
            return Storage(kind, key, count)
    raise InvalidModelFile("a file of the model refers to data of an unsupported kind; save it with torch.save")
