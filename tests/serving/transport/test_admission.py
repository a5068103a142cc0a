"""Calls that are admitted, wait and are refused."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.call.call import Call, CallNotes, enter_call
from serving.call.deadline import Deadline
from serving.call.slots import released_slot
from serving.domain.errors import DeadlineExceeded, Overloaded, QuotaExceeded
from serving.transport.admission import Admission, Gate
from serving.transport.admission_metrics import AdmissionCollector
from serving.transport.concurrency import Goal
from tests.builders import PATIENCE


def call_within(seconds: float = PATIENCE) -> Call:
    return Call("id", Deadline.after(seconds), notes=CallNotes())


def gate_with(limit: int, *, rate: float = 0.0, **options: Any) -> tuple[Admission, Gate]:
    """Return an admission and its gate, which has found ``limit`` and measured that ``rate`` calls end in a second."""
    admission = Admission(options.pop("most", 1000), goal=Goal(least=1), **options)
    gate = admission.gate("a/B")
    # A window under load changes the limit in the same way.
    gate.limit._change(limit, asyncio.get_running_loop().time())
    gate.limit.rate = rate
    return admission, gate


async def admitted(gate: Gate, call: Call) -> float:
    return gate.enter(call) or await gate.wait(call)


async def waiting(gate: Gate, call: Call | None = None) -> asyncio.Task[float]:
    """Begin the wait of a call; return the task that waits."""
    task = asyncio.ensure_future(admitted(gate, call or call_within()))
    await asyncio.sleep(0)
    return task


async def test_calls_are_let_in_up_to_the_limit_and_then_in_the_order_of_their_arrival() -> None:
    admission, gate = gate_with(2)
    first, second = call_within(), call_within()
    entered = [gate.enter(first), gate.enter(second)]
    others = [await waiting(gate) for _ in range(3)]
    assert (admission.in_flight, admission.waiting) == (5, 3)

    gate.leave(first, entered[0], answered=True)
    await others[0]
    assert [task.done() for task in others] == [True, False, False]
    gate.leave(second, entered[1], answered=True)
    await others[1]

    assert not others[2].done()
    others[2].cancel()


async def test_calls_that_an_engine_leaves_without_an_answer_are_no_reason_to_refuse_others() -> None:
    gate = Admission(1000, goal=Goal(least=1)).gate("a/B")
    for _ in range(4):
        hung = [call_within(0.05) for _ in range(64)]
        entered = [gate.enter(call) for call in hung]
        await asyncio.sleep(0.06)
        for call, at in zip(hung, entered, strict=True):
            gate.leave(call, at, answered=False)
    assert gate.limit.value == 1000


async def test_calls_that_another_engine_answers_after_a_wait_in_vain_are_no_reason_to_refuse_others() -> None:
    def answer(gate: Gate, seconds: float, unanswered_seconds: float) -> None:
        calls = [call_within() for _ in range(64)]
        entered = [gate.enter(call) for call in calls]
        for call, at in zip(calls, entered, strict=True):
            call.notes.unanswered_seconds = unanswered_seconds
            gate.leave(call, at - seconds, answered=True)

    in_vain, at_work = (Admission(1000, goal=Goal(least=1)).gate("a/B") for _ in range(2))
    for seconds in (0.0, 10.0, 10.0):
        answer(in_vain, seconds, seconds)
        answer(at_work, seconds, 0.0)
        # The limit adapts once in a window of this length.
        await asyncio.sleep(0.11)
    assert in_vain.limit.value == 1000
    assert at_work.limit.value < 1000


async def test_the_bound_over_all_gates_counts_those_who_wait_and_refuses_at_once() -> None:
    admission, gate = gate_with(1, most=3)
    gate.enter(call_within())
    waits = [await waiting(gate) for _ in range(2)]

    for method in ("a/B", "another/Method"):
        with pytest.raises(Overloaded, match="in flight") as refused:
            admission.gate(method).enter(call_within())
        assert refused.value.retry_after is not None
    for task in waits:
        task.cancel()


async def test_the_bound_on_those_who_wait() -> None:
    _, gate = gate_with(1, most_waiting=1)
    gate.enter(call_within())
    waits = await waiting(gate)

    with pytest.raises(Overloaded, match="wait"):
        await admitted(gate, call_within())
    waits.cancel()


async def test_a_call_that_cannot_be_answered_before_its_deadline_is_refused_at_once_and_told_when_to_ask_again() -> (
    None
):
    admission, gate = gate_with(1, rate=10.0)
    gate.enter(call_within())
    waits = [await waiting(gate) for _ in range(19)]

    with pytest.raises(Overloaded, match="before the deadline") as refused:
        await asyncio.wait_for(admitted(gate, call_within(1.0)), PATIENCE)
    patient = await waiting(gate, call_within(10.0))

    assert refused.value.retry_after == pytest.approx(21 / 10.0 * 1.5 - 1.0, abs=0.2)
    assert not patient.done()
    assert admission.in_flight == 21
    for task in (*waits, patient):
        task.cancel()


async def test_a_call_whose_deadline_passes_while_it_waits_is_told_so_and_never_let_in() -> None:
    admission, gate = gate_with(1)
    first = call_within()
    entered = gate.enter(first)

    with pytest.raises(DeadlineExceeded):
        await admitted(gate, call_within(0.02))

    assert admission.refusals.deadline == 1
    assert (admission.in_flight, admission.waiting) == (1, 0)
    gate.leave(first, entered, answered=True)
    assert admission.in_flight == 0


async def test_a_call_whose_deadline_has_passed_before_is_not_let_in() -> None:
    admission, gate = gate_with(1)

    with pytest.raises(DeadlineExceeded):
        gate.enter(call_within(-0.1))

    assert (admission.in_flight, admission.refusals.deadline) == (0, 1)


async def test_who_waits_and_is_let_in_too_late_is_refused_instead_of_executed() -> None:
    _, gate = gate_with(10, rate=1.0)
    calls = [call_within() for _ in range(10)]
    entered = [gate.enter(call) for call in calls]
    gate.limit.rate = 0.0
    hopeless, patient = await waiting(gate, call_within(3.0)), await waiting(gate, call_within(600.0))

    # The new rate means that ten calls take ten seconds.
    gate.limit.rate = 1.0
    gate.leave(calls[0], entered[0], answered=True)

    with pytest.raises(DeadlineExceeded):
        await hopeless
    assert await patient


@pytest.mark.parametrize("let_in", [False, True], ids=["waiting", "just let in"])
async def test_a_caller_who_leaves_while_it_waits_is_gone_at_once(let_in: bool) -> None:
    admission, gate = gate_with(1)
    first = call_within()
    entered = gate.enter(first)
    leaving, staying = await waiting(gate), await waiting(gate)

    if let_in:
        gate.leave(first, entered, answered=True)
    leaving.cancel()
    await asyncio.sleep(0)

    if let_in:
        assert await staying
        assert (admission.in_flight, admission.waiting) == (1, 0)
    else:
        assert (admission.in_flight, admission.waiting) == (2, 1)
        gate.leave(first, entered, answered=True)
        assert await staying


async def test_one_that_leaves_and_one_that_is_let_in_in_the_same_turn_do_not_meet() -> None:
    admission, gate = gate_with(1)
    first = call_within()
    entered = gate.enter(first)
    leaving, staying = await waiting(gate), await waiting(gate)

    leaving.cancel()
    # The cancellation has not reached the task yet.
    gate.leave(first, entered, answered=True)

    assert await staying
    assert (admission.in_flight, admission.waiting) == (1, 0)


async def test_a_call_that_steps_aside_lets_another_one_in_and_comes_back_without_a_wait() -> None:
    admission, gate = gate_with(1)

    async def serve(call: Call, loaded: asyncio.Event, gone: asyncio.Event) -> None:
        enter_call(call)
        entered = await admitted(gate, call)
        try:
            with released_slot(), released_slot():
                gone.set()
                await loaded.wait()
        finally:
            gate.leave(call, entered, answered=True)

    loaded, gone = asyncio.Event(), asyncio.Event()
    cold = asyncio.ensure_future(serve(call_within(), loaded, gone))
    await gone.wait()
    hot = call_within()
    entered = gate.enter(hot)
    assert entered, "the place of the cold one is free"
    assert admission.in_flight == 2

    loaded.set()
    await cold
    assert admission.in_flight == 1
    assert not gate.enter(call_within()), "the hot one has it"
    gate.leave(hot, entered, answered=True)
    assert gate.enter(call_within())


async def test_aside_outside_of_a_call_does_nothing() -> None:
    with released_slot():
        """No call has a slot."""


async def test_idle_is_when_nobody_is_in_and_nobody_waits() -> None:
    admission, gate = gate_with(1)
    await admission.wait_until_idle()
    first = call_within()
    entered = gate.enter(first)
    next_one = call_within()
    waits = await waiting(gate, next_one)
    idle = [asyncio.ensure_future(admission.wait_until_idle()) for _ in range(2)]

    gate.leave(first, entered, answered=True)
    later = await waits
    await asyncio.sleep(0)
    assert not any(task.done() for task in idle)

    gate.leave(next_one, later, answered=True)
    await asyncio.wait_for(asyncio.gather(*idle), PATIENCE)


async def test_after_a_calm_the_limit_of_long_ago_is_forgotten() -> None:
    _, gate = gate_with(1, rate=1.0)
    gate.limit._changed -= 60.0
    gate.enter(call_within())

    assert await admitted(gate, call_within(0.5))
    assert gate.limit.value == 1000


async def test_refusals_are_counted_and_told_as_metrics() -> None:
    admission, gate = gate_with(7)
    admission.refusals.count(Overloaded("full"))
    admission.refusals.count(QuotaExceeded("yours"))
    with contextlib.suppress(DeadlineExceeded):
        gate.enter(call_within(-1.0))

    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in AdmissionCollector(admission).collect()
        for sample in metric.samples
    }

    assert samples["intent_requests_refused_total", "overload"] == 1
    assert samples["intent_requests_refused_total", "quota"] == 1
    assert samples["intent_requests_refused_total", "deadline"] == 1
    assert samples["intent_requests_waiting",] == 0
    assert samples["intent_concurrency_limit", "a/B"] == 7


class Callers:
    """Callers before a gate, which take the steps that a test names."""

    def __init__(self, limit: int) -> None:
        self.admission, self.gate = gate_with(limit)
        self._asked: list[tuple[Call, asyncio.Task[float]]] = []

    def inside(self) -> list[tuple[Call, asyncio.Task[float]]]:
        ended = [pair for pair in self._asked if pair[1].done()]
        return [pair for pair in ended if not pair[1].cancelled() and not pair[1].exception()]

    async def do(self, step: str, number: int) -> None:
        if step == "ask":
            call = call_within()
            self._asked.append((call, asyncio.ensure_future(admitted(self.gate, call))))
        elif step == "leave" and (there := self.inside()):
            call, task = there[number % len(there)]
            self._asked.remove((call, task))
            self.gate.leave(call, task.result(), answered=True)
        elif step == "cancel" and self._asked:
            self._asked[number % len(self._asked)][1].cancel()
        elif step == "expire" and self.gate._waiting:
            self.gate._expire(next(iter(self.gate._waiting)))
        elif step == "turn":
            await asyncio.sleep(0)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


@given(
    limit=st.integers(1, 5),
    steps=st.lists(st.tuples(st.sampled_from(["ask", "leave", "cancel", "expire", "turn"]), st.integers(0, 9))),
)
def test_whatever_happens_places_are_neither_lost_nor_given_twice(limit: int, steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        callers = Callers(limit)
        admission, gate = callers.admission, callers.gate
        for step in steps:
            await callers.do(*step)
            assert gate._in_work <= limit
        await callers.settle()
        there = len(callers.inside())
        assert gate._in_work == there
        assert admission.in_flight == there + admission.waiting
        assert not admission.waiting or there == limit
        while callers.inside():
            await callers.do("leave", 0)
            await callers.settle()
        assert (admission.in_flight, admission.waiting, gate._in_work) == (0, 0, 0)

    asyncio.run(run())
