"""Access to the model volume from the event loop: blocking work runs in dedicated threads."""

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

# Listing thousands of models takes seconds; a description must not wait behind it.
_READERS: Final = 4


class Volume:
    """Threads for work on the volume. Calls in flight are bounded, and with them the work that waits for a thread.

    Args:
        inventory: lists names, versions and releases.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="management")
        # One writer, so that this frontend's changes never conflict with its own lock.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="releases")

    async def reading(
        self, read: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
    ) -> Result:
        """Run ``read`` in a thread and return its result. Raises what ``read`` raises."""
        work = self._readers.submit(read, *arguments, **keywords)
        return await asyncio.wrap_future(work)

    async def writing(
        self, write: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
    ) -> Result:
        """Run ``write`` in the only writing thread and return its result. Raises what ``write`` raises."""
        work = self._writer.submit(write, *arguments, **keywords)
        return await asyncio.wrap_future(work)

    async def release(self, name: ModelId) -> Release | None:
        """Return the current release of a name; ``None`` if it has none. Raises ServingError."""
        return await self.reading(self._inventory.release, name)

    async def existing_release(self, name: ModelId) -> Release | None:
        """Return the current release of a name; ``None`` if it has none.

        Raises:
            ModelNotFound: the name does not exist.
            ServingError: as :meth:`release` does.
        """
        return await self.reading(self._inventory.existing_release, name)

    async def resolved(self, run_id: str) -> ModelId:
        """Return the model that ``id``, ``name``, ``name@version`` or ``name@label`` currently means.

        A name alone means its stable version.

        Raises:
            InvalidModelId: ``run_id`` is none of these.
            ServingError: the model cannot be determined.
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
            ModelNotFound: the version does not exist.
        """
        if version not in await self.reading(self._inventory.version_names, name):
            raise ModelNotFound(f"the model has no version {version}; publish it first, as name@version")
        return versioned(name, version)

    def close(self) -> None:
        """Release the threads."""
        # A hanging volume must not block the shutdown.
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._writer.shutdown(wait=False, cancel_futures=True)
