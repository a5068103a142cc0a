"""Takes canaries back that are beyond their bounds, without anybody's help.

Every frontend decides by its own counts. It gives such a canary no more calls at once; then it writes the release
without it, and the other frontends follow. Where it cannot write, it keeps the canary from its own callers alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

import structlog

from frontend.releases.known import KnownReleases
from frontend.releases.rollouts import OnTrial, Rollout
from frontend.releases.trials import Trials, why_beyond_bounds
from serving.domain.errors import ReleaseConflict, ReleaseRefused, ServingError, VolumeReadOnly, VolumeUnavailable
from serving.domain.model_id import ModelId
from serving.domain.releases.changes import taken_back
from serving.domain.releases.release import Canary, Release

log = structlog.get_logger()

_BREAKS_SECONDS: Final = (0.1, 0.5, 2.0)
"""Between tries, where somebody else changes the release, or the volume does not answer."""

Change = Callable[[ModelId, Callable[[Release | None], Release]], Release]
"""Writes what becomes of the release of a name, and returns it; blocks, and raises ServingError."""


class CanaryGuard:
    """Judges canaries.

    Args:
        change: writes releases.
        known: is told what was written.
        trials: counts.
    """

    def __init__(self, change: Change, known: KnownReleases, trials: Trials) -> None:
        self._change = change
        self._known = known
        self._trials = trials
        # A volume that hangs holds this thread, and none of those that answers need.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="taking back")
        self._writing: set[asyncio.Task[None]] = set()

    def judge(self, rollout: Rollout, canary: OnTrial) -> None:
        """Take the canary back where what was counted says so."""
        terms = canary.terms
        if rollout.canary is not canary or not isinstance(terms, Canary):
            # It has been taken back, or is on trial no more.
            return
        reason = why_beyond_bounds(canary.counts, terms)
        if reason is None:
            return
        rollout.withdraw()
        self._trials.taken_back += 1
        log.warning("canary taken back", model=rollout.name, version=terms.version, reason=reason)
        task = asyncio.get_running_loop().create_task(self._write(rollout.name, canary, reason))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """End what is being written."""
        writing = list(self._writing)
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _write(self, name: ModelId, canary: OnTrial, reason: str) -> None:
        def without(release: Release | None) -> Release:
            if release is None or release.canary != canary.terms:
                raise ReleaseRefused(f"{canary.terms.version} is no longer the canary")
            return taken_back(release, version=canary.terms.version, at=datetime.now(UTC), comment=reason)

        for seconds in (*_BREAKS_SECONDS, None):
            try:
                loop = asyncio.get_running_loop()
                release = await loop.run_in_executor(self._pool, self._change, name, without)
            except ReleaseRefused:
                return  # Somebody else has done it.
            except (ReleaseConflict, VolumeUnavailable) as error:
                if seconds is None:
                    _tell(name, canary, str(error))
                    return
                await asyncio.sleep(seconds)
            except ServingError as error:
                _tell(name, canary, str(error), read_only=isinstance(error, VolumeReadOnly))
                return
            except Exception:
                log.exception("canary is taken back here, and its release was not written", model=name)
                return
            else:
                self._known.learn(name, release)
                return


def _tell(name: ModelId, canary: OnTrial, reason: str, *, read_only: bool = False) -> None:
    log.error(
        "canary is taken back by this frontend alone: its release could not be written",
        model=name,
        version=canary.terms.version,
        reason=reason,
        do="withdraw the canary where the volume can be written"
        if read_only
        else "withdraw the canary with intentctl, or roll back",
    )
