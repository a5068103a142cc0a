"""Which models are registered at TorchServe, and that an answer is of the model that was asked.

Names clash: the book's pipeline calls every model "intent" and its version "1.0", frontends share a TorchServe, and it
may be restarted, and asked by others, at any time. So a name alone means nothing.

What is guaranteed: an answer is given only where TorchServe described the name before the question was sent, and again
after the answer had come, each time with the archive ``model-<model id>.mar`` and with one worker that is the same, and
where neither connection to TorchServe changed between. TorchServe gives no two registrations the same worker, so one
registration had the name all the while, and the answer is its. An answer of which this cannot be said is thrown away,
and the model is looked for, or registered, and asked once more.

What is relied on: an archive is called after its model, and a worker is told by its number and the millisecond in which
it was first started. The look behind an answer is shared: all answers that have come wait for the next one.
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
)

log = structlog.get_logger()

# A worker that does not start costs TorchServe seconds each time.
_REFUSED_SECONDS: Final = 5.0
_MAX_REFUSED: Final = 4096
_LOOK_SECONDS: Final = 10.0


_Work = Callable[[Registration, Deadline], Coroutine[Any, Any, None]]


class Registrations:
    """Knows the registrations that this frontend uses, the last used last.

    Args:
        management: what is asked of TorchServe.
        options: how many are kept, and how long registering may take.
        tasks: owns what is under way.
    """

    def __init__(self, management: Management, options: TorchServeOptions, tasks: Tasks) -> None:
        self._management = management
        self._options = options
        self._tasks = tasks
        self._registrations: OrderedDict[Key, Registration] = OrderedDict()
        self._refused: TTLCache[Key, ServingError] = TTLCache(_MAX_REFUSED, _REFUSED_SECONDS)

    def known(self, key: Key) -> Registered | None:
        """Return what is known of a model; ``None`` where it has to be looked for, or registered."""
        registration = self._registrations.get(key)
        return None if registration is None else registration.registered

    async def enter(self, key: Key, deadline: Deadline) -> tuple[Registration, Registered]:
        """Return a model's registration, which stays until :meth:`leave`.

        There is one search however many ask, and one registration; who leaves does not end it.

        Raises:
            ModelUnusable: TorchServe cannot serve the model; the message says why.
            OutOfCapacity: too many are registered, and all are in use.
            Unavailable: TorchServe cannot be asked, or the model is not up in time.
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
            self._unask(registration)
            raise
        registration.send()
        return registration, registered

    def leave(self, registration: Registration) -> None:
        """Let a registration go."""
        registration.receive()
        self._unask(registration)

    def doubt(self, registration: Registration, registered: Registered) -> None:
        """Look again before it is asked again: it was not what it was taken for."""
        if registration.registered is registered:
            registration.doubt()

    def doubt_all(self) -> None:
        """Look again at each before it is asked again: the server may be another one."""
        for registration in list(self._registrations.values()):
            registration.doubt()
            self._drop_if_unused(registration)

    async def unload(self, key: Key, deadline: Deadline) -> None:
        """Unregister a model, whoever registered it, once what was asked of it is answered.

        Raises:
            Unavailable: TorchServe cannot be asked.
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
                self._unask(registration)

    def _registration(self, key: Key) -> Registration:
        registration = self._registrations.get(key)
        if registration is None:
            registration = self._registrations[key] = Registration(key, self._described, self._tasks)
        return registration

    def _unask(self, registration: Registration) -> None:
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
            raise Unavailable("TorchServe is not done with the model in time; try again") from error
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
        raise ModelUnusable("the model's names at TorchServe are taken by other models; unregister these there")

    async def _found_or_made(self, registration: Registration, name: str, deadline: Deadline) -> Registered | None:
        """Return the registration under ``name``; ``None`` where that is another model's."""
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
        """Register a model under a name that nobody has. ``None`` where another model has it by now.

        No model has to go before it is known that there is an archive.
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
        """Unregister what does not start, so that TorchServe does not try on, and a new archive can take its place."""
        try:
            left = _of_archive(url, await self._management.describe(name, deadline))
            if left is not None and not left.is_ready:
                await self._management.unregister(name, left.version, deadline)
        except ServingError as error:
            log.warning("model that does not start stays registered at TorchServe", name=name, reason=str(error))

    async def _take_place(self, registration: Registration, deadline: Deadline) -> None:
        """Make it one of those that are kept; where there are too many, the least recently used has to go.

        Raises:
            OutOfCapacity: all others are in use.
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
        """Unregister what this frontend has registered, if it still is what it was."""
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
            raise DeadlineExceeded("the deadline of the call has passed") from error
        for name in registration.key.names:
            mine = _of_archive(registration.key.url, await self._management.describe(name, deadline))
            if mine is not None:
                await self._management.unregister(name, mine.version, deadline)
        registration.end()


def _of_archive(url: str, described: Sequence[Described]) -> Described | None:
    return next((found for found in described if found.url == url), None)
