"""The shared volume: reads the files in the folder of a model id safely.

Layout: ``ROOT/<model id>/{manifest.json, model.pth, vocab.pth}`` and, for names that have versions,
``ROOT/<name>/<version>/{manifest.json, model.pth, vocab.pth}`` beside ``ROOT/<name>/release.json``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from serving.domain.errors import (
    FilesChanged,
    InvalidModelFile,
    InvalidModelId,
    ModelFolderUnavailable,
    ModelIncomplete,
    ModelNotFound,
    ModelUnusable,
    ServingError,
    VolumeUnavailable,
    no_such_model,
)
from serving.domain.manifest import MAX_MANIFEST_BYTES, Manifest
from serving.domain.model_id import ModelId, parse_model_name, reference_of, versioned
from serving.domain.releases.release import MAX_RELEASE_BYTES, RELEASE_FILE, Release
from serving.volume import model_folder
from serving.volume.file_identity import FileIdentity
from serving.volume.open_folder import FolderReplaced, OpenFile, OpenFolder

Result = TypeVar("Result")

MANIFEST_FILE: Final = "manifest.json"
WEIGHTS_FILE: Final = "model.pth"
VOCABULARY_FILE: Final = "vocab.pth"
MODEL_FILES: Final = (MANIFEST_FILE, WEIGHTS_FILE, VOCABULARY_FILE)

SEALED_FILES: Final = (WEIGHTS_FILE, VOCABULARY_FILE)
"""Files whose sums in the manifest prove that all files belong to one copy."""

SETTLE_SECONDS: Final = 1.0
"""Time for which files that no checksums prove to be one copy must be unchanged, in seconds."""

_CANNOT_BE_LISTED: Final = "the model volume cannot be listed at the moment; try again"

# Errors of a network file system that lost the file behind an open name: worth one retry.
_TRANSIENT: Final = frozenset({errno.ESTALE, errno.EIO})


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """State of a model's folder at one moment; equal fingerprints mean the same copy of the model."""

    files: tuple[FileIdentity | None, ...]
    """Identity of each of :data:`MODEL_FILES`, in order; ``None`` for a missing file."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the missing files."""
        return tuple(name for name, file in zip(MODEL_FILES, self.files, strict=True) if file is None)


