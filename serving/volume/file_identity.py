"""Identity of a file, which differs from that of a former file at the same path. Imports nothing that loads slowly."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self


class FileIdentity(NamedTuple):
    """Identity of a file, which changes whenever the file is replaced or written to.

    A tuple, because thousands are compared and serialized per second.
    """

    device: int
    inode: int
    size: int
    modified_nanoseconds: int
    changed_nanoseconds: int
    """Time of the last status change; also changes with permissions, and if a writer resets the modification time."""

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Return the identity of the file with this status."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @classmethod
    def at(cls, path: str | Path) -> Self | None:
        """Return the identity of the file now at ``path``, following links; ``None`` if no file can be seen there."""
        try:
            return cls.of(os.stat(path))
        except OSError:
            return None


def have_changed(files: Iterable[tuple[str, FileIdentity | None]]) -> bool:
    """Return whether any path leads to another file than before, or cannot be read."""
    return not all(_is_still(path, file) for path, file in files)


def _is_still(path: str, file: FileIdentity | None) -> bool:
    """Return whether ``path`` still leads to this file, or still to none; False if the path cannot be read."""
    try:
        return FileIdentity.of(os.stat(path)) == file
    except FileNotFoundError:
        return file is None
    except OSError:
        return False
