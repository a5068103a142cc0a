"""Threads for calls that may hang, which hold up neither other calls nor the end of the interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, ParamSpec, TypeVar

from serving.domain.causes import detached
from serving.domain.errors import ServingError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_MOST_IDLE: Final = 4

_Jobs = SimpleQueue[Callable[[], None] | None]


class DaemonThreads:
    """Runs each call in a thread of its own, an idle one if there is one. The caller bounds how many run at once.

    Belongs to one event loop.

    Args:
        name: name of the threads.
        most_idle: maximum number of threads that are kept for further calls.
    """

    def __init__(self, name: str, most_idle: int = _MOST_IDLE) -> None:
        self._name = name
        self._most_idle = most_idle
        self._idle: list[_Jobs] = []
        self._closed = False

    async def run(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """Return what ``function`` returns. If the caller is cancelled, the thread runs on without it.

        A ServingError of the function is raised without its traceback, and with its cause as text.
        """
        return await self.begin(function, *arguments, **named)

    def begin(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> asyncio.Future[Result]:
        """Begin a call, and return the future of its result."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Result] = loop.create_future()
        jobs = self._idle.pop() if self._idle else self._started()

        def ended(value: Result | None, error: BaseException | None) -> None:
            self._rest(jobs)
            if result.done():
                return
            if error is None:
                result.set_result(value)  # type: ignore[arg-type]
            else:
                result.set_exception(error)

        def job() -> None:
            try:
                end = functools.partial(ended, function(*arguments, **named), None)
            except ServingError as error:
                # The traceback would keep what the function has read until the garbage collector runs.
                end = functools.partial(ended, None, detached(error))
            except BaseException as error:  # noqa: BLE001
                end = functools.partial(ended, None, error)
            # The service may have ended in the meantime.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(end)
            # This frame is part of the error's traceback.
            del end

        jobs.put(job)
        return result

    def close(self) -> None:
        """End the idle threads now, and the others once their calls return."""
        self._closed = True
        while self._idle:
            self._idle.pop().put(None)

    def _started(self) -> _Jobs:
        jobs: _Jobs = SimpleQueue()
        threading.Thread(target=self._work, args=(jobs,), name=self._name, daemon=True).start()
        return jobs

    def _work(self, jobs: _Jobs) -> None:
        # The event loop may be gone when the last call returns.
        while not self._closed and (job := jobs.get()) is not None:
            job()
            del job  # an idle thread holds no model

    def _rest(self, jobs: _Jobs) -> None:
        if self._closed or len(self._idle) >= self._most_idle:
            jobs.put(None)
        else:
            self._idle.append(jobs)