class ModelStore:
    """Reads model folders below ``root``. Every method blocks on the file system, and none keeps state.

    Every method follows the links in ``root`` again. While it leads nowhere, or cannot be read, all methods raise
    ModelFolderUnavailable.
    """

    def __init__(self, root: Path) -> None:
        # The separate process that compares files has a working directory of its own.
        self._root = str(root.absolute())

    def folders(self, name: ModelId | None = None) -> list[ModelId]:
        """Return the possible folders of models, or of the versions of ``name``, sorted. This is the cheapest listing.

        Raises:
            VolumeUnavailable: the volume cannot be listed.
        """
        return [each for text in _persistently(lambda: self._listed(name)) if (each := _as_name(text))]

    def model_ids(self) -> list[ModelId]:
        """Return the ids of all folders that have a manifest, sorted.

        Raises:
            VolumeUnavailable: the volume cannot be listed.
        """
        return [model_id for model_id in self.folders() if self._has(model_id, MANIFEST_FILE)]

    def names(self) -> list[ModelId]:
        """Return the names of all models, including those with versions, sorted.

        Raises:
            VolumeUnavailable: the volume cannot be listed.
        """
        return [name for name in self.folders() if self._has(name, MANIFEST_FILE) or self._has(name, RELEASE_FILE)]

    def versions(self, name: ModelId) -> list[ModelId]:
        """Return the model ids of the versions of ``name``, sorted; none if the name has no folder.

        Raises:
            VolumeUnavailable: the volume cannot be listed.
        """
        every = (versioned(name, version) for version in self.folders(name))
        return [model_id for model_id in every if self._has(model_id, MANIFEST_FILE)]

    def release_file(self, name: ModelId) -> FileIdentity | None:
        """Return the identity of the name's release file; ``None`` if the file or the folder is missing.

        Raises:
            ModelUnusable: the file leads outside the root, or access is denied.
            VolumeUnavailable: the volume failed twice.
        """
        try:
            return _persistently(lambda: self._identity(name, RELEASE_FILE))
        except ModelNotFound:
            return None

    def read_release(self, name: ModelId) -> Release:
        """Return the release of the name. Raises as :meth:`read` does, and InvalidRelease."""
        return Release.parse(self.read(name, RELEASE_FILE, MAX_RELEASE_BYTES))

    def fingerprint(self, model_id: ModelId) -> Fingerprint:
        """Return the identities of the model's files.

        Raises:
            ModelNotFound: no such folder exists.
            ModelUnusable: a file leads outside the root, or access is denied.
            VolumeUnavailable: the volume failed twice.
        """
        return _persistently(lambda: self._fingerprint(model_id))

    def known_files(
        self, model_id: ModelId, files: Mapping[str, FileIdentity | None]
    ) -> Sequence[tuple[str, FileIdentity | None]]:
        """Return the paths of the names in ``files``, each with the known identity of its file. Does not block.

        Comparing these files is the cheapest check of a model. A file that was known to be the model's remains so,
        wherever links lead; :meth:`fingerprint` reports more about everything else.
        """
        folder = os.path.join(self._root, *folders_of(model_id))
        return [(os.path.join(folder, name), file) for name, file in files.items()]

    def read(self, model_id: ModelId, name: str, limit: int) -> bytes:
        """Return the whole file ``name`` of the model.

        Raises:
            ModelNotFound: no such folder exists.
            ModelIncomplete: the folder has no such file.
            FilesChanged: the file changed while it was being read.
            ModelUnusable: the file is larger than ``limit`` bytes, is not a regular file, leads outside the root, or
                access is denied.
            VolumeUnavailable: the volume failed twice.
        """
        return _persistently(lambda: self._read(model_id, name, limit))

    def read_copy(self, model_id: ModelId, fingerprint: Fingerprint, limits: Mapping[str, int]) -> dict[str, bytes]:
        """Return the files named in ``limits`` from the copy of the model with this ``fingerprint``.

        Raises:
            FilesChanged: the model is another copy, or a file changed while it was being read.
            ServingError: as :meth:`read` does.
        """
        return _persistently(lambda: self._read_copy(model_id, fingerprint, limits))

    def read_manifest(self, model_id: ModelId) -> Manifest:
        """Return the model's manifest. Raises as :meth:`read` does, and InvalidManifest."""
        return Manifest.parse(self.read(model_id, MANIFEST_FILE, MAX_MANIFEST_BYTES))

    def _listed(self, name: ModelId | None) -> list[str]:
        root = model_folder.resolved(self._root)
        try:
            return sorted(os.listdir(root if name is None else os.path.join(root, name)))
        except (FileNotFoundError, NotADirectoryError):
            if model_folder.resolved(self._root) != root:
                raise FolderReplaced from None
            model_folder.enter(root)
            if name is not None:
                return []
            raise VolumeUnavailable(_CANNOT_BE_LISTED) from None
        except OSError as error:
            raise VolumeUnavailable(_CANNOT_BE_LISTED) from error

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
            # Open files stay readable whatever is published in the meantime. The files belong to one copy if their
            # names led to that copy before and still do.
            if _fingerprint_of(folder) != fingerprint:
                raise FilesChanged("the model's files are being written; finish their upload")
            return {name: file.read(limits[name]) for name, file in files.items()}

    def _opened(self, model_id: ModelId) -> OpenFolder:
        try:
            return OpenFolder(self._root, *folders_of(model_id))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise no_such_model(model_id) from error

    def _has(self, model_id: ModelId, name: str) -> bool:
        try:
            return _persistently(lambda: self._is_a_file(model_id, name))
        except ModelFolderUnavailable:
            raise
        except ServingError:
            return False

    def _is_a_file(self, model_id: ModelId, name: str) -> bool:
        with self._opened(model_id) as folder:
            return stat.S_ISREG(folder.status(name).st_mode)

    def _identity(self, model_id: ModelId, name: str) -> FileIdentity | None:
        with self._opened(model_id) as folder:
            return _identity(folder, name)


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


def folders_of(model_id: ModelId) -> tuple[str, ...]:
    """Return the folders on the path from the root to the model's own folder, which is the last."""
    name, version = reference_of(model_id)
    return (name, version) if version else (name,)


def _as_name(text: str) -> ModelId | None:
    try:
        return parse_model_name(text)
    except InvalidModelId:
        return None


def _persistently(look: Callable[[], Result]) -> Result:
    """Return the result of ``look``; retry once if the volume fails, and whenever the folder was just replaced."""
    may_fail = True
    while True:
        try:
            return look()
        except FolderReplaced:
            continue  # Each retry needs another publication, so the loop ends.
        except ModelFolderUnavailable:
            # A link that is removed and recreated, as by `ln -sfn`, leads nowhere for a moment.
            if not may_fail:
                raise
            may_fail = False
        except OSError as error:
            if error.errno not in _TRANSIENT or not may_fail:
                raise _translated(error) from error
            may_fail = False


def _translated(error: OSError) -> ServingError:
    if isinstance(error, PermissionError):
        return ModelUnusable("the service may not read a file of the model; check the permissions of the file")
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENXIO):
        return InvalidModelFile("a file of the model cannot be opened; publish the model again")
    return VolumeUnavailable("the model volume does not answer at the moment; try again")
