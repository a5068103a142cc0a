"""Schedule of the checks that compare models with their files: many at a time, and usually while no caller waits.

If a model is in constant use, the answers after a check reflect its result. If answers waited for the check instead,
thousands of tenants with one query per second each would wait all the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from serving.call.tasks import Tasks, done_within
from serving.domain.model_id import ModelId

Subject = TypeVar("Subject")
Subject_contra = TypeVar("Subject_contra", contravariant=True)
Known = TypeVar("Known")

Changed: TypeAlias = Callable[[Sequence[tuple[ModelId, Known]]], Awaitable[Sequence[bool]]]
"""Returns for each model whether its files differ from the known ones. Raises TimeoutError if the comparison takes too
long, and nothing else."""

# This many take about a millisecond; then other users of the comparison get their turn.
_MOST_AT_ONCE: Final = 64


class OnLooked(Protocol[Subject_contra]):
    """Callback that receives the result of a check."""

    def __call__(self, subject: Subject_contra, /, *, changed: bool) -> None:
        """Handle the result for one subject. Called on the event loop."""


class FreshnessChecks(Generic[Subject, Known]):
    """Compares the known state of models with their files.

    Args:
        changed: the function that compares.
        on_looked: called with the result of each check.
        freshness_seconds: time for which a result is trusted, in seconds.
    """

    def __init__(
        self,
        changed: Changed[Known],
        on_looked: OnLooked[Subject],
        freshness_seconds: float,
    ) -> None:
        self._changed = changed
        self._on_looked = on_looked
        self._freshness_seconds = freshness_seconds
        self._wanted: dict[Subject, tuple[ModelId, Known]] = {}
        self._waiting: dict[Subject, asyncio.Future[bool | None]] = {}
        """Pending results of subjects that callers wait for: one per subject, however many callers wait and leave."""
        self._tasks = Tasks()
        self._looking: asyncio.Task[None] | None = None

    def may_serve(
        self,
        subject: Subject,
        model_id: ModelId,
        known: Known,
        checked_at: float,
        freshness_seconds: float | None = None,
    ) -> bool:
        """Return whether the subject, last checked at ``checked_at``, may be used before the next check.

        A check that is due runs in the background; after twice the freshness time, the check has to come first.
        ``freshness_seconds`` overrides the freshness time for this subject.
        """
        fresh = self._freshness_seconds if freshness_seconds is None else freshness_seconds
        age = time.monotonic() - checked_at
        if age < fresh:
            return True
        if age >= 2 * fresh:
            return False
        self.look(subject, model_id, known)
        return True

    def look(self, subject: Subject, model_id: ModelId, known: Known) -> None:
        """Schedule a check of the subject; a subject that is already scheduled is checked only once."""
        self._wanted.setdefault(subject, (model_id, known))
        if self._looking is None:
            self._looking = self._tasks.start(self._look())

    async def looked(self, subject: Subject, model_id: ModelId, known: Known, patience_seconds: float) -> bool | None:
        """Check the subject, and return whether its files have changed; ``None`` if no result arrives in time."""
        self.look(subject, model_id, known)
        found = self._waiting.get(subject)
        if found is None:
            found = self._waiting[subject] = asyncio.get_running_loop().create_future()
        return found.result() if await done_within(found, patience_seconds) else None

    async def close(self) -> None:
        """Stop all checks."""
        await self._tasks.close()

    async def _look(self) -> None:
        try:
            while self._wanted:
                subjects = [subject for subject, _ in zip(self._wanted, range(_MOST_AT_ONCE), strict=False)]
                changed = await self._changed_in_time([self._wanted[subject] for subject in subjects])
                for subject, has_changed in zip(subjects, changed, strict=True):
                    del self._wanted[subject]
                    if has_changed is not None:
                        self._on_looked(subject, changed=has_changed)
                    found = self._waiting.pop(subject, None)
                    if found is not None:
                        found.set_result(has_changed)
        finally:
            self._looking = None

    async def _changed_in_time(self, known: Sequence[tuple[ModelId, Known]]) -> Sequence[bool | None]:
        try:
            return await self._changed(known)
        except TimeoutError:
            # One of the files hangs. The next use of each subject schedules its check again, behind all others.
            return [None] * len(known)
