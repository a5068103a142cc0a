"""One model at TorchServe, as one frontend knows it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from frontend.engines.torchserve.management import Described
from frontend.engines.torchserve.shared_looks import Looks
from serving.call.deadline import Deadline
from serving.call.tasks import Tasks
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId

# These names have no "@": a qualified name is never a model's own name, and its first "@" precedes the model id.
_OWN_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")
_NAMELESS: Final = "model"


class Key(NamedTuple):
    """Identity of a registration: a model with another version in its manifest is registered again."""

    model_id: ModelId
    name: str
    """``<ModelName>-<ModelVersion>``; empty if the manifest does not have both."""

    @classmethod
    def of(cls, model_id: ModelId, manifest: Manifest) -> Key:
        """Return the key of a model."""
        own = f"{manifest.model_name}-{manifest.model_version}"
        both = manifest.model_name and manifest.model_version
        return cls(model_id, own if both and _OWN_NAME.fullmatch(own) else "")

    @property
    def names(self) -> Sequence[str]:
        """Names to register the model under; the first free one is used."""
        qualified = f"{self.name or _NAMELESS}@{self.model_id}"
        return (self.name, qualified) if self.name else (qualified,)

    @property
    def url(self) -> str:
        """The model's archive in TorchServe's model store."""
        return f"model-{self.model_id}.mar"


@dataclass(frozen=True, slots=True)
class Registered:
    """A registration that was found, or made, at TorchServe."""

    name: str
    version: str
    """Version of the archive."""
    workers: frozenset[tuple[str, str]]
    takes_documents: bool

    def is_still(self, key: Key, described: Sequence[Described]) -> bool:
        """Return whether ``described`` contains this registration, with the archive of ``key``."""
        return any(
            found.url == key.url and found.version == self.version and bool(found.workers & self.workers)
            for found in described
        )


class Registration:
    """A model that is registered at TorchServe, or about to be. Belongs to one event loop.

    Args:
        key: identifies the registration.
        describe: returns what TorchServe has under the name and version of a registration.
        tasks: owns the calls of ``describe``.
    """

    def __init__(
        self, key: Key, describe: Callable[[Registered], Awaitable[Sequence[Described]]], tasks: Tasks
    ) -> None:
        self.key = key
        self.registered: Registered | None = None
        """Current registration; ``None`` if the model is not known to be registered."""
        self.last: Registered | None = None
        """Last known registration."""
        self.owned = False
        """Whether this frontend registered the model, or is about to."""
        self.work: asyncio.Task[None] | None = None
        """Work under way: registering, or unregistering."""
        self.askers = 0
        """Number of callers that query the model, or wait to query it."""
        self.idle = asyncio.Event()
        """Set while no caller waits for an answer from TorchServe."""
        self.idle.set()
        self._in_flight = 0
        self._describe = describe
        self._looks = Looks(self._look, tasks)

    async def is_still(self, registered: Registered, deadline: Deadline) -> bool:
        """Return whether a check of TorchServe that begins after this call finds the same registration as before.

        Raises:
            Unavailable: TorchServe cannot be called.
            DeadlineExceeded: TorchServe did not answer in time.
        """
        return registered.is_still(self.key, await self._looks.begun_from_now(deadline))

    def begin(self) -> None:
        """Begin registering: from now on this frontend owns the registration."""
        self.owned, self.last = True, None

    def found(self, registered: Registered) -> None:
        """Record that the model is registered."""
        if self.last is not None and not self.last.workers & registered.workers:
            # Another client has since registered the model, for example after a restart.
            self.owned = False
        self.registered = self.last = registered

    def doubt(self) -> None:
        """Treat the model as not known to be registered, until it is looked up again."""
        self.registered = None

    def end(self) -> None:
        """Record that the model is no longer registered."""
        self.registered = self.last = None
        self.owned = False

    def send(self) -> None:
        """Count a caller that queries TorchServe."""
        self._in_flight += 1
        self.idle.clear()

    def receive(self) -> None:
        """Count a caller that TorchServe has answered, or that no longer waits."""
        self._in_flight -= 1
        if not self._in_flight:
            self.idle.set()

    @property
    def is_unused(self) -> bool:
        """Whether no caller uses the registration, and no work is under way."""
        return not self.askers and self.work is None

    async def _look(self) -> Sequence[Described]:
        return () if self.last is None else await self._describe(self.last)
