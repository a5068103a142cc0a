"""Guard that takes back canaries beyond their bounds, without an operator.

Every frontend decides on the basis of its own counts. It stops sending calls to such a canary at once; then it writes
the release without the canary, and the other frontends follow. If the frontend cannot write the release, it keeps the
canary only from its own callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import structlog

from frontend.releases.bounds import BOUNDS, ReleaseBounds
from frontend.releases.known import KnownReleases
from frontend.releases.rollouts import OnTrial, Rollout
from frontend.releases.trials import Trials, why_beyond_bounds
from serving.call.tasks import Tasks
from serving.domain.errors import ReleaseConflict, ReleaseRefused, ServingError, VolumeReadOnly, VolumeUnavailable
from serving.domain.model_id import ModelId
from serving.domain.releases.changes import taken_back
from serving.domain.releases.release import Canary, Release

log = structlog.get_logger()

WriteRelease = Callable[[ModelId, Callable[[Release | None], Release]], Release]
"""Writes the changed release of a name, and returns it; blocks, and raises ServingError."""


class CanaryGuard:
    """Guard that judges canaries.

    Args:
        write: writes releases.
        known: is updated with each written release.
        trials: counts of versions on trial.
        bounds: bounds and times.
    """

    def __init__(
        self, write: WriteRelease, known: KnownReleases, trials: Trials, bounds: ReleaseBounds = BOUNDS
    ) -> None:
        self._bounds = bounds
        self._write_release = write
        self._known = known
        self._trials = trials
        # A hanging volume blocks only this thread, which no answer needs.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="taking back")
        self._writes = Tasks()

    def judge(self, rollout: Rollout, canary: OnTrial) -> None:
        """Take the canary back if its counts are beyond its bounds."""
        terms = canary.terms
        if rollout.canary is not canary or not isinstance(terms, Canary):
            # The canary was already taken back, or is no longer on trial.
            return
        reason = why_beyond_bounds(canary.counts, terms)
        if reason is None:
            return
        rollout.withdraw()
        self._trials.taken_back += 1
        log.warning("canary taken back", model=rollout.name, version=terms.version, reason=reason)
        self._writes.start(self._write(rollout.name, canary, reason))

    async def close(self) -> None:
        """Cancel writes in progress."""
        await self._writes.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _write(self, name: ModelId, canary: OnTrial, reason: str) -> None:
        def without(release: Release | None) -> Release:
            if release is None or release.canary != canary.terms:
                raise ReleaseRefused(f"{canary.terms.version} is no longer the canary")
            return taken_back(release, version=canary.terms.version, at=datetime.now(UTC), comment=reason)

        for seconds in (*self._bounds.retry_pauses_seconds, None):
            try:
                loop = asyncio.get_running_loop()
                release = await loop.run_in_executor(self._pool, self._write_release, name, without)
            except ReleaseRefused:
                return  # Another writer has already ended this canary.
            except (ReleaseConflict, VolumeUnavailable) as error:
                if seconds is None:
                    _log_unwritten(name, canary, str(error))
                    return
                await asyncio.sleep(seconds)
            except ServingError as error:
                _log_unwritten(name, canary, str(error), read_only=isinstance(error, VolumeReadOnly))
                return
            except Exception:
                log.exception("canary is taken back by this frontend alone: writing its release failed", model=name)
                return
            else:
                self._known.learn(name, release)
                return


def _log_unwritten(name: ModelId, canary: OnTrial, reason: str, *, read_only: bool = False) -> None:
    log.error(
        "canary is taken back by this frontend alone: its release could not be written",
        model=name,
        version=canary.terms.version,
        reason=reason,
        remedy="withdraw the canary where the volume is writable"
        if read_only
        else "withdraw the canary with intentctl, or roll back",
    )
