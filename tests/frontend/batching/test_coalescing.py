from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from frontend.batching.coalescing import CoalescingBackend
from frontend.engines.partitions import partition_of
from frontend.engines.submission import BatchDone, Withdraw
from serving.call.call import Call
from serving.call.deadline import Deadline
from serving.domain.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    OutOfCapacity,
    RemoteError,
    ServingError,
    Unavailable,
)
from serving.domain.model_id import ModelId
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.query_limits import QueryLimits
from tests.builders import PATIENCE, a_prediction
from tests.fakes.engine import FakeEngine


def query(document: str = "x", model: str = "m") -> Query:
    return Query(model, document)


def call(seconds: float = PATIENCE, name: str = "id") -> Call:
    return Call(name, Deadline.after(seconds))


def found(query: Query) -> Outcome:
    """Answer for every model but "none"."""
    return ModelNotFound("no model has this runId") if query.model_id == "none" else a_prediction(query)


@asynccontextmanager
async def before(engine: FakeEngine, *, calls: int = 1, partitions: int = 1) -> AsyncIterator[CoalescingBackend]:
    backend = CoalescingBackend(engine, calls=calls, group_of=lambda query: partition_of(query.model_id, partitions))
    try:
        yield backend
    finally:
        await backend.close()


def asked(backend: CoalescingBackend, *queries: Query, seconds: float = PATIENCE) -> list[asyncio.Task[Prediction]]:
    return [asyncio.ensure_future(backend.predict(item, call(seconds))) for item in queries]


async def a_turn() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_query_goes_at_once_with_its_own_call() -> None:
    engine = FakeEngine()
    async with before(engine) as backend:
        mine = call(name="mine")
        assert (await backend.predict(query("hello"), mine)).label == "hello"
    assert engine.sizes == [1]
    assert engine.calls == [mine]
    assert engine.closed == 1


async def test_what_arrives_while_calls_are_in_flight_goes_together() -> None:
    engine = FakeEngine(held=True)
    async with before(engine, calls=2) as backend:
        tasks = []
        for number in range(10):
            tasks += asked(backend, query(str(number)))
            await a_turn()
        assert engine.sizes == [1, 1]
        engine.may_answer.set()
        answers = await asyncio.gather(*tasks)
    assert [answer.label for answer in answers] == [str(number) for number in range(10)]
    assert engine.sizes == [1, 1, 8]


async def test_what_arrives_together_goes_together() -> None:
    engine = FakeEngine()
    async with before(engine, calls=2) as backend:
        await asyncio.gather(*asked(backend, *(query(str(number)) for number in range(10))))
    assert engine.sizes == [10]


async def test_a_burst_of_one_turn_goes_together_and_what_comes_meanwhile_goes_next() -> None:
    engine = FakeEngine(held=True)
    async with before(engine, calls=1) as backend:
        tasks = asked(backend, *(query(str(number)) for number in range(30)))
        await a_turn()
        tasks += asked(backend, *(query(str(number)) for number in range(20)))
        await a_turn()
        engine.may_answer.set()
        await asyncio.gather(*tasks)
    assert engine.sizes == [30, 20]


@pytest.mark.parametrize(("documents", "sizes"), [(["x"] * 600, [256, 256, 88]), (["y" * 50_000] * 5, [2, 2, 1])])
async def test_a_batch_has_bounds(documents: list[str], sizes: list[int]) -> None:
    engine = FakeEngine(held=True)
    async with before(engine) as backend:
        tasks = asked(backend, *map(query, documents))
        await a_turn()
        engine.may_answer.set()
        await asyncio.gather(*tasks)
    assert engine.sizes == sizes


@pytest.mark.parametrize(
    "large",
    [Query("m", "x", k=1 << 20), Query("m", "x" * 100, explain=("label",) * 9)],
    ids=["best-labels", "explanations"],
)
async def test_what_each_may_ask_for_alone_is_never_too_much_together(large: Query) -> None:
    limits = QueryLimits(max_document_bytes=1 << 16, max_batch_size=4096)
    engine = FakeEngine()
    backend = CoalescingBackend(engine, calls=1)
    queries = [query(str(number)) if number % 3 else large for number in range(200)]
    await asyncio.gather(*(backend.predict(each, call()) for each in queries))
    assert [each._replace(until=math.inf) for batch in engine.taken for each in batch] == queries
    assert 1 < len(engine.taken) < 10
    for batch in engine.taken:
        limits.check_batch(batch)


