"""The model volume, for the event loop: what blocks on it goes to threads of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from serving.domain.errors import ModelNotFound
from serving.domain.model_id import ModelId, parse_model_id, reference_of, versioned
from serving.domain.releases.release import Release
from serving.volume.inventory import Inventory

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# Listing thousands of models takes seconds: nobody's description waits behind it.
_READERS: Final = 4


class Volume:
    """Reads the volume in threads. Calls in flight are bounded, and with them what waits for a thread.

    Args:
        inventory: what there is.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="management")
        # One writer: what this frontend changes never meets its own lock.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="releases")

    async def reading(
        self, read: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
    ) -> Result:
        """Return what ``read`` returns, from a thread. Raises what it raises."""
        work = self._readers.submit(read, *arguments, **keywords)
        return await asyncio.wrap_future(work)

    async def writing(
        self, write: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
    ) -> Result:
        """Return what ``write`` returns, from the one thread that changes anything. Raises what it raises."""
        work = self._writer.submit(write, *arguments, **keywords)
        return await asyncio.wrap_future(work)

    async def release(self, name: ModelId) -> Release | None:
        """Return the release of a name as it is now; ``None`` where it has none. Raises ServingError."""
        return await self.reading(self._inventory.release, name)

    async def existing_release(self, name: ModelId) -> Release | None:
        """Return the same of a name that is there. Raises ModelNotFound where it is not, and ServingError."""
        return await self.reading(self._inventory.existing_release, name)

    async def resolved(self, run_id: str) -> ModelId:
        """Return the model that ``id``, ``name``, ``name@version`` or ``name@label`` means now.

        Of a name it is the stable version.

        Raises:
            InvalidModelId: it is none of these.
            ServingError: it cannot be told.
        """
        model_id = parse_model_id(run_id)
        name, selector = reference_of(model_id)
        release = await self.release(name)
        if release is None:
            return model_id
        return versioned(name, release.version_of(selector or "stable"))

    async def version_of(self, name: ModelId, version: str) -> ModelId:
        """Return the model id of a version.

        Raises:
            ModelNotFound: there is no such version.
        """
        if version not in await self.reading(self._inventory.version_names, name):
            raise ModelNotFound(f"the model has no version {version}; publish it first, as name@version")
        return versioned(name, version)

    def close(self) -> None:
        """Give the threads back."""
        # A volume that hangs must not hang the end.
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._writer.shutdown(wait=False, cancel_futures=True)
