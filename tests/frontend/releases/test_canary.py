"""Canaries and shadows: the calls that they get, the protection of callers from their failures, and their counts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.releases import comparisons
from frontend.releases.bounds import ReleaseBounds
from frontend.releases.rollouts import Rollout
from serving.call.call import Call, current_call
from serving.domain.errors import (
    ChecksumMismatch,
    InvalidRequest,
    ModelNotFound,
    ModelUnusable,
    NonFiniteLogits,
    OutOfCapacity,
    ServingError,
    Unavailable,
)
from serving.domain.prediction import Outcome, Query
from serving.domain.releases.release import Canary, Release, Shadow
from tests.builders import a_call, a_prediction, a_turn
from tests.fakes.backend import FakeBackend
from tests.fakes.hanging_backend import FakeHangingBackend
from tests.frontend.releases.running import NAME, NEVER, bench, by_version, publish_versions, until, write_release

STABLE, CANARY = "intent@v1", "intent@v2"
UNBOUND = Canary(version="v2", share=1.0, max_error_rate=1.0, max_disagreement=1.0)
CALLS = 100_000


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish_versions(tmp_path, "v1", "v2", "v3")
    return tmp_path


def released_with(models: Path, canary: Canary | None = UNBOUND, shadow: Shadow | None = None) -> None:
    write_release(models, Release(revision=1, stable="v1", canary=canary, shadow=shadow))


def failing(error: ServingError, *, documents: str = "", versions: Sequence[str] = ("v2",)) -> FakeBackend:
    """Return an engine whose ``versions`` fail at ``documents``, or at all documents by default."""

    def answer(query: Query) -> Outcome:
        fails = query.model_id.partition("@")[2] in versions and (not documents or query.document in documents)
        return error if fails else a_prediction(query)

    return FakeBackend(answer)


# The calls that get the canary.


def side(share: float, key: str, version: str = "v2") -> bool:
    release = Release(revision=1, stable="v1", canary=Canary(version=version, share=share))
    return Rollout(NAME, release).goes_to_canary(key) is not None


@given(key=st.text(min_size=1), low=st.floats(0.0, 1.0), high=st.floats(0.0, 1.0))
def test_who_gets_the_canary_by_a_key_gets_it_always_and_with_every_larger_share(
    key: str, low: float, high: float
) -> None:
    low, high = sorted((low, high))
    assert side(low, key) is side(low, key)
    assert side(high, key) or not side(low, key)
    assert side(1.0, key)
    assert not side(0.0, key)


@pytest.mark.parametrize("key", [str, lambda _: ""], ids=["by a key", "by chance"])
def test_a_canary_gets_its_share(key: Callable[[int], str], figure: Callable[[str], None]) -> None:
    canary = Canary(version="v2", share=0.1)
    rollout = Rollout(NAME, Release(revision=1, stable="v1", canary=canary))
    share = sum(rollout.goes_to_canary(key(number)) is not None for number in range(CALLS)) / CALLS
    figure(f"a canary of 10 % gets {share:.2%} of {CALLS} made-up calls {'by a key' if key(1) else 'by chance'}")
    assert share == pytest.approx(0.1, abs=0.01)


def test_another_canary_gets_other_keys() -> None:
    keys = [str(number) for number in range(1000)]
    assert [side(0.5, key) for key in keys] != [side(0.5, key, "v3") for key in keys]


async def test_a_key_gets_the_same_side_in_calls_and_batches(models: Path) -> None:
    released_with(models, UNBOUND.model_copy(update={"share": 0.5}))
    async with bench(models) as data_plane:
        for number in range(50):
            one = await data_plane.ask(key=str(number))
            assert await data_plane.ask_all(NAME, NAME, key=str(number)) == [one, one]
            assert await data_plane.ask(key=str(number)) == one


async def test_who_asks_for_stable_never_gets_the_canary(models: Path) -> None:
    released_with(models)
    async with bench(models) as data_plane:
        assert await data_plane.ask() == CANARY
        assert {await data_plane.ask(f"{NAME}@stable") for _ in range(20)} == {STABLE}


# No caller suffers from a canary.


@pytest.mark.parametrize(
    ("error", "speaks_against"),
    [
        (ModelUnusable("bad"), True),
        (ModelNotFound("none"), True),
        (ChecksumMismatch("damaged"), True),
        (NonFiniteLogits("not a number"), True),
        (OutOfCapacity("too large"), True),
        (InvalidRequest("no such label to explain"), True),
        (Unavailable("away"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ServingError) else None,
)
async def test_where_a_canary_fails_stable_answers_and_what_speaks_against_it_is_counted(
    error: ServingError, speaks_against: bool, models: Path
) -> None:
    released_with(models)
    async with bench(models, failing(error)) as data_plane:
        assert await data_plane.ask() == STABLE
        assert await data_plane.ask_all(NAME, NAME) == [STABLE] * 2
        assert data_plane.counts("canary").errors == data_plane.counts("canary").answers == 3 * speaks_against


async def test_a_bug_of_an_engine_at_a_canary_harms_nobody(models: Path) -> None:
    class FakeBroken(FakeBackend):
        async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
            if any(query.model_id == CANARY for query in queries):
                raise ZeroDivisionError
            return await super().predict_batch(queries, call)

    released_with(models)
    async with bench(models, FakeBroken()) as data_plane:
        assert await data_plane.ask() == STABLE
        assert await data_plane.ask_all(NAME, NAME) == [STABLE] * 2
        assert data_plane.counts("canary").errors == 3


async def test_a_canary_that_is_not_there_harms_nobody(models: Path) -> None:
    released_with(models, UNBOUND.model_copy(update={"version": "v9"}))
    async with bench(models) as data_plane:
        assert await data_plane.ask() == STABLE
        assert await data_plane.ask_all(NAME, NAME) == [STABLE] * 2


async def test_what_fails_with_stable_too_says_nothing_of_the_canary(models: Path) -> None:
    released_with(models)
    async with bench(models, failing(InvalidRequest("bad"), versions=("v1", "v2"))) as data_plane:
        with pytest.raises(InvalidRequest):
            await data_plane.ask()
        assert await data_plane.ask_all(NAME) == ["InvalidRequest"]
        assert data_plane.counts("canary").errors == 0


async def test_in_a_batch_the_queries_at_which_a_canary_fails_are_answered_by_stable(models: Path) -> None:
    released_with(models)
    async with bench(models, failing(NonFiniteLogits("not a number"), documents="b")) as data_plane:
        queries = [Query(NAME, document) for document in "abc"]
        outcomes = await data_plane.predictions.predict_batch(queries, a_call())
        assert [getattr(each, "model_id", each) for each in outcomes] == [CANARY, STABLE, CANARY]
        assert (data_plane.counts("canary").answers, data_plane.counts("canary").errors) == (3, 1)


@pytest.mark.parametrize("slow_seconds", [0.0, 3600.0], ids=["had time enough", "had too little time"])
async def test_a_canary_that_hangs_leaves_time_for_stable(slow_seconds: float, models: Path) -> None:
    bounds = ReleaseBounds(slow_seconds=slow_seconds, most_canary_seconds=0.05)
    released_with(models)
    engine = FakeHangingBackend("v2")
    async with bench(models, engine, bounds=bounds) as data_plane:
        assert await data_plane.ask() == STABLE
        assert await data_plane.ask_all(NAME, NAME, f"{NAME}@v3") == [STABLE, STABLE, "intent@v3"]
        assert data_plane.counts("canary").errors == (0 if slow_seconds else 3)
        assert engine.hanging == 0


async def test_a_caller_that_leaves_a_canary_leaves_it(models: Path) -> None:
    released_with(models)
    engine = FakeHangingBackend("v2")
    async with bench(models, engine) as data_plane:
        asking = asyncio.create_task(data_plane.ask())
        await until(lambda: engine.hanging == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert engine.hanging == 0
        assert data_plane.counts("canary").errors == 0


# Compared answers.


async def test_a_canarys_answers_are_compared_with_those_of_stable(models: Path) -> None:
    released_with(models)
    answers = {"v1": {"a": "same", "b": "one"}, "v2": {"a": "same", "b": "another"}}
    engine = FakeBackend(lambda query: a_prediction(query, answers[query.model_id[-2:]][query.document]))
    async with bench(models, engine) as data_plane:
        for _ in range(3):
            assert await data_plane.ask(document="a", k=2, explain=()) == CANARY
            assert await data_plane.ask(document="b") == CANARY
        batch = [Query(NAME, document) for document in "abab"]
        await data_plane.predictions.predict_batch(batch, a_call())
        counts = data_plane.counts("canary")
        await until(lambda: counts.compared == 10)
        assert (counts.answers, counts.agreed, counts.errors, counts.skipped) == (10, 5, 0, 0)
        asked = Counter((query.model_id, query.k, query.explain) for each in engine.batches for query in each)
        assert asked[STABLE, 0, None] == 10, "what is compared is asked for alone"


async def test_a_shadow_is_asked_what_stable_answers_and_its_answers_reach_nobody(models: Path) -> None:
    released_with(models, None, Shadow(version="v3"))
    async with bench(models, FakeBackend(by_version(v1="one", v3="three"))) as data_plane:
        labels = {(await data_plane.predictions.predict(Query(NAME, "x"), a_call())).label for _ in range(5)}
        assert labels == {"one"}
        assert await data_plane.ask_all(NAME, NAME, f"{NAME}@v2") == [STABLE, STABLE, "intent@v2"]
        counts = data_plane.counts("shadow")
        await until(lambda: counts.compared == 7)
        assert (counts.answers, counts.agreed, counts.errors) == (7, 0, 0)
        assert data_plane.counts("stable").answers == 7


async def test_a_shadow_is_asked_for_its_share(models: Path) -> None:
    released_with(models, None, Shadow(version="v3", share=0.5))
    keys = [str(number) for number in range(300)]
    async with bench(models) as data_plane:
        await data_plane.predictions.predict_batch([Query(NAME, "x", key=key) for key in keys], a_call())
        rollout = Rollout(NAME, Release(revision=1, stable="v1", shadow=Shadow(version="v3", share=0.5)))
        expected = [key for key in keys if rollout.goes_to_shadow(key)]
        assert 100 < len(expected) < 200
        counts = data_plane.counts("shadow")
        await until(lambda: counts.compared == len(expected))
        shadowed = [query.key for batch in data_plane.engine.batches for query in batch if query.model_id[-2:] == "v3"]
        assert shadowed == expected


async def test_the_errors_of_a_shadow_are_counted_and_reach_nobody(models: Path) -> None:
    released_with(models, None, Shadow(version="v3"))
    async with bench(models, failing(ModelUnusable("bad"), versions=("v3",))) as data_plane:
        assert await data_plane.ask() == STABLE
        assert await data_plane.ask_all(NAME, NAME) == [STABLE] * 2
        counts = data_plane.counts("shadow")
        await until(lambda: counts.errors == 3)
        assert (counts.answers, counts.compared) == (3, 0)


async def test_a_shadow_that_hangs_delays_nobody_and_is_bounded(models: Path) -> None:
    released_with(models, None, Shadow(version="v3"))
    engine = FakeHangingBackend("v3")
    async with bench(models, engine, bounds=ReleaseBounds(comparison_seconds=NEVER)) as data_plane:
        assert await data_plane.ask_all(*[NAME] * 200) == [STABLE] * 200
        for _ in range(60):
            assert await data_plane.ask() == STABLE
        counts = data_plane.counts("shadow")
        assert counts.skipped == 260 - comparisons.MOST_QUERIES
        await a_turn(5)
        assert engine.hanging == comparisons.MOST_QUERIES - 200 + 1
    assert engine.hanging == 0, "what is compared ends with the service"


async def test_what_takes_too_long_is_not_compared_and_gives_its_room_back(models: Path) -> None:
    released_with(models, None, Shadow(version="v3"))
    engine = FakeHangingBackend("v3")
    async with bench(models, engine, bounds=ReleaseBounds(comparison_seconds=0.02)) as data_plane:
        for turn in range(1, 4):
            await data_plane.ask_all(*[NAME] * comparisons.MOST_QUERIES)
            counts = data_plane.counts("shadow")
            await until(lambda: counts.errors == turn * comparisons.MOST_QUERIES)  # noqa: B023
        assert counts.skipped == 0


async def test_what_is_compared_belongs_to_no_call_that_has_ended(models: Path) -> None:
    contexts: list[Call | None] = []

    class FakeCurious(FakeBackend):
        async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
            if queries[0].model_id.endswith("v3"):
                contexts.extend((current_call(), call))
            return await super().predict_batch(queries, call)

    released_with(models, None, Shadow(version="v3"))
    async with bench(models, FakeCurious()) as data_plane:
        call = a_call()
        await data_plane.predictions.predict(Query(NAME, "x"), call)
        await until(lambda: len(contexts) == 2)
        of_context, asked = contexts
        assert asked is not None
        assert of_context is asked is not call
        assert asked.request_id == call.request_id


async def test_what_is_on_trial_alone_is_counted(models: Path) -> None:
    released_with(models, None)
    async with bench(models) as data_plane:
        await data_plane.ask()
        assert data_plane.releases.trials.of(NAME) == ()
        released_with(models)
        await data_plane.ask()
        assert [each.role for each in data_plane.releases.trials.of(NAME)] == ["stable", "canary"]
