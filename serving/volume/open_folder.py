"""A model's folder, open: its files by name, read safely.

Links are followed as long as they stay below the root, because Kubernetes lays volumes out with them. A name that is no
link is opened from its folder and needs no resolving: one system call where a path takes one for each of its parts.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final, Self

from serving.domain.errors import FilesChanged, InvalidModelFile

# Without O_NONBLOCK, opening a FIFO waits for a writer that never comes.
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
# O_PATH, where there is one, needs no permission to list the folder.
_FOLDER: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
# What Linux says of a link that is not to be followed: as a file, and as a folder.
_IS_A_LINK: Final = frozenset({errno.ELOOP, errno.ENOTDIR})


class FolderReplaced(Exception):
    """Another folder has the name by now, or none: what was missing in this one may be in that."""


class OpenFolder:
    """A folder below ``root``, open until :meth:`__exit__`.

    Args:
        root: a real path.
        names: the parts of the way to it, neither ``.`` nor ``..``.

    Raises:
        FileNotFoundError: there is no such folder.
        NotADirectoryError: it is no folder.
        InvalidModelFile: it leads outside of the root.
        OSError: the volume does not answer.
    """

    def __init__(self, root: str, *names: str) -> None:
        self._root = root
        self._path = os.path.join(root, names[0])
        self._descriptor = self._opened(self._path, None)
        for name in names[1:]:
            parent = self._descriptor
            self._path = os.path.join(self._path, name)
            try:
                self._descriptor = self._opened(name, parent)
            finally:
                os.close(parent)

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
            FileNotFoundError: the folder, which has its name still, has no such file.
            FolderReplaced: it has no such file, nor its name.
            InvalidModelFile: the file leads outside of the root.
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
        """Raise FolderReplaced unless the folder's name leads to it still."""
        try:
            named = os.stat(self._path)
        except FileNotFoundError as error:
            raise FolderReplaced from error
        if not os.path.samestat(named, os.fstat(self._descriptor)):
            raise FolderReplaced

    def _resolved(self, name: str) -> str:
        return self._contained(os.path.join(self._path, name))

    def _contained(self, path: str) -> str:
        """Return the real path of ``path``; raise if it is not below the root."""
        real = os.path.realpath(path, strict=True)
        if os.path.commonpath((self._root, real)) != self._root:
            raise InvalidModelFile("a file of the model leads outside of the model folder")
        return real


class OpenFile:
    """A file of a model, open for one reading."""

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
            FilesChanged: it changed while it was read.
            InvalidModelFile: it is larger than ``limit`` bytes, or is no regular file.
            OSError: the volume does not answer.
        """
        before = os.fstat(self._descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise InvalidModelFile(f"{self._name} of the model is not a regular file")
        if before.st_size > limit:
            raise InvalidModelFile(f"{self._name} of the model is larger than the {limit} bytes that are read")
        data = _read_exactly(self._descriptor, before.st_size)
        if len(data) != before.st_size or _written(os.fstat(self._descriptor)) != _written(before):
            raise FilesChanged(f"{self._name} of the model is being written; finish its upload")
        return data


def _written(result: os.stat_result) -> tuple[int, int]:
    """Return what changes when a file is written to; its name may go to another file meanwhile."""
    return result.st_size, result.st_mtime_ns


def _read_exactly(descriptor: int, size: int) -> bytes:
    chunks: list[bytes] = []
    while size > 0 and (chunk := os.read(descriptor, size)):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
