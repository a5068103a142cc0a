"""Any interleaving of acquire, release, publish, corrupt, remove, cancel keeps the model manager's promises."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from predictor.cache.model_manager import ManagerBounds, ModelManager
from predictor.cache.residency import Lease, ResidentModels
from serving.call.tasks import Tasks
from serving.domain.errors import InvalidModelFile, ServingError
from serving.domain.model_id import ModelId
from serving.volume.model_store import Fingerprint
from serving.volume.unknown_models import UnknownBounds
from tests.builders import PATIENCE, fingerprint_of
from tests.fakes.model_source import FakeModel, FakeSource

BUDGET = 100
MODELS = [ModelId(name) for name in "abcd"]


@dataclass(frozen=True)
class Taken:
    """Outcome of a caller: a lease or nothing. Each caller has one, because the next draw must not depend on timing."""

    lease: Lease[FakeModel] | None


IMPATIENT: Final = ManagerBounds(refresh_patience_seconds=0.001, unknown=UnknownBounds(0.001))
"""Bounds with a short wait for a newer copy: the gate is shut, so that each caller waits until its patience ends."""


class Interleavings(RuleBasedStateMachine):
    leases: Bundle[Taken] = Bundle("leases")
    callers: Bundle[asyncio.Task[Lease[FakeModel]]] = Bundle("callers")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.source = FakeSource(FakeModel)
        # Loads wait, so that any event can happen during a load.
        self.source.load_gate.shut()
        self.copy = 0
        self.published: set[tuple[ModelId, Fingerprint]] = set()
        self.residents: ResidentModels[FakeModel] = ResidentModels(max_bytes=BUDGET, max_models=3)
        self.tasks = Tasks()
        self.manager = ModelManager(
            self.source,
            self.residents,
            threads=2,
            max_loads=3,
            freshness_seconds=0.0,
            bounds=IMPATIENT,
            tasks=self.tasks,
        )
        self.held: set[Lease[FakeModel]] = set()
        self.asked: set[asyncio.Task[Lease[FakeModel]]] = set()

    @rule(model_id=st.sampled_from(MODELS), size=st.integers(1, 60), good=st.booleans())
    def publish(self, model_id: ModelId, size: int, *, good: bool) -> None:
        self.copy += 1
        copy = fingerprint_of(self.copy)
        self.source.files[model_id] = copy
        self.source.sizes[copy] = self.source.estimates[copy] = size
        if good:
            self.published.add((model_id, copy))
        else:
            self.source.faults[copy] = InvalidModelFile("this copy is damaged")

    @rule(model_id=st.sampled_from(MODELS))
    def remove(self, model_id: ModelId) -> None:
        self.source.files.pop(model_id, None)

    @rule(model_id=st.sampled_from(MODELS), target=callers)
    def ask(self, model_id: ModelId) -> asyncio.Task[Lease[FakeModel]]:
        task = self.loop.create_task(self.manager.acquire(model_id))
        self.asked.add(task)
        self.turn()
        return task

    @rule(task=callers)
    def cancel(self, task: asyncio.Task[Lease[FakeModel]]) -> None:
        task.cancel()
        self.turn()

    @rule()
    def let_loads_end(self) -> None:
        self.source.load_gate.open()
        self.settle()
        self.source.load_gate.shut()

    @rule(task=consumes(callers), target=leases)
    def take(self, task: asyncio.Task[Lease[FakeModel]]) -> Taken:
        self.let_loads_end()
        self.asked.discard(task)
        assert task.done()
        if task.cancelled():
            return Taken(None)
        if error := task.exception():
            assert isinstance(error, ServingError)
            return Taken(None)
        lease = task.result()
        model = lease.model
        assert (model.model_id, model.fingerprint) in self.published
        self.held.add(lease)
        return Taken(lease)

    @rule(taken=consumes(leases))
    def release(self, taken: Taken) -> None:
        if taken.lease is not None:
            taken.lease.release()
            self.held.discard(taken.lease)

    @invariant()
    def the_budget_is_kept(self) -> None:
        assert self.residents.bytes_held <= BUDGET
        assert len(self.residents) <= 3

    @invariant()
    def what_is_leased_is_counted(self) -> None:
        in_memory = {id(resident.model): resident.model for resident in self.residents.residents()}
        leased = {id(lease.model): lease.model for lease in self.held}
        assert self.residents.bytes_held >= sum(model.size for model in (in_memory | leased).values())

    @invariant()
    def one_load_for_a_copy(self) -> None:
        assert self.source.most_at_once <= 1

    def teardown(self) -> None:
        self.let_loads_end()
        for task in self.asked:
            if not task.cancelled() and task.exception() is None:
                task.result().release()
        for lease in self.held:
            lease.release()
        self.source.load_gate.open()
        self.loop.run_until_complete(self.manager.close())
        in_memory = sum(resident.size for resident in self.residents.residents())
        assert self.residents.bytes_held == in_memory, "every lease and reservation has ended"
        assert all(resident.leases == 0 for resident in self.residents.residents())
        self.loop.close()

    def turn(self) -> None:
        """Give a few turns to the tasks that can run before a load ends."""
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))

    def settle(self) -> None:
        """Wait until every caller has an answer and the background work has ended."""
        pending = [task for task in self.asked if not task.done()]
        if pending:
            self.loop.run_until_complete(asyncio.wait(pending, timeout=PATIENCE))
        background = [*self.tasks]
        if background:
            self.loop.run_until_complete(asyncio.wait(background, timeout=PATIENCE))


def test_any_interleaving_keeps_the_promises() -> None:
    checked = settings(max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Interleavings, settings=checked)
