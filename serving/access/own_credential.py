"""The credential that a service itself calls others with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from serving.access.access_file import InvalidAccessFile, read_part
from serving.domain.errors import InvalidConnection
from serving.files.reloaded import Reloaded
from serving.wire.channels import AUTHORIZATION_KEY, bearer

Entry: TypeAlias = tuple[str, str]
"""Of metadata."""


class OwnCredential:
    """An API key, or a token, in a file of one line. A new one is sent soon after the file changes.

    Args:
        path: of the file.

    Raises:
        InvalidAccessFile: the file holds no credential.
    """

    def __init__(self, path: Path) -> None:
        self._reloaded = Reloaded(path, partial(_read, path))

    def metadata(self) -> Sequence[Entry]:
        """Return what is to be sent with a call."""
        return self._reloaded.value

    async def close(self) -> None:
        """Look at the file no more."""
        await self._reloaded.close()


def read_credential(path: Path) -> Sequence[Entry]:
    """Return what is to be sent with calls. Blocks.

    Raises:
        InvalidAccessFile: the file holds no credential.
    """
    text = read_part(path, "the file of the credential").decode("utf-8", "replace").strip()
    try:
        return ((AUTHORIZATION_KEY, bearer(text)),)
    except InvalidConnection as error:
        raise InvalidAccessFile(f"the file of the credential holds none: {error}") from None


def _read(path: Path) -> tuple[Sequence[Entry], Sequence[Path]]:
    return read_credential(path), (path,)
