"""When what is known of a model's files has to be compared with them: many at a time, and mostly while nobody waits.

Of a model that is asked for all the time the next answers show what a look finds. Would they wait for it, thousands of
tenants that are asked for once a second each would wait all the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from serving.domain.model_id import ModelId

Subject = TypeVar("Subject")
Subject_contra = TypeVar("Subject_contra", contravariant=True)
Known = TypeVar("Known")

Changed: TypeAlias = Callable[[Sequence[tuple[ModelId, Known]]], Awaitable[Sequence[bool]]]
"""Tells of models whether their files are others than those that are known. Raises TimeoutError where that cannot be
told in time, and nothing else."""

# So many take about a millisecond; then it is another's turn.
_MOST_AT_ONCE: Final = 64


class OnLooked(Protocol[Subject_contra]):
    """Takes in what a look found."""

    def __call__(self, subject: Subject_contra, /, *, changed: bool) -> None:
        """Called on the event loop."""


class FreshnessChecks(Generic[Subject, Known]):
    """Compares what is known of models with their files.

    Args:
        changed: compares.
        on_looked: told of every subject what was found.
        freshness_seconds: how long what was found is taken on trust.
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
        """What a look will have found, where somebody waits for it: one each, however many wait and leave."""
        self._looking: asyncio.Task[None] | None = None

    def may_serve(
        self,
        subject: Subject,
        model_id: ModelId,
        known: Known,
        checked_at: float,
        freshness_seconds: float | None = None,
    ) -> bool:
        """Return whether the subject, looked at last at ``checked_at``, may be used before it is looked at again.

        Where a look is due, it is taken in the background; after twice the time it has to come first.
        ``freshness_seconds`` may be another one for this subject.
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
        """Look soon; a subject that is to be looked at already is looked at once."""
        self._wanted.setdefault(subject, (model_id, known))
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def looked(self, subject: Subject, model_id: ModelId, known: Known, patience_seconds: float) -> bool | None:
        """Look, and return whether the files have changed; ``None`` where that takes longer than the patience."""
        self.look(subject, model_id, known)
        found = self._waiting.get(subject)
        if found is None:
            found = self._waiting[subject] = asyncio.get_running_loop().create_future()
        await asyncio.wait({found}, timeout=patience_seconds)
        return found.result() if found.done() else None

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

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
            # One of them hangs. The next time they are asked for they are looked at again, behind all others.
            return [None] * len(known)
