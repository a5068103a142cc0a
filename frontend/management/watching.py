"""Tells watchers what changes on the volume. It is looked at only while somebody watches, by one for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

import structlog

from frontend.management.scanning import Seen, differences, everything, scan
from frontend.management.volume import Volume
from serving.call.tasks import joined
from serving.domain.errors import INTERNAL_MESSAGE, OutOfCapacity, ServingError
from serving.domain.management import ModelChange, ReleaseState
from serving.domain.model_id import VERSION_MARK, ModelId
from serving.domain.releases.release import Release
from serving.volume.model_store import ModelStore

log = structlog.get_logger()

_INTERVAL_SECONDS: Final = 1.0
# Of thousands of models a look takes long: it may keep a thread busy for a tenth of the time at most.
_REST: Final = 9.0
_MOST_UNREAD: Final = 1024


class ModelWatch:
    """Watches models and releases for any number of callers.

    Args:
        store: where models are.
        volume: looks at it in a thread.
        interval_seconds: between two looks, at least.
        most_unread: changes that a watcher may leave unread.
    """

    def __init__(
        self,
        store: ModelStore,
        volume: Volume,
        *,
        interval_seconds: float = _INTERVAL_SECONDS,
        most_unread: int = _MOST_UNREAD,
    ) -> None:
        self._store = store
        self._volume = volume
        self._interval_seconds = interval_seconds
        self._most_unread = most_unread
        self._watchers: set[_Watcher] = set()
        self._scanner: _Scanner | None = None

    async def changes(
        self, prefix: str, may_use: Callable[[str], bool], *, initial: bool
    ) -> AsyncGenerator[ModelChange, None]:
        """Give what changes from now on, until the caller leaves.

        Args:
            prefix: of the names that are meant.
            may_use: whether the caller may see a name.
            initial: begin with all that there is, and say when that has been told.

        Raises:
            VolumeUnavailable: the volume cannot be looked at in the first place.
            OutOfCapacity: the caller reads too slowly.
        """
        watcher = _Watcher(lambda name: name.startswith(prefix) and may_use(name), self._most_unread)
        self._watchers.add(watcher)
        try:
            if self._scanner is None:
                self._scanner = _Scanner(self._store, self._volume, self._interval_seconds, self._tell)
            present = await self._scanner.first_look()
            watcher.begin()
            if initial:
                for change in everything(present):
                    if watcher.is_meant(change):
                        yield change
                yield ModelChange("synchronized")
            while True:
                yield await watcher.next()
        finally:
            self._watchers.discard(watcher)
            if not self._watchers and self._scanner is not None:
                self._scanner.stop()
                self._scanner = None

    def released(self, name: ModelId, release: Release) -> None:
        """Tell at once of a release that this frontend has written."""
        if self._scanner is not None:
            self._scanner.learn(name, release)

    def look_now(self) -> None:
        """Look before it is time to: this frontend has changed something."""
        if self._scanner is not None:
            self._scanner.look_now()

    def _tell(self, change: ModelChange) -> None:
        for watcher in self._watchers:
            watcher.tell(change)


class _Watcher:
    """What one caller has not read yet."""

    def __init__(self, is_meant: Callable[[str], bool], most_unread: int) -> None:
        self._is_meant = is_meant
        self._most_unread = most_unread
        self._unread: asyncio.Queue[ModelChange] = asyncio.Queue(most_unread)
        self._began = False
        self._is_late = False

    def is_meant(self, change: ModelChange) -> bool:
        """Return whether the caller wants to know of this, and may."""
        return self._is_meant(change.model_id.partition(VERSION_MARK)[0])

    def begin(self) -> None:
        """Take in what happens from now on."""
        self._began = True

    def tell(self, change: ModelChange) -> None:
        """Take this in."""
        if not self._began or self._is_late or not self.is_meant(change):
            return
        if self._unread.full():
            self._is_late = True
            log.info("watcher reads too slowly", unread=self._most_unread)
            return
        self._unread.put_nowait(change)

    async def next(self) -> ModelChange:
        """Return the next change.

        Raises:
            OutOfCapacity: there were more than the caller read.
        """
        if self._is_late:
            raise OutOfCapacity("more has changed than was read; read faster, and begin anew with all that there is")
        return await self._unread.get()


class _Scanner:
    """Looks at the volume again and again, until it is stopped.

    Args:
        store: where models are.
        volume: looks at it in a thread.
        interval_seconds: between two looks, at least.
        tell: is told of each change.
    """

    def __init__(
        self, store: ModelStore, volume: Volume, interval_seconds: float, tell: Callable[[ModelChange], None]
    ) -> None:
        self._store = store
        self._volume = volume
        self._interval_seconds = interval_seconds
        self._tell = tell
        self._present: Mapping[ModelId, Seen] = {}
        self._learned: dict[ModelId, Release] = {}
        """What was told of already, until a look has seen it."""
        self._due = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._first: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._run())

    async def first_look(self) -> Mapping[ModelId, Seen]:
        """Return what there was at the last look, of which there has been one at least.

        Raises:
            VolumeUnavailable: the volume could not be looked at.
        """
        await joined(self._first)
        return self._present

    def learn(self, name: ModelId, release: Release) -> None:
        """Tell of a release that was written."""
        if self._is_news(name, release) and not _has_seen(self._present.get(name), release):
            self._learned[name] = release
            self._tell(ModelChange("released", name, ReleaseState(name, release)))

    def look_now(self) -> None:
        """Look before it is time to."""
        self._due.set()

    def stop(self) -> None:
        """End. What a thread is at is left to itself."""
        self._task.cancel()

    async def _run(self) -> None:
        try:
            while True:
                began = time.monotonic()
                self._due.clear()
                await self._look()
                took = time.monotonic() - began
                try:
                    async with asyncio.timeout(max(self._interval_seconds, _REST * took)):
                        await self._due.wait()
                except TimeoutError:
                    continue
        finally:
            if not self._first.done():
                self._first.cancel()

    async def _look(self) -> None:
        try:
            present = await self._volume.reading(scan, self._store, self._present)
            changes = await self._volume.reading(_listed, self._present, present)
        except ServingError as error:
            if not self._first.done():
                self._first.set_exception(error)
            log.warning("volume cannot be watched at the moment", reason=str(error))
            return
        except Exception:
            # A bug: watchers have to hear that they see nothing.
            log.exception("watching failed")
            if not self._first.done():
                self._first.set_exception(ServingError(INTERNAL_MESSAGE))
            return
        self._present = present
        if not self._first.done():
            self._first.set_result(None)
            return
        for change in changes:
            if change.release is None or self._is_news(ModelId(change.model_id), change.release.release):
                self._tell(change)
        self._learned = {
            name: release for name, release in self._learned.items() if not _has_seen(present.get(name), release)
        }

    def _is_news(self, name: ModelId, release: Release | None) -> bool:
        told = self._learned.get(name)
        return told is None or release is None or release.revision > told.revision


def _listed(former: Mapping[ModelId, Seen], present: Mapping[ModelId, Seen]) -> list[ModelChange]:
    return list(differences(former, present))


def _has_seen(seen: Seen | None, release: Release) -> bool:
    return seen is not None and seen.release is not None and seen.release.revision >= release.revision