async def test_a_model_that_is_not_ready_is_asked_for_alone_and_holds_nobody_up() -> None:
    engine = FakeEngine()
    engine.cold = {"cold"}
    async with before(engine) as backend:
        answers = await asyncio.gather(*asked(backend, query("a"), query("b", "cold"), query("c")))
    assert [answer.label for answer in answers] == ["a", "b", "c"]
    assert engine.alone == [query("b", "cold")]


async def test_every_query_has_its_own_error() -> None:
    engine = FakeEngine(found, held=True)
    async with before(engine) as backend:
        first, bad, good = asked(backend, query(), query(model="none"), query("good"))
        await a_turn()
        engine.may_answer.set()
        assert (await good).label == "good"
        assert (await first).label == "x"
        with pytest.raises(ModelNotFound):
            await bad


@pytest.mark.parametrize(
    "refusal", [Unavailable("down"), OutOfCapacity("full"), RemoteError("odd", StatusCode.ABORTED)]
)
async def test_a_refused_batch_is_an_error_of_each_query_in_it(refusal: ServingError) -> None:
    engine = FakeEngine(held=True, refusal=refusal)
    async with before(engine) as backend:
        tasks = asked(backend, *[query()] * 3)
        await a_turn()
        engine.may_answer.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [(type(outcome), str(outcome)) for outcome in outcomes] == [(type(refusal), str(refusal))] * 3
    assert all(isinstance(outcome, ServingError) and outcome.code is refusal.code for outcome in outcomes)
    # Each query needs its own error: a raised error gathers the traceback of the code that raises it.
    assert len({id(outcome) for outcome in outcomes}) == 3


async def test_an_engine_that_takes_no_batches_is_asked_one_by_one() -> None:
    engine = FakeEngine(refusal=RemoteError("no such method", StatusCode.UNIMPLEMENTED))
    async with before(engine) as backend:
        assert (await backend.predict(query("a"), call())).label == "a"
        assert (await backend.predict(query("b"), call())).label == "b"
    assert engine.sizes == [1]
    assert engine.alone == [query("a"), query("b")]


async def test_a_deadline_that_has_passed_is_not_sent() -> None:
    engine = FakeEngine()
    async with before(engine) as backend:
        with pytest.raises(DeadlineExceeded):
            await backend.predict(query(), call(0.0))
    assert engine.taken == []


async def test_who_leaves_while_waiting_is_not_sent_and_the_others_are() -> None:
    engine = FakeEngine(held=True)
    async with before(engine) as backend:
        (first,) = asked(backend, query("first"))
        await a_turn()
        leaving, staying = asked(backend, query("leaving"), query("staying"))
        await a_turn()
        leaving.cancel()
        await a_turn()
        engine.may_answer.set()
        assert (await staying).label == "staying"
        assert (await first).label == "first"
    assert engine.taken == [[query("first")], [query("staying")]]


async def test_a_batch_whose_every_caller_has_left_is_cancelled_and_gives_its_slot_to_the_next() -> None:
    engine = FakeEngine(held=True)
    async with before(engine) as backend:
        (leaving,) = asked(backend, query("leaving"))
        await a_turn()
        (staying,) = asked(backend, query("staying"))
        leaving.cancel()
        await a_turn()
        assert engine.cancelled == 1
        engine.may_answer.set()
        assert (await staying).label == "staying"


async def test_one_who_leaves_a_batch_in_flight_does_not_end_it() -> None:
    engine = FakeEngine(held=True)
    async with before(engine) as backend:
        leaving, staying = asked(backend, query("leaving"), query("staying"))
        await a_turn()
        leaving.cancel()
        await a_turn()
        engine.may_answer.set()
        assert (await staying).label == "staying"
    assert engine.sizes == [2]
    assert engine.cancelled == 0


