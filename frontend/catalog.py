"""Manifests by model id, remembered, and read again when the file changes.

All state belongs to one event loop; files are read in a pool of threads of its own.
"""

from __future__ import annotations

import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog
from cachetools import LRUCache, TTLCache

from serving.errors import ModelIncomplete, ModelNotFound, ServingError, TooManyLoads, again
from serving.looks import BackgroundLooks
from serving.manifest import Manifest
from serving.model_id import ModelId
from serving.model_store import MANIFEST_FILE, MODEL_FILES, FileIdentity, Fingerprint, ModelStore

log = structlog.get_logger()

_UNKNOWN_SECONDS: Final = 1.0
_MAX_UNKNOWN: Final = 65_536
_MAX_ENTRIES: Final = 10_000
_MAX_LOOKUPS: Final = 4096
_PATIENCE_SECONDS: Final = 0.1
_MANIFEST: Final = MODEL_FILES.index(MANIFEST_FILE)


@dataclass(slots=True, eq=False)
class _Entry:
    manifest: Manifest
    file: FileIdentity
    checked_at: float


class Catalog:
    """Looks manifests up.

    Args:
        store: where models are.
        threads: how many manifests are read at the same time.
        freshness_seconds: a manifest is compared with its file at most once in this time, when it is asked for.
    """

    def __init__(self, store: ModelStore, *, threads: int, freshness_seconds: float) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="catalog")
        self._entries: LRUCache[ModelId, _Entry] = LRUCache(_MAX_ENTRIES)
        self._unknown: TTLCache[ModelId, bool] = TTLCache(_MAX_UNKNOWN, _UNKNOWN_SECONDS)
        self._looks = BackgroundLooks(self._pool, self._has_changed, self._on_change, freshness_seconds)
        self._lookups: dict[ModelId, asyncio.Task[Manifest]] = {}

    async def manifest(self, model_id: ModelId) -> Manifest:
        """Return the model's manifest.

        While the volume does not answer, or a manifest is damaged, the one that is known stays in force.

        Raises:
            ModelNotFound: no model has this id; remembered for a second.
            ModelIncomplete: the model has no manifest yet.
            InvalidManifest: it cannot be understood.
            VolumeUnavailable: the volume does not answer, and the manifest is not known.
            TooManyLoads: too many are looked up.
        """
        entry = self._entries.get(model_id)
        if entry is not None and self._looks.may_serve(entry, model_id, entry.file, entry.checked_at):
            return entry.manifest
        if model_id in self._unknown:
            raise ModelNotFound("no model has this runId")
        lookup = self._lookups.get(model_id)
        if lookup is None and len(self._lookups) >= _MAX_LOOKUPS:
            raise TooManyLoads("too many models are looked up at the moment; try again shortly")
        if lookup is None:
            lookup = asyncio.get_running_loop().create_task(self._look_up(model_id, entry))
            self._lookups[model_id] = lookup
            lookup.add_done_callback(lambda _: self._lookups.pop(model_id, None))
        if entry is not None:
            # While the volume hangs, a manifest that is known need not wait for it.
            await asyncio.wait({lookup}, timeout=_PATIENCE_SECONDS)
            if not lookup.done():
                return entry.manifest
        try:
            # One caller that leaves must not take the answer from the others.
            return await asyncio.shield(lookup)
        except ServingError as error:
            raise again(error) from error.__cause__

    def _has_changed(self, model_id: ModelId, file: FileIdentity) -> bool:
        return not self._store.still_has(model_id, {MANIFEST_FILE: file})

    def _on_change(self, entry: _Entry, *, changed: bool) -> None:
        """Take in what a look in the background found: what has changed is looked up when it is asked for."""
        entry.checked_at = -math.inf if changed else time.monotonic()

    async def close(self) -> None:
        """End all look-ups."""
        lookups = list(self._lookups.values())
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)
        await self._looks.close()
        # A volume that hangs must not hang the end.
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, model_id: ModelId, known: _Entry | None) -> Manifest:
        try:
            entry = await asyncio.get_running_loop().run_in_executor(self._pool, self._current, model_id, known)
        except ModelNotFound:
            self._entries.pop(model_id, None)
            self._unknown[model_id] = True
            raise
        except ServingError as error:
            # The predictor serves its old copy on, and so must we: damaged, half written, or on a volume that fails.
            if known is None:
                raise
            log.warning("manifest cannot be read; the known one stays", model=model_id, reason=str(error))
            entry = known
        entry.checked_at = time.monotonic()
        self._entries[model_id] = entry
        return entry.manifest

    def _current(self, model_id: ModelId, known: _Entry | None) -> _Entry:
        """Return ``known`` if the file is still the one it was read from, else what the file says now."""
        file = _manifest_of(self._store.fingerprint(model_id))
        if known is not None and file == known.file:
            return known
        return _Entry(self._store.read_manifest(model_id), file, time.monotonic())


def _manifest_of(fingerprint: Fingerprint) -> FileIdentity:
    file = fingerprint.files[_MANIFEST]
    if file is None:
        raise ModelIncomplete(f"the model has no {MANIFEST_FILE} yet; finish its upload")
    return file
