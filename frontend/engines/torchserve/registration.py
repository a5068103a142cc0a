"""One model at TorchServe, as one frontend knows it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from frontend.engines.torchserve.management import Described
from frontend.engines.torchserve.shared import Looks
from serving.call.deadline import Deadline
from serving.call.tasks import Tasks
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId

# These names have no "@": what is qualified is nobody's own name, and behind its first "@" stands the model id.
_OWN_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")
_NAMELESS: Final = "model"


class Key(NamedTuple):
    """What tells registrations apart: with another version in its manifest a model is registered anew."""

    model_id: ModelId
    name: str
    """``<ModelName>-<ModelVersion>``; empty where the manifest does not have both."""

    @classmethod
    def of(cls, model_id: ModelId, manifest: Manifest) -> Key:
        """Return the key of a model."""
        own = f"{manifest.model_name}-{manifest.model_version}"
        both = manifest.model_name and manifest.model_version
        return cls(model_id, own if both and _OWN_NAME.fullmatch(own) else "")

    @property
    def names(self) -> Sequence[str]:
        """The names to register the model under, the first that is free."""
        qualified = f"{self.name or _NAMELESS}@{self.model_id}"
        return (self.name, qualified) if self.name else (qualified,)

    @property
    def url(self) -> str:
        """The model's archive in TorchServe's model store."""
        return f"model-{self.model_id}.mar"


@dataclass(frozen=True, slots=True)
class Registered:
    """What was found, or made, at TorchServe."""

    name: str
    version: str
    """Of the archive."""
    workers: frozenset[tuple[str, str]]
    takes_documents: bool

    def is_still(self, key: Key, described: Sequence[Described]) -> bool:
        """Return whether ``described`` shows this registration, and of this archive."""
        return any(
            found.url == key.url and found.version == self.version and bool(found.workers & self.workers)
            for found in described
        )


class Registration:
    """A model at TorchServe, or on its way there. Belongs to one event loop.

    Args:
        key: tells it apart.
        describe: asks TorchServe for what is registered as this is.
        tasks: owns the asking.
    """

    def __init__(
        self, key: Key, describe: Callable[[Registered], Awaitable[Sequence[Described]]], tasks: Tasks
    ) -> None:
        self.key = key
        self.registered: Registered | None = None
        """``None`` where it is not known to be registered."""
        self.last: Registered | None = None
        """What was known last."""
        self.owned = False
        """Whether this frontend has registered it, or is about to."""
        self.work: asyncio.Task[None] | None = None
        """What is under way: registering, or unregistering."""
        self.askers = 0
        """How many ask it, or wait to ask it."""
        self.idle = asyncio.Event()
        """Set while TorchServe owes nobody an answer."""
        self.idle.set()
        self._in_flight = 0
        self._describe = describe
        self._looks = Looks(self._look, tasks)

    async def is_still(self, registered: Registered, deadline: Deadline) -> bool:
        """Return whether TorchServe, asked from now on, has the same registration as before.

        Raises:
            Unavailable: it cannot be asked.
            DeadlineExceeded: it did not answer in time.
        """
        return registered.is_still(self.key, await self._looks.begun_from_now(deadline))

    def begin(self) -> None:
        """Register it: from now on it is this frontend's."""
        self.owned, self.last = True, None

    def found(self, registered: Registered) -> None:
        """Know it to be registered."""
        if self.last is not None and not self.last.workers & registered.workers:
            # Somebody else has registered it since, as after a restart.
            self.owned = False
        self.registered = self.last = registered

    def doubt(self) -> None:
        """Know nothing, until it is asked for again."""
        self.registered = None

    def end(self) -> None:
        """It is not registered any more."""
        self.registered = self.last = None
        self.owned = False

    def send(self) -> None:
        """Count somebody who asks TorchServe."""
        self._in_flight += 1
        self.idle.clear()

    def receive(self) -> None:
        """Count somebody whom TorchServe has answered, or who waits no longer."""
        self._in_flight -= 1
        if not self._in_flight:
            self.idle.set()

    @property
    def is_unused(self) -> bool:
        """Return whether nobody asks it, and nothing is under way."""
        return not self.askers and self.work is None

    async def _look(self) -> Sequence[Described]:
        return () if self.last is None else await self._describe(self.last)
