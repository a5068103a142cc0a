"""The shared volume: a model id to the files of its folder, read safely.

Layout: ``ROOT/<model id>/{manifest.json, model.pth, vocab.pth}``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

from serving.errors import (
    FilesChanged,
    InvalidModelFile,
    InvalidModelId,
    ModelIncomplete,
    ModelNotFound,
    ModelUnusable,
    ServingError,
    VolumeUnavailable,
)
from serving.manifest import MAX_MANIFEST_BYTES, Manifest
from serving.model_id import ModelId, parse_model_id
from serving.open_folder import FolderReplaced, OpenFile, OpenFolder

Result = TypeVar("Result")

MANIFEST_FILE: Final = "manifest.json"
WEIGHTS_FILE: Final = "model.pth"
VOCABULARY_FILE: Final = "vocab.pth"
MODEL_FILES: Final = (MANIFEST_FILE, WEIGHTS_FILE, VOCABULARY_FILE)

# What a network file system answers when it lost the file under an open name: worth one more try.
_TRANSIENT: Final = frozenset({errno.ESTALE, errno.EIO})


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Changes whenever a file is replaced or written to."""

    device: int
    inode: int
    size: int
    modified_nanoseconds: int
    changed_nanoseconds: int
    """Also moves where a writer sets the time of modification back, and with permissions."""

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Return the identity of the file that has this status."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a model's folder holds at one moment; equal fingerprints mean the same copy of the model."""

    files: tuple[FileIdentity | None, ...]
    """One for each of :data:`MODEL_FILES`, in order; ``None`` where the file is missing."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of the files that are not there."""
        return tuple(name for name, file in zip(MODEL_FILES, self.files, strict=True) if file is None)


class ModelStore:
    """Reads model folders below ``root``. Every method blocks on the file system; none keeps state."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)

    def model_ids(self) -> list[ModelId]:
        """Return the ids of all folders that have a manifest, sorted.

        Raises:
            VolumeUnavailable: the volume cannot be listed.
        """
        try:
            names = sorted(os.listdir(self._root))
        except OSError as error:
            raise VolumeUnavailable("the model volume cannot be listed at the moment") from error
        return [model_id for name in names if (model_id := _as_model_id(name)) and self._has_manifest(model_id)]

    def fingerprint(self, model_id: ModelId) -> Fingerprint:
        """Return the identity of the model's files.

        Raises:
            ModelNotFound: there is no such folder.
            ModelUnusable: a file leads outside of the root, or may not be read.
            VolumeUnavailable: the volume failed twice.
        """
        return _persistently(lambda: self._fingerprint(model_id))

    def still_has(self, model_id: ModelId, files: Mapping[str, FileIdentity]) -> bool:
        """Return whether the names in ``files`` lead to these files still: the cheapest look there is.

        A file that was known to be the model's stays so, wherever links lead; for all else, and where the volume
        fails, the answer is no, and :meth:`fingerprint` tells more.
        """
        folder = os.path.join(self._root, model_id)
        try:
            return all(FileIdentity.of(os.stat(os.path.join(folder, name))) == file for name, file in files.items())
        except OSError:
            return False

    def read(self, model_id: ModelId, name: str, limit: int) -> bytes:
        """Return the whole file ``name`` of the model.

        Raises:
            ModelNotFound: there is no such folder.
            ModelIncomplete: there is no such file in it.
            FilesChanged: it changed while it was read.
            ModelUnusable: it is larger than ``limit`` bytes, is no regular file, leads outside of the root or may not
                be read.
            VolumeUnavailable: the volume failed twice.
        """
        return _persistently(lambda: self._read(model_id, name, limit))

    def read_copy(self, model_id: ModelId, fingerprint: Fingerprint, limits: Mapping[str, int]) -> dict[str, bytes]:
        """Return the files named in ``limits`` of the copy of the model that has the identity ``fingerprint``.

        Raises:
            FilesChanged: the model is another copy by now, or a file changed while it was read.
            ServingError: as :meth:`read` does.
        """
        return _persistently(lambda: self._read_copy(model_id, fingerprint, limits))

    def read_manifest(self, model_id: ModelId) -> Manifest:
        """Return the model's manifest. Raises as :meth:`read` does, and InvalidManifest."""
        return Manifest.parse(self.read(model_id, MANIFEST_FILE, MAX_MANIFEST_BYTES))

    def _fingerprint(self, model_id: ModelId) -> Fingerprint:
        with self._opened(model_id) as folder:
            return _fingerprint_of(folder)

    def _read(self, model_id: ModelId, name: str, limit: int) -> bytes:
        with self._opened(model_id) as folder, _file_of(folder, name) as file:
            return file.read(limit)

    def _read_copy(self, model_id: ModelId, fingerprint: Fingerprint, limits: Mapping[str, int]) -> dict[str, bytes]:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(self._opened(model_id))
            files = {name: stack.enter_context(_file_of(folder, name)) for name in limits}
            # Open files stay readable whatever is published meanwhile. They are one copy if their names led to it
            # before and lead to it still.
            if _fingerprint_of(folder) != fingerprint:
                raise FilesChanged("the model's files are being written; finish their upload")
            return {name: file.read(limits[name]) for name, file in files.items()}

    def _opened(self, model_id: ModelId) -> OpenFolder:
        try:
            return OpenFolder(self._root, model_id)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ModelNotFound("no model has this runId") from error

    def _has_manifest(self, model_id: ModelId) -> bool:
        try:
            return _persistently(lambda: self._manifest_is_a_file(model_id))
        except ServingError:
            return False

    def _manifest_is_a_file(self, model_id: ModelId) -> bool:
        with self._opened(model_id) as folder:
            return stat.S_ISREG(folder.status(MANIFEST_FILE).st_mode)


def _file_of(folder: OpenFolder, name: str) -> OpenFile:
    try:
        return folder.open(name)
    except FileNotFoundError as error:
        raise ModelIncomplete(f"{name} of the model is missing; finish its upload") from error


def _fingerprint_of(folder: OpenFolder) -> Fingerprint:
    return Fingerprint(tuple(_identity(folder, name) for name in MODEL_FILES))


def _identity(folder: OpenFolder, name: str) -> FileIdentity | None:
    try:
        return FileIdentity.of(folder.status(name))
    except FileNotFoundError:
        return None


def _as_model_id(name: str) -> ModelId | None:
    try:
        return parse_model_id(name)
    except InvalidModelId:
        return None


def _persistently(look: Callable[[], Result]) -> Result:
    """Return what ``look`` finds: once more where the volume fails, and whenever the folder was replaced meanwhile."""
    may_fail = True
    while True:
        try:
            return look()
        except FolderReplaced:
            continue  # Each turn needs another publication, so there is an end.
        except OSError as error:
            if error.errno not in _TRANSIENT or not may_fail:
                raise _translated(error) from error
            may_fail = False


def _translated(error: OSError) -> ServingError:
    if isinstance(error, PermissionError):
        return ModelUnusable("a file of the model may not be read by the service; check its permissions")
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENXIO):
        return InvalidModelFile("a file of the model cannot be opened; publish the model again")
    return VolumeUnavailable("the model volume does not answer at the moment; try again")
