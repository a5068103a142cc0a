"""Quotas: the calls that a tenant may make, the refused calls, and the independence of tenants."""

from __future__ import annotations

import itertools
import os
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.predictions.predictions import RoutedPredictions
from frontend.quotas.ledger import Ledger, Tenant
from frontend.quotas.local import LocalLedger
from frontend.quotas.metrics import QuotaCollector
from frontend.quotas.quotas import QuotaCounters, Quotas
from frontend.quotas.shared import Participant, SharedLedger
from frontend.routing.catalog import Catalog
from frontend.routing.router import Router
from serving.call.identity import ANYBODY, Identity, Right
from serving.call.limits import Limits
from serving.domain.errors import PermissionDenied, QuotaExceeded, ServingError
from serving.domain.prediction import Prediction, Query
from serving.domain.query_limits import QueryLimits
from serving.volume.freshness.comparison import ThreadComparison
from serving.volume.model_store import ModelStore
from tests.builders import a_call, publish
from tests.fakes.backend import FakeBackend
from tests.fakes.clock import FakeClock
from tests.serving.refusals import assert_fit_for_callers


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


class Rotating:
    """The ledgers of three workers; each call reaches the next worker."""

    def __init__(self, clock: Callable[[], float]) -> None:
        memory = os.memfd_create("quotas")
        weakref.finalize(self, os.close, memory)
        self._ledgers = [
            SharedLedger(memory, Participant(index, 3, lambda: (0, 0, 0)), most_tenants=64, clock=clock)
            for index in range(3)
        ]
        self._next = itertools.cycle(self._ledgers)

    def enter(self, name: str, limits: Limits, documents: int) -> Tenant | None:
        return next(self._next).enter(name, limits, documents)


LEDGERS: Mapping[str, Callable[[FakeClock], Ledger]] = {
    "one process": lambda clock: LocalLedger(clock=clock),
    "workers": Rotating,
}


@pytest.fixture(params=LEDGERS)
def ledger(request: pytest.FixtureRequest, clock: FakeClock) -> Ledger:
    return LEDGERS[request.param](clock)


def an_identity(name: str, limits: Limits | None = None) -> Identity:
    return Identity(name, frozenset({Right.PREDICT}), ("*",), limits)


ACME = an_identity("acme")
OTHER = an_identity("other")


def refusal(enter: Callable[[], object]) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        enter()
    assert_fit_for_callers(caught.value)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 0
    return caught.value


def asked(quotas: Quotas, identity: Identity, documents: int = 1, model: str = "model") -> None:
    """Make a call, and end it."""
    tenant = quotas.enter(identity, model, documents)
    if tenant is not None:
        quotas.leave(tenant)


# The rate


def test_the_burst_comes_at_once_and_then_the_rate(clock: FakeClock, ledger: Ledger) -> None:
    quotas = Quotas(Limits(requests_per_second=10, burst=5), ledger)
    for _ in range(5):
        asked(quotas, ACME)
    told = refusal(lambda: asked(quotas, ACME))
    assert told.retry_after == pytest.approx(0.1)
    clock.now += told.retry_after or 0.0
    asked(quotas, ACME)
    refusal(lambda: asked(quotas, ACME))
    clock.now += 3600
    for _ in range(5):
        asked(quotas, ACME)
    refusal(lambda: asked(quotas, ACME))


def test_without_a_burst_that_of_a_second_is_meant(ledger: Ledger) -> None:
    quotas = Quotas(Limits(requests_per_second=3), ledger)
    for _ in range(3):
        asked(quotas, ACME)
    refusal(lambda: asked(quotas, ACME))
    slow = Quotas(Limits(requests_per_second=0.1), ledger)
    asked(slow, OTHER)
    assert refusal(lambda: asked(slow, OTHER)).retry_after == pytest.approx(10.0)


