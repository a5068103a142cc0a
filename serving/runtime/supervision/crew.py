"""All workers of a service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import structlog

from serving.runtime.supervision.metrics.families import Family
from serving.runtime.supervision.metrics.merging import Merging
from serving.runtime.supervision.order import Order
from serving.runtime.supervision.process import WorkerProcess
from serving.runtime.supervision.times import Times
from serving.runtime.supervision.worker_slot import WorkerSlot
from serving.workers.board import Board

log = structlog.get_logger()

_FAILED: Final = 1


class Crew:
    """Starts the workers, and replaces those that end until all are to stop. Belongs to one event loop.

    Args:
        order: returns the order for the process of a slot and generation.
        board: board shared with the workers.
        environment: environment variables of the workers.
        times: time bounds.
        busiest: number of models whose metrics are exported.
    """

    def __init__(
        self,
        order: Callable[[int, int], Order],
        board: Board,
        environment: Mapping[str, str],
        times: Times,
        busiest: int,
    ) -> None:
        self._times = times
        self._merging = Merging(busiest)

        def start(index: int, generation: int) -> Awaitable[WorkerProcess]:
            return WorkerProcess.start(order(index, generation), environment)

        self._slots = [WorkerSlot(index, start, board, times, self._merging.retire) for index in range(board.workers)]
        self._keeping: Sequence[asyncio.Task[int]] = []

    @property
    def serving(self) -> int:
        """Number of workers that are ready."""
        return sum(slot.serves for slot in self._slots)

    @property
    def restarts(self) -> int:
        """Number of workers that replaced one that ended."""
        return sum(slot.restarts for slot in self._slots)

    def start(self) -> None:
        """Start the workers and begin to keep them running."""
        loop = asyncio.get_running_loop()
        self._keeping = [loop.create_task(slot.keep()) for slot in self._slots]

    async def wait_until_listening(self) -> str:
        """Return the address on which the workers listen, once each of them does.

        Raises:
            CannotStart: a worker cannot listen.
        """
        await self._unless_one_fails(slot.listened for slot in self._slots)
        return self._slots[0].address

    async def wait_until_ready(self) -> None:
        """Return once each worker has been ready.

        Raises:
            CannotStart: a worker cannot listen.
        """
        await self._unless_one_fails(slot.was_ready for slot in self._slots)

    async def metrics(self) -> Sequence[Family]:
        """Return the metrics of all workers. The sums include the last counts of workers that do not answer in time."""
        answers = await asyncio.gather(*map(self._metrics_of, range(len(self._slots))))
        scrapes = {
            index: families
            for index, (worker, families) in enumerate(answers)
            if families is not None and worker is self._slots[index].worker
        }
        return self._merging.merged(scrapes)

    def stop(self) -> None:
        """Have all workers drain and end; a second call has them end without waiting."""
        for slot in self._slots:
            slot.stop()

    async def wait_for_a_fault(self) -> None:
        """Return once a slot no longer keeps a worker although nothing stopped it: a bug, which is raised."""
        ended, _ = await asyncio.wait(self._keeping, return_when=asyncio.FIRST_COMPLETED)
        for keeping in ended:
            keeping.result()

    async def wait(self, patience: float) -> int:
        """Wait until all workers have ended; return 0 if each of them exited with 0. Late workers are killed.

        Args:
            patience: time that the workers have, in seconds.
        """
        _, late = await asyncio.wait(self._keeping, timeout=patience)
        if late:
            log.error("workers do not end; killing them", workers=len(late), after_seconds=patience)
        await self.close()
        ends = await asyncio.gather(*self._keeping, return_exceptions=True)
        return 0 if all(end == 0 for end in ends) else _FAILED

    async def close(self) -> None:
        """Kill the remaining workers at once."""
        for slot in self._slots:
            slot.kill()
        if self._keeping:
            await asyncio.wait(self._keeping)

    async def _metrics_of(self, index: int) -> tuple[WorkerProcess | None, Sequence[Family] | None]:
        """Return the process in a slot and the metrics that it exports; ``None`` for metrics if it does not answer."""
        worker = self._slots[index].worker
        if worker is None or not worker.listening.is_set():
            return worker, None
        families = await worker.metrics(self._times.metrics)
        # Recorded at once: others may take longer to answer, and this worker may end in the meantime.
        if families is not None and worker is self._slots[index].worker:
            self._merging.learn(index, families)
        return worker, families

    async def _unless_one_fails(self, events: Iterable[asyncio.Event]) -> None:
        """Return once all ``events`` are set. Raises CannotStart if a worker cannot start."""
        all_set = asyncio.get_running_loop().create_task(_all_set(events))
        waited: set[asyncio.Task[Any]] = {all_set, *self._keeping}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for keeping in self._keeping:
                if keeping.done():
                    keeping.result()
            await all_set
        finally:
            all_set.cancel()


async def _all_set(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        await event.wait()
