"""Registrations of models at TorchServe, and the guarantee that an answer is from the model that was queried.

Names clash: the book's pipeline calls every model "intent" and its version "1.0", frontends share a TorchServe, and
TorchServe may be restarted, or called by other clients, at any time. So a name alone identifies no model.

Guarantee: an answer is returned only if TorchServe described the name before the query was sent, and again after the
answer arrived, each time with the archive ``model-<model id>.mar`` and with one worker that is the same, and if neither
connection to TorchServe changed in between. TorchServe never gives two registrations the same worker, so the same
registration held the name throughout, and the answer is from this registration. An answer without this evidence is
discarded, and the model is looked up, or registered, and queried once more.

Assumptions: an archive is named after its model, and a worker is identified by its number and the millisecond in which
it was first started. The check after an answer is shared: all answers that have arrived wait for the next check.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import structlog
from cachetools import TTLCache

from frontend.engines.torchserve.management import Described, Management
from frontend.engines.torchserve.options import TorchServeOptions
from frontend.engines.torchserve.registration import Key, Registered, Registration
from serving.call.deadline import Deadline
from serving.call.tasks import Tasks, joined
from serving.domain.errors import (
    DeadlineExceeded,
    InvalidModelFile,
    ModelUnusable,
    OutOfCapacity,
    ServingError,
    Unavailable,
    copy_for_raise,
    deadline_passed,
)

log = structlog.get_logger()

# Each attempt to start a broken worker costs TorchServe seconds.
_REFUSED_SECONDS: Final = 5.0
_MAX_REFUSED: Final = 4096
_LOOK_SECONDS: Final = 10.0


_Work = Callable[[Registration, Deadline], Coroutine[Any, Any, None]]


class Registrations:
    """The registrations that this frontend uses, the most recently used last.

    Args:
        management: calls the management API of TorchServe.
        options: maximum number of registered models, and time limit for registering a model.
        tasks: owns the work under way.
    """

    def __init__(self, management: Management, options: TorchServeOptions, tasks: Tasks) -> None:
        self._management = management
        self._options = options
        self._tasks = tasks
        self._registrations: OrderedDict[Key, Registration] = OrderedDict()
        self._refused: TTLCache[Key, ServingError] = TTLCache(_MAX_REFUSED, _REFUSED_SECONDS)

    def known(self, key: Key) -> Registered | None:
        """Return the known registration of a model; ``None`` if the model must be looked up, or registered."""
        registration = self._registrations.get(key)
        return None if registration is None else registration.registered

    async def enter(self, key: Key, deadline: Deadline) -> tuple[Registration, Registered]:
        """Return a model's registration, which is kept until :meth:`leave`.

        All callers share one lookup and one registration; a caller that leaves ends neither.

        Raises:
            ModelUnusable: TorchServe cannot serve the model; the message says why.
            OutOfCapacity: too many models are registered, and all are in use.
            Unavailable: TorchServe cannot be called, or the model is not ready in time.
            DeadlineExceeded: the deadline passed first.
        """
        registration = self._registration(key)
        self._registrations.move_to_end(key)
        registration.askers += 1
        try:
            while (registered := registration.registered) is None:
                deadline.check()
                await joined(registration.work or self._begin(registration), deadline)
        except BaseException:
            self._release(registration)
            raise
        registration.send()
        return registration, registered

    def leave(self, registration: Registration) -> None:
        """Release a registration."""
        registration.receive()
        self._release(registration)

    def doubt(self, registration: Registration, registered: Registered) -> None:
        """Look up a registration again before the next query: it was not the expected one."""
        if registration.registered is registered:
            registration.doubt()

    def doubt_all(self) -> None:
        """Look up each registration again before its next query: the server may be a different one."""
        for registration in list(self._registrations.values()):
            registration.doubt()
            self._drop_if_unused(registration)

    async def unload(self, key: Key, deadline: Deadline) -> None:
        """Unregister a model, whoever registered it, once its queries in flight are answered.

        Raises:
            Unavailable: TorchServe cannot be called.
            DeadlineExceeded: the deadline passed first.
        """
        for each in {key, *(other for other in self._registrations if other.model_id == key.model_id)}:
            self._refused.pop(each, None)
            registration = self._registration(each)
            registration.askers += 1
            try:
                while registration.work is not None:
                    deadline.check()
                    await asyncio.wait({registration.work}, timeout=deadline.remaining())
                registration.doubt()
                await joined(self._start(registration, self._unload), deadline)
            finally:
                self._release(registration)

    def _registration(self, key: Key) -> Registration:
        registration = self._registrations.get(key)
        if registration is None:
            registration = self._registrations[key] = Registration(key, self._described, self._tasks)
        return registration

    def _release(self, registration: Registration) -> None:
        registration.askers -= 1
        self._drop_if_unused(registration)

    def _drop_if_unused(self, registration: Registration) -> None:
        if registration.is_unused and registration.registered is None and not registration.owned:
            self._registrations.pop(registration.key, None)

    def _begin(self, registration: Registration) -> asyncio.Task[None]:
        refusal = self._refused.get(registration.key)
        if refusal is not None:
            raise copy_for_raise(refusal) from refusal.__cause__
        return self._start(registration, self._make)

    def _start(self, registration: Registration, work: _Work) -> asyncio.Task[None]:
        registration.work = self._tasks.start(self._do(registration, work))
        return registration.work

    async def _do(self, registration: Registration, work: _Work) -> None:
        try:
            await work(registration, Deadline.after(self._options.registration_seconds))
        except DeadlineExceeded as error:
            raise Unavailable("TorchServe did not register or unregister the model in time; try again") from error
        finally:
            registration.work = None
            self._drop_if_unused(registration)

    async def _described(self, last: Registered) -> Sequence[Described]:
        return await self._management.describe(last.name, Deadline.after(_LOOK_SECONDS), last.version)

    async def _make(self, registration: Registration, deadline: Deadline) -> None:
        try:
            for name in registration.key.names:
                registered = await self._found_or_made(registration, name, deadline)
                if registered is not None:
                    registration.found(registered)
                    return
        except InvalidModelFile as error:
            self._refused[registration.key] = copy_for_raise(error)
            raise
        raise ModelUnusable("other models at TorchServe have the model's names; unregister the other models there")

    async def _found_or_made(self, registration: Registration, name: str, deadline: Deadline) -> Registered | None:
        """Return the registration under ``name``; ``None`` if the name belongs to another model."""
        url = registration.key.url
        found = await self._management.describe(name, deadline)
        mine = _of_archive(url, found)
        if mine is None:
            if found:
                return None
            mine = await self._made(registration, name, deadline)
            if mine is None:
                return None
        if not mine.workers:
            await self._give_workers(registration, name, mine, deadline)
            mine = _of_archive(url, await self._management.describe(name, deadline))
        if mine is None or not mine.workers:
            raise Unavailable("the model was unregistered at TorchServe meanwhile; try again")
        documents = await self._management.takes_documents(name, mine.version, deadline)
        return Registered(name, mine.version, mine.workers, documents)

    async def _made(self, registration: Registration, name: str, deadline: Deadline) -> Described | None:
        """Register a model under a free name. Return ``None`` if another model took the name meanwhile.

        No other model is evicted before it is certain that the archive exists.
        """
        url = registration.key.url
        was_free = await self._management.register(name, url, deadline)
        found = await self._management.describe(name, deadline)
        mine = _of_archive(url, found)
        if mine is None and not found:
            raise Unavailable("the model was unregistered at TorchServe meanwhile; try again")
        if mine is not None and was_free:
            try:
                await self._take_place(registration, deadline)
            except ServingError:
                await self._clear_away(name, url, deadline)
                raise
        return mine

    async def _give_workers(
        self, registration: Registration, name: str, described: Described, deadline: Deadline
    ) -> None:
        try:
            await self._management.start_workers(name, described.version, deadline)
        except ModelUnusable:
            await self._clear_away(name, described.url, deadline)
            registration.end()
            raise

    async def _clear_away(self, name: str, url: str, deadline: Deadline) -> None:
        """Unregister a model that does not start, so that TorchServe stops trying, and a new archive can replace it."""
        try:
            left = _of_archive(url, await self._management.describe(name, deadline))
            if left is not None and not left.is_ready:
                await self._management.unregister(name, left.version, deadline)
        except ServingError as error:
            log.warning("model that does not start is still registered at TorchServe", name=name, reason=str(error))

    async def _take_place(self, registration: Registration, deadline: Deadline) -> None:
        """Take ownership of the registration; if too many are owned, evict the least recently used idle one.

        Raises:
            OutOfCapacity: all other models are in use.
        """
        others = [other for other in self._registrations.values() if other.owned and other is not registration]
        leaving = next((other for other in others if other.is_unused), None)
        if len(others) < self._options.most_models:
            registration.begin()
            return
        if leaving is None:
            raise OutOfCapacity("every model that may be registered at TorchServe is in use; try again shortly")
        registration.begin()
        leaving.doubt()
        try:
            await joined(self._start(leaving, self._evict), deadline)
        except ServingError:
            registration.end()
            raise

    async def _evict(self, registration: Registration, deadline: Deadline) -> None:
        """Unregister a model that this frontend registered, if the registration is still the same."""
        last = registration.last
        for name in registration.key.names if last is None else (last.name,):
            found = await self._management.describe(name, deadline)
            mine = _of_archive(registration.key.url, found)
            if mine is not None and (last is None or last.is_still(registration.key, found)):
                await self._management.unregister(name, mine.version, deadline)
                log.info("model unregistered at TorchServe", model=registration.key.model_id, name=name)
        registration.end()

    async def _unload(self, registration: Registration, deadline: Deadline) -> None:
        try:
            async with asyncio.timeout(deadline.remaining()):
                await registration.idle.wait()
        except TimeoutError as error:
            raise deadline_passed() from error
        for name in registration.key.names:
            mine = _of_archive(registration.key.url, await self._management.describe(name, deadline))
            if mine is not None:
                await self._management.unregister(name, mine.version, deadline)
        registration.end()


def _of_archive(url: str, described: Sequence[Described]) -> Described | None:
    return next((found for found in described if found.url == url), None)
