"""The keys that TorchServe's token authorization asks for, as it writes them into its ``key_file.json``.

A key is good for 60 minutes, or for what ``token_expiration_min`` of TorchServe's configuration says. TorchServe makes
a new one when it starts, and when it is asked to with the API key, over HTTP; it writes the file anew each time. Making
a new key ends the one before, for everybody, so that is left to TorchServe's operator. The frontend reads the file when
TorchServe refuses a key.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

import structlog

from frontend.engines.torchserve.shared import Looks
from serving.call.deadline import Deadline
from serving.call.tasks import Tasks

log = structlog.get_logger()

Metadata = tuple[tuple[str, str], ...]


class Api(Enum):
    """An API with a key of its own, by its name in the file."""

    INFERENCE = "inference"
    MANAGEMENT = "management"


class Keys:
    """Knows the keys as they were when the file was last read.

    Args:
        file: the file; ``None`` where no keys are needed.
        tasks: owns what reads it.
    """

    def __init__(self, file: Path | None, tasks: Tasks) -> None:
        self._metadata: Mapping[Api, Metadata] = {}
        self._looks = None if file is None else Looks(functools.partial(self._read, file), tasks)

    def metadata(self, api: Api) -> Metadata:
        """Return what goes with a call of ``api``."""
        return self._metadata.get(api, ())

    async def changed(self, api: Api, refused: Metadata, deadline: Deadline) -> bool:
        """Return whether there is another key than the one in ``refused``, after reading the file again.

        Raises:
            DeadlineExceeded: the file was not read by then.
        """
        if self._looks is not None and self.metadata(api) == refused:
            await self._looks.begun_from_now(deadline)
        return self.metadata(api) != refused

    async def _read(self, file: Path) -> None:
        try:
            # It may be on a volume that hangs.
            text = await asyncio.to_thread(file.read_text, "utf-8")
            document = json.loads(text)
            self._metadata = {api: (("authorization", f"Bearer {document[api.value]['key']}"),) for api in Api}
        except (OSError, ValueError, KeyError, TypeError) as error:
            # TorchServe may be writing it.
            log.warning("TorchServe's key file cannot be read", reason=type(error).__name__)