def test_a_batch_counts_its_documents(ledger: Ledger) -> None:
    quotas = Quotas(Limits(requests_per_second=10, burst=10), ledger)
    asked(quotas, ACME, 7)
    assert refusal(lambda: asked(quotas, ACME, 4)).retry_after == pytest.approx(0.1)
    asked(quotas, ACME, 3)
    asked(quotas, ACME, 0)


def test_a_batch_beyond_the_burst_is_served_after_a_pause_and_paid_for_afterwards(
    clock: FakeClock, ledger: Ledger
) -> None:
    quotas = Quotas(Limits(requests_per_second=10, burst=10), ledger)
    asked(quotas, ACME)
    assert refusal(lambda: asked(quotas, ACME, 100)).retry_after == pytest.approx(0.1)
    clock.now += 0.1
    asked(quotas, ACME, 100)
    assert refusal(lambda: asked(quotas, ACME)).retry_after == pytest.approx(9.1)
    clock.now += 9.1
    asked(quotas, ACME)


def test_tenants_do_not_share(ledger: Ledger) -> None:
    quotas = Quotas(Limits(requests_per_second=1, burst=2, in_flight=1), ledger)
    asked(quotas, ACME, 2)
    quotas.enter(an_identity("busy"), "model", 1)
    for _ in range(100):
        refusal(lambda: asked(quotas, ACME))
    asked(quotas, OTHER, 2)


def test_an_identity_may_have_limits_of_its_own(ledger: Ledger) -> None:
    quotas = Quotas(Limits(requests_per_second=1, burst=1), ledger)
    rich = an_identity("rich", Limits(requests_per_second=100, burst=100))
    free = an_identity("free", Limits())
    for _ in range(100):
        asked(quotas, rich)
        asked(quotas, free)
    refusal(lambda: asked(quotas, rich))
    asked(quotas, free)


def test_where_everybody_may_call_each_model_is_a_tenant_in_all_its_versions(ledger: Ledger) -> None:
    quotas = Quotas(Limits(requests_per_second=1, burst=2), ledger)
    asked(quotas, ANYBODY, model="a@1")
    asked(quotas, ANYBODY, model="a@stable")
    refusal(lambda: asked(quotas, ANYBODY, model="a"))
    asked(quotas, ANYBODY, model="b")


def test_an_identity_is_one_tenant_whatever_it_asks(ledger: Ledger) -> None:
    quotas = Quotas(Limits(requests_per_second=1, burst=2), ledger)
    asked(quotas, ACME, model="a")
    asked(quotas, ACME, model="b")
    refusal(lambda: asked(quotas, ACME, model="c"))


# Calls in flight


def test_so_many_calls_are_in_flight(ledger: Ledger) -> None:
    quotas = Quotas(Limits(in_flight=2), ledger)
    first = quotas.enter(ACME, "model", 1)
    asked(quotas, ACME)
    second = quotas.enter(ACME, "model", 4096)
    refusal(lambda: quotas.enter(ACME, "model", 1))
    assert first is not None
    assert second is not None
    quotas.leave(first)
    asked(quotas, ACME)


def test_the_steps_of_a_pipeline_count_as_requests_and_take_no_slot_of_their_own(ledger: Ledger) -> None:
    quotas = Quotas(Limits(requests_per_second=1, burst=4, in_flight=1), ledger)
    outer = quotas.enter(ACME, "pipeline", 1)
    assert quotas.enter(ACME, "first", 1, is_inner=True) is None
    assert quotas.enter(ACME, "second", 1, is_inner=True) is None
    refusal(lambda: quotas.enter(ACME, "pipeline", 1))
    assert outer is not None
    quotas.leave(outer)
    asked(quotas, ACME)
    # A step is never refused; the caller waits longer before the next call.
    assert quotas.enter(ACME, "first", 3, is_inner=True) is None
    assert refusal(lambda: quotas.enter(ACME, "pipeline", 1)).retry_after == pytest.approx(4.0, abs=0.01)