async def test_a_batch_has_the_last_deadline_of_its_members() -> None:
    engine = FakeEngine(held=True)
    async with before(engine) as backend:
        tasks = [asyncio.ensure_future(backend.predict(query(), call(seconds))) for seconds in (10.0, 30.0, 20.0)]
        await a_turn()
        engine.may_answer.set()
        await asyncio.gather(*tasks)
    (batch,) = engine.calls
    assert 20.0 < batch.deadline.remaining() <= 30.0
    assert batch.request_id != "id"


async def test_each_query_of_a_batch_keeps_the_deadline_of_its_caller() -> None:
    engine = FakeEngine()
    async with before(engine) as backend:
        calls = [call(seconds) for seconds in (5.0, 20.0, 10.0)]
        await asyncio.gather(*(backend.predict(query(), each) for each in calls))
        (batch,) = engine.taken
        assert [asked.until for asked in batch] == [each.deadline.at for each in calls]


async def test_a_call_that_hangs_does_not_hold_up_those_who_come_after_it() -> None:
    engine = FakeEngine(held=True)
    async with before(engine) as backend:
        (hanging,) = asked(backend, query("hanging"))
        await a_turn()
        (later,) = asked(backend, query("later"))
        await asyncio.wait_for(engine.asked_twice.wait(), PATIENCE)
        engine.may_answer.set()
        assert (await later).label == "later"
        assert (await hanging).label == "hanging"


async def test_queries_of_different_groups_never_share_a_batch() -> None:
    engine = FakeEngine(held=True)
    async with before(engine, partitions=8) as backend:
        tasks = asked(backend, *(query(model=f"m{number}") for number in range(100)))
        await a_turn()
        engine.may_answer.set()
        await asyncio.gather(*tasks)
        partitions = [{partition_of(item.model_id, 8) for item in batch} for batch in engine.taken]
    assert all(len(partition) == 1 for partition in partitions)
    assert len(set().union(*partitions)) == 8


async def test_a_group_is_forgotten_once_nobody_waits_in_it() -> None:
    engine = FakeEngine()
    async with before(engine, partitions=8) as backend:
        await asyncio.gather(*asked(backend, *(query(model=f"m{number}") for number in range(100))))
        await a_turn()
        assert not backend._groups


async def test_a_bug_is_told_without_its_text() -> None:
    async with before(FakeEngine(refusal=ZeroDivisionError("secret"))) as backend:
        with pytest.raises(ServingError, match="internal error"):
            await backend.predict(query(), call())


async def test_a_batch_call_passes_as_it_is() -> None:
    engine = FakeEngine()
    async with before(engine) as backend:
        queries = [query("a"), query("b")]
        outcomes = await backend.predict_batch(queries, call())
    assert [outcome.label for outcome in outcomes if isinstance(outcome, Prediction)] == ["a", "b"]
    assert (engine.batches, engine.taken) == ([queries], [])


async def test_the_end_leaves_nobody_waiting() -> None:
    engine = FakeEngine(held=True)
    async with before(engine) as backend:
        tasks = asked(backend, query())
        await a_turn()
        tasks += asked(backend, *[query()] * 2)
        await a_turn()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    assert engine.sizes == [1]


