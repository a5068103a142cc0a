"""What tells a file from the one that stood in its place before. Imports nothing that takes long."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self


class FileIdentity(NamedTuple):
    """Changes whenever a file is replaced or written to.

    A tuple, because thousands are compared, and written out, in a second.
    """

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

    @classmethod
    def at(cls, path: str | Path) -> Self | None:
        """Return the identity of the file that is there now, behind links; ``None`` where there is none to be seen."""
        try:
            return cls.of(os.stat(path))
        except OSError:
            return None


def have_changed(files: Iterable[tuple[str, FileIdentity | None]]) -> bool:
    """Return whether one of the paths leads to another file than it did, or cannot be seen."""
    return not all(_is_still(path, file) for path, file in files)


def _is_still(path: str, file: FileIdentity | None) -> bool:
    """Return whether ``path`` leads to this file, or to none if there was none; False if the path cannot be read."""
    try:
        return FileIdentity.of(os.stat(path)) == file
    except FileNotFoundError:
        return file is None
    except OSError:
        return False