def test_where_each_model_is_a_tenant_a_pipeline_takes_slots_of_its_models(ledger: Ledger) -> None:
    quotas = Quotas(Limits(in_flight=1), ledger)
    inner = quotas.enter(ANYBODY, "first", 1, is_inner=True)
    refusal(lambda: quotas.enter(ANYBODY, "first", 1))
    assert inner is not None
    quotas.leave(inner)
    asked(quotas, ANYBODY, model="first")


def test_what_is_refused_takes_nothing(ledger: Ledger) -> None:
    quotas = Quotas(Limits(requests_per_second=1, burst=3, in_flight=1), ledger)
    tenant = quotas.enter(ACME, "model", 1)
    for _ in range(10):
        refusal(lambda: quotas.enter(ACME, "model", 1))
    assert tenant is not None
    quotas.leave(tenant)
    asked(quotas, ACME, 2)
    refusal(lambda: asked(quotas, ACME))


# Memory


def test_so_many_tenants_are_remembered_and_those_in_flight_beyond_them() -> None:
    ledger = LocalLedger(most_tenants=10)
    quotas = Quotas(Limits(in_flight=9), ledger)
    busy = [quotas.enter(ANYBODY, f"busy-{number}", 1) for number in range(20)]
    for number in range(1000):
        asked(quotas, ANYBODY, model=f"idle-{number}")
    assert len(ledger) == 30
    for tenant in busy:
        assert tenant is not None
        quotas.leave(tenant)
    assert len(ledger) == 10


def test_who_is_forgotten_gets_no_second_burst(clock: FakeClock) -> None:
    quotas = Quotas(Limits(requests_per_second=1, burst=5), LocalLedger(most_tenants=1, clock=clock))
    asked(quotas, ANYBODY, 5, model="greedy")
    asked(quotas, ANYBODY, 0, model="another")
    assert refusal(lambda: asked(quotas, ANYBODY, model="greedy")).retry_after == pytest.approx(1.0)
    clock.now += 5
    asked(quotas, ANYBODY, 5, model="greedy")


CALLS = st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 3), st.integers(1, 6)), min_size=1, max_size=60)


@given(calls=CALLS, rate=st.floats(0.1, 10), burst=st.floats(6, 12), remembered=st.integers(0, 4))
def test_nobody_gets_more_than_the_burst_and_the_rate_however_few_are_remembered(
    calls: list[tuple[str, float, int]], rate: float, burst: float, remembered: int
) -> None:
    clock = FakeClock(1000.0)
    quotas = Quotas(Limits(requests_per_second=rate, burst=burst), LocalLedger(most_tenants=remembered, clock=clock))
    served: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for model, pause, documents in calls:
        clock.now += pause
        try:
            asked(quotas, ANYBODY, documents, model)
        except QuotaExceeded:
            continue
        served[model].append((clock.now, documents))
    for taken in served.values():
        for first, (since, _) in enumerate(taken):
            total = 0
            for at, documents in taken[first:]:
                total += documents
                assert total <= burst + rate * (at - since) + 1e-6


@given(calls=CALLS, rate=st.floats(0.1, 10), burst=st.floats(6, 12), of=st.sampled_from(sorted(LEDGERS)))
def test_who_waits_as_long_as_they_are_told_is_served(
    calls: list[tuple[str, float, int]], rate: float, burst: float, of: str
) -> None:
    clock = FakeClock(1000.0)
    quotas = Quotas(Limits(requests_per_second=rate, burst=burst), LEDGERS[of](clock))
    for model, pause, documents in calls:
        clock.now += pause
        try:
            asked(quotas, ANYBODY, documents, model)
        except QuotaExceeded as error:
            clock.now += error.retry_after or 0.0
            asked(quotas, ANYBODY, documents, model)


# In the data plane


