"""Notifies watchers of changes on the volume. One scanner scans the volume for all watchers, while there are any."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

import structlog

from frontend.management.scanning import Seen, differences, everything, scan
from frontend.management.volume import Volume
from serving.call.tasks import Tasks, joined
from serving.domain.errors import INTERNAL_MESSAGE, OutOfCapacity, ServingError
from serving.domain.management import ModelChange, ReleaseState
from serving.domain.model_id import VERSION_MARK, ModelId
from serving.domain.releases.release import Release
from serving.domain.releases.views import view_of
from serving.volume.model_store import ModelStore

log = structlog.get_logger()

_INTERVAL_SECONDS: Final = 1.0
# A scan of thousands of models takes long: scans may keep a thread busy for at most a tenth of the time.
_REST: Final = 9.0
_MOST_UNREAD: Final = 1024


class ModelWatch:
    """Watches models and releases for any number of callers.

    Args:
        store: the store of the models.
        volume: runs the scans in a thread.
        interval_seconds: shortest time between two scheduled scans, in seconds.
        most_unread: maximum number of changes that a watcher may leave unread.
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
        self._tasks = Tasks()
        self._scanner: _Scanner | None = None

    async def changes(
        self, prefix: str, may_use: Callable[[str], bool], *, initial: bool
    ) -> AsyncGenerator[ModelChange, None]:
        """Yield changes from now on, until the caller leaves.

        Args:
            prefix: prefix of the names to watch.
            may_use: returns whether the caller may see a name.
            initial: yield everything that exists first, followed by a change of the kind ``synchronized``.

        Raises:
            VolumeUnavailable: the first scan of the volume failed.
            OutOfCapacity: the caller reads too slowly.
        """
        watcher = _Watcher(lambda name: name.startswith(prefix) and may_use(name), self._most_unread)
        self._watchers.add(watcher)
        try:
            if self._scanner is None:
                self._scanner = _Scanner(self._store, self._volume, self._interval_seconds, self._notify, self._tasks)
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
        """Notify watchers at once of a release that this frontend has written."""
        if self._scanner is not None:
            self._scanner.learn(name, release)

    def look_now(self) -> None:
        """Scan before the next scheduled scan: this frontend has changed something."""
        if self._scanner is not None:
            self._scanner.look_now()

    def _notify(self, change: ModelChange) -> None:
        for watcher in self._watchers:
            watcher.notify(change)


class _Watcher:
    """Changes that one caller has not read yet."""

    def __init__(self, is_meant: Callable[[str], bool], most_unread: int) -> None:
        self._is_meant = is_meant
        self._most_unread = most_unread
        self._unread: asyncio.Queue[ModelChange] = asyncio.Queue(most_unread)
        self._began = False
        self._is_late = False

    def is_meant(self, change: ModelChange) -> bool:
        """Return whether the caller watches the name of the changed model, and may see it."""
        return self._is_meant(change.model_id.partition(VERSION_MARK)[0])

    def begin(self) -> None:
        """Accept changes from now on."""
        self._began = True

    def notify(self, change: ModelChange) -> None:
        """Queue the change for the caller, if it is meant for the caller."""
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
            OutOfCapacity: the caller left too many changes unread.
        """
        if self._is_late:
            raise OutOfCapacity("too many changes are unread; watch again, beginning with all models, and read faster")
        return await self._unread.get()


class _Scanner:
    """Scans the volume repeatedly, until it is stopped.

    Args:
        store: the store of the models.
        volume: runs the scans in a thread.
        interval_seconds: shortest time between two scheduled scans, in seconds.
        notify: called with each change.
        tasks: owns the scans.
    """

    def __init__(
        self,
        store: ModelStore,
        volume: Volume,
        interval_seconds: float,
        notify: Callable[[ModelChange], None],
        tasks: Tasks,
    ) -> None:
        self._store = store
        self._volume = volume
        self._interval_seconds = interval_seconds
        self._notify = notify
        self._present: Mapping[ModelId, Seen] = {}
        self._learned: dict[ModelId, Release] = {}
        """Releases that were reported already, until a scan has seen them."""
        self._due = asyncio.Event()
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = tasks.start(self._run())

    async def first_look(self) -> Mapping[ModelId, Seen]:
        """Return the result of the last scan, once the first scan has ended.

        Raises:
            VolumeUnavailable: the first scan of the volume failed.
        """
        await joined(self._first)
        return self._present

    def learn(self, name: ModelId, release: Release) -> None:
        """Report a release that was written, unless it is known already."""
        if self._is_news(name, release.revision) and not _has_seen(self._present.get(name), release):
            self._learned[name] = release
            self._notify(ModelChange("released", name, ReleaseState(name, view_of(release))))

    def look_now(self) -> None:
        """Scan before the next scheduled scan."""
        self._due.set()

    def stop(self) -> None:
        """Stop scanning. A scan that runs in a thread is not interrupted."""
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
                self._fail_first(error)
            log.warning("volume cannot be watched at the moment", reason=str(error))
            return
        except Exception:
            # A bug: watchers must get an error, because they see no changes.
            log.exception("watching the volume failed")
            if not self._first.done():
                self._fail_first(ServingError(INTERNAL_MESSAGE))
            return
        self._present = present
        if not self._first.done():
            self._first.set_result(None)
            return
        for change in changes:
            if change.release is None or self._is_news(ModelId(change.model_id), change.release.revision):
                self._notify(change)
        self._learned = {
            name: release for name, release in self._learned.items() if not _has_seen(present.get(name), release)
        }

    def _fail_first(self, error: ServingError) -> None:
        self._first.set_exception(error)
        # Watchers may have left meanwhile, and asyncio logs errors that no caller retrieves.
        self._first.exception()

    def _is_news(self, name: ModelId, revision: int) -> bool:
        learned = self._learned.get(name)
        return learned is None or not revision or revision > learned.revision


def _listed(former: Mapping[ModelId, Seen], present: Mapping[ModelId, Seen]) -> list[ModelChange]:
    return list(differences(former, present))


def _has_seen(seen: Seen | None, release: Release) -> bool:
    return seen is not None and seen.release is not None and seen.release.revision >= release.revision
