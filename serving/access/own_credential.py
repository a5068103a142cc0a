"""The credential with which a service itself calls other services."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from intent_serving_client.channels import bearer
from intent_serving_client.metadata import AUTHORIZATION_KEY
from serving.access.access_file import InvalidAccessFile, read_part
from serving.domain.errors import InvalidConnection
from serving.files.reloaded import Reloaded

Entry: TypeAlias = tuple[str, str]
"""An entry of metadata: key and value."""


class OwnCredential:
    """An API key or a token in a file of one line. After the file changes, the new credential is soon in use.

    Args:
        path: path of the file.

    Raises:
        InvalidAccessFile: the file holds no credential.
    """

    def __init__(self, path: Path) -> None:
        self._reloaded = Reloaded(path, partial(_read, path))

    def metadata(self) -> Sequence[Entry]:
        """Return the metadata to send with a call."""
        return self._reloaded.value

    async def close(self) -> None:
        """Stop watching the file."""
        await self._reloaded.close()


def read_credential(path: Path) -> Sequence[Entry]:
    """Return the metadata that carries the credential in the file. Blocks.

    Raises:
        InvalidAccessFile: the file holds no credential.
    """
    text = read_part(path, "the credential file").decode("utf-8", "replace").strip()
    try:
        return ((AUTHORIZATION_KEY, bearer(text)),)
    except InvalidConnection as error:
        raise InvalidAccessFile(f"the credential file cannot be used: {error}") from None


def _read(path: Path) -> tuple[Sequence[Entry], Sequence[Path]]:
    return read_credential(path), (path,)