@given(
    st.lists(st.tuples(st.sampled_from(["hot", "cold", "none"]), st.booleans(), st.integers(0, 3)), max_size=40),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_whatever_comes_and_leaves_everybody_gets_their_own_answer(
    steps: list[tuple[str, bool, int]], calls: int, partitions: int
) -> None:
    async def run() -> None:
        engine = FakeEngine(found)
        engine.cold = {"cold"}
        async with before(engine, calls=calls, partitions=partitions) as backend:
            tasks: list[tuple[Query, bool, asyncio.Task[Prediction]]] = []
            for number, (model, leaves, turns) in enumerate(steps):
                wanted = query(str(number), model)
                (task,) = asked(backend, wanted)
                tasks.append((wanted, leaves, task))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if leaves:
                    task.cancel()
            outcomes = await asyncio.gather(*(task for _, _, task in tasks), return_exceptions=True)
            for (wanted, leaves, _), outcome in zip(tasks, outcomes, strict=True):
                if isinstance(outcome, asyncio.CancelledError):
                    assert leaves
                elif wanted.model_id == "none":
                    assert isinstance(outcome, ModelNotFound)
                else:
                    assert isinstance(outcome, Prediction)
                    assert (outcome.label, outcome.model_id) == (wanted.document, wanted.model_id)
            await a_turn()
            assert all(group._free == calls for group in backend._groups.values())
            assert not any(group._batches or group._waiting for group in backend._groups.values())

    asyncio.run(run())


class FakeHandOver:
    """A fake engine that takes batches without a task; the test reports their outcomes."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[str], BatchDone]] = []
        self.withdrawn = 0
        self.has_to_wait = False
        self.at_once: ServingError | None = None

    def submit(self, queries: Sequence[Query], call: Call, done: BatchDone) -> Withdraw | None:
        if self.has_to_wait:
            return None
        self.batches.append(([item.document for item in queries], done))
        if self.at_once is not None:
            done(self.at_once)

        def withdraw() -> None:
            self.withdrawn += 1

        return withdraw


@asynccontextmanager
async def handing_over(to: FakeHandOver, *, calls: int = 1) -> AsyncIterator[CoalescingBackend]:
    backend = CoalescingBackend(FakeEngine(), calls=calls, submit_batch=to.submit)
    try:
        yield backend
    finally:
        await backend.close()


async def test_a_batch_that_is_handed_over_is_answered_when_its_outcomes_are_told() -> None:
    to = FakeHandOver()
    async with handing_over(to) as backend:
        tasks = asked(backend, query("a"), query("b"))
        await a_turn()
        late = asked(backend, query("c"))
        await a_turn()
        ((documents, done),) = to.batches
        assert documents == ["a", "b"]
        done([a_prediction(query("a")), ModelNotFound("no model has this runId")])
        first, second = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(first, Prediction)
        assert isinstance(second, ModelNotFound)
        documents, done = to.batches[1]
        assert documents == ["c"]
        done([None])
        assert (await late[0]).label == "c", "asked for alone"
        assert to.withdrawn == 0


async def test_a_batch_that_is_refused_as_it_is_handed_over_lets_the_next_one_go() -> None:
    to = FakeHandOver()
    to.at_once = Unavailable("no server can be reached")
    async with handing_over(to) as backend:
        # There are more batches than calls can be nested, so no batch may be sent from within another.
        tasks = asked(backend, *[query("x" * (1 << 16))] * 2000)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert len(to.batches) == 1000


@pytest.mark.parametrize("outcomes", [[], [None, None], ZeroDivisionError("secret")])
async def test_outcomes_that_do_not_fit_the_batch_are_a_fault_and_nobody_waits_on(outcomes: Any) -> None:
    to = FakeHandOver()
    async with handing_over(to) as backend:
        (task,) = asked(backend, query())
        await a_turn()
        to.batches[0][1](outcomes)
        with pytest.raises(ServingError, match="internal error"):
            await task


async def test_a_batch_whose_callers_have_all_left_is_withdrawn_and_what_it_brings_is_told_to_nobody() -> None:
    to = FakeHandOver()
    async with handing_over(to) as backend:
        tasks = asked(backend, query("a"), query("b"))
        await a_turn()
        tasks[0].cancel()
        await a_turn()
        assert to.withdrawn == 0
        tasks[1].cancel()
        (next_one,) = asked(backend, query("c"))
        await a_turn()
        assert to.withdrawn == 1
        to.batches[0][1]([a_prediction(query("a")), a_prediction(query("b"))])
        to.batches[1][1]([a_prediction(query("c"))])
        assert (await next_one).label == "c"


async def test_a_batch_that_has_to_wait_for_something_is_waited_for() -> None:
    to = FakeHandOver()
    to.has_to_wait = True
    async with handing_over(to) as backend:
        (task,) = asked(backend, query("a"))
        assert (await task).label == "a"


async def test_a_query_that_cannot_be_written_fails_alone() -> None:
    from frontend.engines.predictor.backend import PredictorBackend  # noqa: PLC0415 - used here alone

    backend = PredictorBackend("127.0.0.1:1")
    try:
        with pytest.raises(InvalidRequest):
            await backend.predict(Query("m", "\ud800"), call())
    finally:
        await backend.close()


async def test_a_model_is_let_go_by_the_engine() -> None:
    engine = FakeEngine()
    async with before(engine) as backend:
        await backend.unload(ModelId("m"), call())
    assert engine.unloaded == ["m"]
