"""The keys that TorchServe's token authorization requires, as TorchServe writes them to its ``key_file.json``.

A key is valid for 60 minutes, or for the time that ``token_expiration_min`` in TorchServe's configuration sets.
TorchServe makes a new key when it starts, and when a client requests one with the API key, over HTTP; each time it
rewrites the file. A new key invalidates the previous one for all clients, so making one is left to TorchServe's
operator. The frontend reads the file when TorchServe refuses a key.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

import structlog

from frontend.engines.torchserve.shared_looks import Looks
from serving.call.deadline import Deadline
from serving.call.tasks import Tasks

log = structlog.get_logger()

Metadata = tuple[tuple[str, str], ...]


class Api(Enum):
    """An API with its own key. The value is the name of the API in the file."""

    INFERENCE = "inference"
    MANAGEMENT = "management"


class Keys:
    """The keys as of the last read of the file.

    Args:
        file: the key file; ``None`` if no keys are needed.
        tasks: owns the reads of the file.
    """

    def __init__(self, file: Path | None, tasks: Tasks) -> None:
        self._metadata: Mapping[Api, Metadata] = {}
        self._looks = None if file is None else Looks(functools.partial(self._read, file), tasks)

    def metadata(self, api: Api) -> Metadata:
        """Return the metadata to send with a call of ``api``."""
        return self._metadata.get(api, ())

    async def changed(self, api: Api, refused: Metadata, deadline: Deadline) -> bool:
        """Return whether there is a key other than the one in ``refused``, after reading the file again if needed.

        Raises:
            DeadlineExceeded: the file was not read in time.
        """
        if self._looks is not None and self.metadata(api) == refused:
            await self._looks.begun_from_now(deadline)
        return self.metadata(api) != refused

    async def _read(self, file: Path) -> None:
        try:
            # The file may be on a volume that hangs.
            text = await asyncio.to_thread(file.read_text, "utf-8-sig")
            document = json.loads(text)
            self._metadata = {api: (("authorization", f"Bearer {document[api.value]['key']}"),) for api in Api}
        except (OSError, ValueError, KeyError, TypeError) as error:
            # TorchServe may be writing the file.
            log.warning("TorchServe's key file cannot be read", reason=type(error).__name__)
