"""Open folder of a model, whose files are read safely by name.

Links are followed as long as they stay below the root, because Kubernetes uses links in its volumes. A name that is
not a link is opened relative to its folder and needs no resolving: one system call instead of one per part of a path.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final, Self

from serving.domain.errors import FilesChanged, InvalidModelFile
from serving.volume import model_folder

# Without O_NONBLOCK, opening a FIFO waits for a writer that never comes.
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
# O_PATH, where available, needs no permission to list the folder.
_FOLDER: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
# Errors of Linux for a link that must not be followed: opened as a file, and as a folder.
_IS_A_LINK: Final = frozenset({errno.ELOOP, errno.ENOTDIR})


class FolderReplaced(Exception):
    """The folder, or the root, has been replaced: what is missing here may be in the other folder."""


class OpenFolder:
    """A folder below ``root``, open until :meth:`__exit__`.

    Args:
        root: path of the root; its links are followed now, and once for everything that is read here.
        names: the parts of the path from the root to the folder, neither ``.`` nor ``..``.

    Raises:
        FileNotFoundError: no such folder exists.
        NotADirectoryError: the path does not lead to a folder.
        FolderReplaced: no such folder exists, and the root has been replaced.
        ModelFolderUnavailable: the root leads nowhere, or access is denied.
        InvalidModelFile: the folder leads outside the root.
        OSError: the volume does not answer.
    """

    def __init__(self, root: str, *names: str) -> None:
        self._given_root = root
        self._root = model_folder.resolved(root)
        try:
            self._descriptor = self._descend(names)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            self._expect_root()
            raise

    def _descend(self, names: tuple[str, ...]) -> int:
        self._path = os.path.join(self._root, names[0])
        descriptor = self._opened(self._path, None)
        for name in names[1:]:
            parent = descriptor
            self._path = os.path.join(self._path, name)
            try:
                descriptor = self._opened(name, parent)
            finally:
                os.close(parent)
        return descriptor

    def _opened(self, name: str, parent: int | None) -> int:
        try:
            return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        except OSError as error:
            if error.errno not in _IS_A_LINK:
                raise
            self._path = self._contained(self._path)
            return os.open(self._path, _FOLDER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def status(self, name: str) -> os.stat_result:
        """Return the status of the file ``name``.

        Raises:
            FileNotFoundError: the folder still has its name, but no such file.
            FolderReplaced: the folder has no such file, and has lost its name, or the root has been replaced.
            ModelFolderUnavailable: the root is gone.
            InvalidModelFile: the file leads outside the root.
            OSError: the volume does not answer.
        """
        try:
            status = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
            return os.stat(self._resolved(name)) if stat.S_ISLNK(status.st_mode) else status
        except FileNotFoundError:
            self._expect_its_name()
            raise

    def open(self, name: str) -> OpenFile:
        """Open the file ``name`` for reading. Raises as :meth:`status` does."""
        try:
            return OpenFile(name, self._descriptor_of(name))
        except FileNotFoundError:
            self._expect_its_name()
            raise

    def _descriptor_of(self, name: str) -> int:
        try:
            return os.open(name, _FILE | os.O_NOFOLLOW, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno not in _IS_A_LINK:
                raise
        return os.open(self._resolved(name), _FILE)

    def _expect_its_name(self) -> None:
        """Raise FolderReplaced unless the folder's name still leads to it."""
        self._expect_root()
        try:
            named = os.stat(self._path)
        except FileNotFoundError as error:
            raise FolderReplaced from error
        if not os.path.samestat(named, os.fstat(self._descriptor)):
            raise FolderReplaced

    def _expect_root(self) -> None:
        """Raise FolderReplaced if another root is in place, and ModelFolderUnavailable if none can be read."""
        if model_folder.resolved(self._given_root) != self._root:
            raise FolderReplaced
        model_folder.enter(self._root)

    def _resolved(self, name: str) -> str:
        return self._contained(os.path.join(self._path, name))

    def _contained(self, path: str) -> str:
        """Return the real path of ``path``; raise InvalidModelFile if the path is not below the root."""
        real = os.path.realpath(path, strict=True)
        if os.path.commonpath((self._root, real)) != self._root:
            self._expect_root()
            raise InvalidModelFile("a file of the model links to outside the model folder; publish the model again")
        return real


class OpenFile:
    """A file of a model, open for a single read."""

    def __init__(self, name: str, descriptor: int) -> None:
        self._name = name
        self._descriptor = descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, limit: int) -> bytes:
        """Return the whole file.

        Raises:
            FilesChanged: the file changed while it was being read.
            InvalidModelFile: the file is larger than ``limit`` bytes, or is not a regular file.
            OSError: the volume does not answer.
        """
        before = os.fstat(self._descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise InvalidModelFile(f"{self._name} of the model is not a regular file")
        if before.st_size > limit:
            raise InvalidModelFile(f"{self._name} of the model is larger than the limit of {limit} bytes")
        data = _read_exactly(self._descriptor, before.st_size)
        if len(data) != before.st_size or _written(os.fstat(self._descriptor)) != _written(before):
            raise FilesChanged(f"{self._name} of the model is being written; finish its upload")
        return data


def _written(result: os.stat_result) -> tuple[int, int]:
    """Return the values that change when a file is written to, but not when its name moves to another file."""
    return result.st_size, result.st_mtime_ns


def _read_exactly(descriptor: int, size: int) -> bytes:
    chunks: list[bytes] = []
    while size > 0 and (chunk := os.read(descriptor, size)):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