def predictions_before(backend: FakeBackend, models: Path, quotas: Quotas) -> RoutedPredictions:
    catalog = Catalog(ModelStore(models), threads=1, freshness_seconds=60.0, comparison=ThreadComparison())
    limits = QueryLimits(max_document_bytes=4096, max_batch_size=64)
    return RoutedPredictions(catalog, Router({"intent-classification": backend}), limits, quotas=quotas)


async def test_of_a_batch_for_several_models_those_within_their_quota_are_answered(
    tmp_path: Path, ledger: Ledger
) -> None:
    for name in ("a", "b"):
        publish(tmp_path, name)
    backend = FakeBackend()
    quotas = Quotas(Limits(requests_per_second=1, burst=2, in_flight=1), ledger)
    predictions = predictions_before(backend, tmp_path, quotas)
    try:
        await predictions.predict(Query("a", "first"), a_call())
        batch = [Query("a", "x"), Query("b", "y"), Query("a", "z"), Query("b", "w")]
        outcomes = await predictions.predict_batch(batch, a_call())
        assert [type(outcome) for outcome in outcomes] == [QuotaExceeded, Prediction, QuotaExceeded, Prediction]
        # The calls have ended, and the refused queries took nothing from the quotas.
        assert isinstance(await predictions.predict(Query("a", "second"), a_call()), Prediction)
    finally:
        await predictions.close()


async def test_the_batch_of_an_identity_is_refused_as_a_whole_and_what_it_may_not_ask_is_not_counted(
    tmp_path: Path, ledger: Ledger
) -> None:
    publish(tmp_path, "mine")
    backend = FakeBackend()
    predictions = predictions_before(backend, tmp_path, Quotas(Limits(requests_per_second=1, burst=2), ledger))
    call = a_call()
    call.identity = Identity("acme", frozenset({Right.PREDICT}), ("mine",))
    try:
        batch = [Query("mine", "x"), Query("theirs", "y"), Query("theirs", "z"), Query("mine", "w")]
        outcomes = await predictions.predict_batch(batch, call)
        assert [type(outcome) for outcome in outcomes] == [Prediction, PermissionDenied, PermissionDenied, Prediction]
        with pytest.raises(QuotaExceeded):
            await predictions.predict_batch(batch, call)
        assert [query.caller for queries in backend.batches for query in queries] == ["acme", "acme"]
    finally:
        await predictions.close()


@pytest.mark.parametrize("failure", [ServingError("x"), ValueError("x")], ids=repr)
async def test_a_call_leaves_however_it_ends(failure: Exception, tmp_path: Path) -> None:
    publish(tmp_path, "model")
    quotas = Quotas(Limits(in_flight=1), LocalLedger())
    predictions = predictions_before(FakeBackend(failure=failure), tmp_path, quotas)
    try:
        for _ in range(2):
            with pytest.raises(type(failure)):
                await predictions.predict(Query("model", "x"), a_call())
            await predictions.predict_batch([Query("model", "x")], a_call())
    finally:
        await predictions.close()


# Metrics


def refusals_told(counters: QuotaCounters, tenants: int) -> dict[str, float]:
    (metric,) = QuotaCollector(counters, tenants).collect()
    assert metric.name == "intent_quota_refusals"
    return {sample.labels["tenant"]: sample.value for sample in metric.samples}


def test_refusals_are_told_of_those_who_have_the_most(ledger: Ledger) -> None:
    quotas = Quotas(Limits(requests_per_second=1, burst=1), ledger)
    for number in range(5):
        for _ in range(number + 1):
            identity: Any = an_identity(f"tenant-{number}")
            try:
                asked(quotas, identity)
            except QuotaExceeded:
                continue
    assert refusals_told(quotas.counters, 2) == {"tenant-4": 4, "tenant-3": 3}
    assert refusals_told(quotas.counters, 0) == {}


def test_refusals_of_so_many_tenants_are_remembered() -> None:
    counters = QuotaCounters(most=3)
    for number in range(10):
        counters.count(str(number))
    assert list(counters.refusals) == ["7", "8", "9"]
