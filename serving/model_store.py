"""The shared volume: a model id to the files of its folder, read safely.

Layout: ``ROOT/<model id>/{manifest.json, model.pth, vocab.pth}``. Links are followed as long as they stay below the
root, because Kubernetes lays volumes out with them.
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
        return _with_one_more_try(lambda: self._fingerprint(model_id))

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
        return _with_one_more_try(lambda: self._read(model_id, name, limit))

    def read_copy(self, model_id: ModelId, fingerprint: Fingerprint, limits: Mapping[str, int]) -> dict[str, bytes]:
        """Return the files named in ``limits`` of the copy of the model that has the identity ``fingerprint``.

        Raises:
            FilesChanged: the model is another copy by now, or a file changed while it was read.
            ServingError: as :meth:`read` does.
        """
        return _with_one_more_try(lambda: self._read_copy(model_id, fingerprint, limits))

    def read_manifest(self, model_id: ModelId) -> Manifest:
        """Return the model's manifest. Raises as :meth:`read` does, and InvalidManifest."""
        return Manifest.parse(self.read(model_id, MANIFEST_FILE, MAX_MANIFEST_BYTES))

    def _fingerprint(self, model_id: ModelId) -> Fingerprint:
        folder = self._folder(model_id)
        return Fingerprint(tuple(self._identity(folder, name) for name in MODEL_FILES))

    def _identity(self, folder: str, name: str) -> FileIdentity | None:
        try:
            return _identity_of(os.stat(self._contained(folder, name)))
        except FileNotFoundError:
            return None

    def _read(self, model_id: ModelId, name: str, limit: int) -> bytes:
        with self._opened(self._folder(model_id), name) as file:
            return file.read(limit)

    def _read_copy(self, model_id: ModelId, fingerprint: Fingerprint, limits: Mapping[str, int]) -> dict[str, bytes]:
        folder = self._folder(model_id)
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context(self._opened(folder, name)) for name in limits}
            # Open files stay readable whatever is published meanwhile. They are one copy if their names led to it
            # before and lead to it still.
            if Fingerprint(tuple(_identity_at(folder, name) for name in MODEL_FILES)) != fingerprint:
                raise FilesChanged("the model's files are being written; finish their upload")
            return {name: file.read(limits[name]) for name, file in files.items()}

    def _opened(self, folder: str, name: str) -> _OpenFile:
        try:
            return _OpenFile(name, self._contained(folder, name))
        except FileNotFoundError as error:
            raise ModelIncomplete(f"{name} of the model is missing; finish its upload") from error

    def _folder(self, model_id: ModelId) -> str:
        try:
            folder = self._contained(self._root, model_id)
        except FileNotFoundError as error:
            raise ModelNotFound("no model has this runId") from error
        if not os.path.isdir(folder):
            raise ModelNotFound("no model has this runId")
        return folder

    def _contained(self, folder: str, name: str) -> str:
        """Return the real path of ``name`` in ``folder``; raise if it is not below the root."""
        path = os.path.realpath(os.path.join(folder, name), strict=True)
        if os.path.commonpath((self._root, path)) != self._root:
            raise InvalidModelFile("a file of the model leads outside of the model folder")
        return path

    def _has_manifest(self, model_id: ModelId) -> bool:
        try:
            return os.path.isfile(self._contained(self._contained(self._root, model_id), MANIFEST_FILE))
        except (OSError, InvalidModelFile):
            return False


class _OpenFile:
    """A file of a model, open for one reading."""

    def __init__(self, name: str, path: str) -> None:
        self._name = name
        # Without O_NONBLOCK, opening a FIFO waits for a writer that never comes.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, limit: int) -> bytes:
        """Return the whole file. Raises as :meth:`ModelStore.read` does."""
        before = os.fstat(self._descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise InvalidModelFile(f"{self._name} of the model is not a regular file")
        if before.st_size > limit:
            raise InvalidModelFile(f"{self._name} of the model is larger than the {limit} bytes that are read")
        data = _read_exactly(self._descriptor, before.st_size)
        if len(data) != before.st_size or _written(os.fstat(self._descriptor)) != _written(before):
            raise FilesChanged(f"{self._name} of the model is being written; finish its upload")
        return data


def _identity_of(result: os.stat_result) -> FileIdentity:
    return FileIdentity(result.st_dev, result.st_ino, result.st_size, result.st_mtime_ns, result.st_ctime_ns)


def _written(result: os.stat_result) -> tuple[int, int]:
    """Return what changes when a file is written to; its name may go to another file meanwhile."""
    return result.st_size, result.st_mtime_ns


def _identity_at(folder: str, name: str) -> FileIdentity | None:
    """Return the identity of a file that is known to be contained, or is only compared with one that is."""
    try:
        return _identity_of(os.stat(os.path.join(folder, name)))
    except FileNotFoundError:
        return None


def _read_exactly(descriptor: int, size: int) -> bytes:
    chunks: list[bytes] = []
    while size > 0 and (chunk := os.read(descriptor, size)):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _as_model_id(name: str) -> ModelId | None:
    try:
        return parse_model_id(name)
    except InvalidModelId:
        return None


def _with_one_more_try(operation: Callable[[], Result]) -> Result:
    try:
        return operation()
    except OSError as error:
        if error.errno not in _TRANSIENT:
            raise _translated(error) from error
    try:
        return operation()
    except OSError as error:
        raise _translated(error) from error


def _translated(error: OSError) -> ServingError:
    if isinstance(error, PermissionError):
        return ModelUnusable("a file of the model may not be read by the service; check its permissions")
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENXIO):
        return InvalidModelFile("a file of the model cannot be opened; publish the model again")
    return VolumeUnavailable("the model volume does not answer at the moment; try again")
