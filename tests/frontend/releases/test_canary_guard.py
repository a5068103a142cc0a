"""Canaries beyond their bounds: they are withdrawn without an operator, and not by chance."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from frontend.releases.bounds import ReleaseBounds
from frontend.releases.trials import CANARY, TrialCounts, least_rate, why_beyond_bounds
from serving.domain.errors import ModelUnusable, ReleaseConflict, ServingError, VolumeReadOnly, VolumeUnavailable
from serving.domain.model_id import ModelId
from serving.domain.prediction import Outcome, Query
from serving.domain.releases.release import Canary, Release, ReleaseChange
from serving.volume.model_store import ModelStore
from serving.volume.release_writing import change_release
from tests.builders import PATIENCE, a_prediction, happened
from tests.fakes.backend import FakeBackend
from tests.frontend.releases.running import NAME, Bench, bench, by_version, publish_versions, until, write_release

STABLE, NEW = "intent@v1", "intent@v2"
TERMS = Canary(version="v2", share=1.0, max_error_rate=0.1, max_disagreement=0.3, min_answers=20)
DIFFERENT = by_version(v1="one", v2="two")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish_versions(tmp_path, "v1", "v2", "v3")
    write_release(tmp_path, Release(revision=3, stable="v1", canary=TERMS))
    return tmp_path


def stored(models: Path) -> Release:
    return ModelStore(models).read_release(NAME)


async def ask_until_taken_back(data_plane: Bench, calls: int = 1000) -> int:
    """Make calls until stable answers, and return the number of the canary's answers."""
    for number in range(calls):
        if await data_plane.ask() == STABLE:
            return number
        counts = data_plane.counts("canary")
        await until(lambda: counts.compared == counts.answers)  # noqa: B023
    raise AssertionError("the canary was not taken back")


async def test_a_canary_that_answers_differently_is_taken_back(models: Path) -> None:
    async with bench(models, FakeBackend(DIFFERENT)) as data_plane:
        assert await ask_until_taken_back(data_plane) == TERMS.min_answers
        await until(lambda: stored(models).revision == 4)
        release = stored(models)
        assert (release.stable, release.canary) == ("v1", None)
        assert (release.history[0].action, release.history[0].version) == ("taken back", "v2")
        assert release.history[0].comment == "20 of 20 answers differed from stable"
        assert data_plane.releases.trials.taken_back == 1
        assert {await data_plane.ask() for _ in range(20)} == {STABLE}
        assert data_plane.releases.trials.of(NAME) == ()


async def test_a_canary_that_fails_is_taken_back_and_no_caller_noticed(models: Path) -> None:
    def answer(query: Query) -> Outcome:
        return ModelUnusable("bad") if query.model_id == NEW else a_prediction(query)

    async with bench(models, FakeBackend(answer)) as data_plane:
        assert await data_plane.ask_all(*[NAME] * 50) == [STABLE] * 50
        await until(lambda: stored(models).canary is None)
        assert stored(models).history[0].comment.endswith("answers failed")


async def test_a_canary_within_its_bounds_stays(models: Path) -> None:
    def answer(query: Query) -> Outcome:
        number = int(query.document)
        if query.model_id == NEW and number % 20 == 0:
            return ModelUnusable("bad")
        return a_prediction(query, "another" if query.model_id == NEW and number % 5 == 1 else "same")

    async with bench(models, FakeBackend(answer)) as data_plane:
        for number in range(400):
            await data_plane.ask(document=str(number))
        counts = data_plane.counts("canary")
        await until(lambda: counts.compared == 380)
        assert (counts.errors, counts.agreed) == (20, 300)
        assert stored(models).canary == TERMS


async def test_other_frontends_follow(models: Path) -> None:
    engine = FakeBackend(DIFFERENT)
    async with bench(models, engine) as one, bench(models, FakeBackend()) as other:
        assert await other.ask() == NEW
        await ask_until_taken_back(one)
        await until(lambda: stored(models).canary is None)
        assert await other.ask() == STABLE
        assert other.releases.trials.taken_back == 0


async def test_a_canary_stays_away_at_once_while_its_release_is_being_written(models: Path) -> None:
    writing, go_on = threading.Event(), threading.Event()

    def slowly(name: ModelId, change: Callable[[Release | None], Release]) -> Release:
        writing.set()
        assert go_on.wait(PATIENCE)
        return change_release(models, name, change)

    async with bench(models, FakeBackend(DIFFERENT), write=slowly) as data_plane:
        await ask_until_taken_back(data_plane)
        await happened(writing)
        assert {await data_plane.ask() for _ in range(20)} == {STABLE}
        assert await data_plane.ask(f"{NAME}@canary") == STABLE
        assert stored(models).canary == TERMS
        go_on.set()
        await until(lambda: stored(models).canary is None)


async def test_where_the_volume_is_read_only_the_canary_stays_away_and_the_log_says_once_what_to_do(
    models: Path,
) -> None:
    def refused(*_: object) -> Release:
        raise VolumeReadOnly("this service may only read the model volume")

    with capture_logs() as logs:
        async with bench(models, FakeBackend(DIFFERENT), write=refused) as data_plane:
            await ask_until_taken_back(data_plane)
            assert {await data_plane.ask() for _ in range(50)} == {STABLE}
            await until(lambda: any(line["log_level"] == "error" for line in logs))
            # A change of another part of the release does not bring the canary back.
            write_release(models, Release(revision=4, stable="v1", canary=TERMS, labels={"tested": "v3"}))
            assert {await data_plane.ask() for _ in range(50)} == {STABLE}
            # An operator who puts the canary on trial again does.
            again = ReleaseChange.model_validate(
                {"revision": 5, "at": "2026-01-01T00:00:00Z", "action": "canary", "version": "v2"}
            )
            write_release(models, Release(revision=5, stable="v1", canary=TERMS, history=(again,)))
            assert await data_plane.ask() == NEW
            assert data_plane.counts("canary").answers == 1
    errors = [line for line in logs if line["log_level"] == "error"]
    assert len(errors) == 1
    assert "withdraw the canary" in errors[0]["remedy"]
    assert stored(models).canary == TERMS


@pytest.mark.parametrize(
    "error", [ReleaseConflict("busy"), VolumeUnavailable("away")], ids=lambda error: error.code.name
)
async def test_a_write_that_is_in_the_way_of_another_is_tried_again(error: ServingError, models: Path) -> None:
    bounds = ReleaseBounds(retry_pauses_seconds=(0.01, 0.01))
    tries: list[ModelId] = []

    def at_the_third_try(name: ModelId, change: Callable[[Release | None], Release]) -> Release:
        tries.append(name)
        if len(tries) < 3:
            raise error
        return change_release(models, name, change)

    async with bench(models, FakeBackend(DIFFERENT), write=at_the_third_try, bounds=bounds) as data_plane:
        await ask_until_taken_back(data_plane)
        await until(lambda: stored(models).canary is None)
    assert tries == [NAME] * 3


async def test_a_volume_that_never_answers_is_given_up_and_told(models: Path) -> None:
    bounds = ReleaseBounds(retry_pauses_seconds=(0.01,))

    def never(*_: object) -> Release:
        raise VolumeUnavailable("away")

    with capture_logs() as logs:
        async with bench(models, FakeBackend(DIFFERENT), write=never, bounds=bounds) as data_plane:
            await ask_until_taken_back(data_plane)
            await until(lambda: any(line["log_level"] == "error" for line in logs))
            assert await data_plane.ask() == STABLE


@pytest.mark.parametrize("version", ["v2", "v3"], ids=["with another share", "another version"])
async def test_another_canary_that_was_released_meanwhile_is_left_alone(version: str, models: Path) -> None:
    other = Release(revision=4, stable="v1", canary=Canary(version=version, share=0.5, max_disagreement=1.0))

    def late(name: ModelId, change: Callable[[Release | None], Release]) -> Release:
        write_release(models, other)
        return change_release(models, name, change)

    with capture_logs() as logs:
        async with bench(models, FakeBackend(DIFFERENT), write=late) as data_plane:
            await ask_until_taken_back(data_plane)
            await until(lambda: stored(models) == other)
            assert {await data_plane.ask() for _ in range(100)} == {STABLE, f"intent@{version}"}
    assert stored(models) == other
    assert not [line for line in logs if line["log_level"] == "error"]


async def test_counts_go_on_while_something_else_changes_and_begin_anew_with_another_canary(models: Path) -> None:
    async with bench(models) as data_plane:
        for _ in range(5):
            await data_plane.ask()
        write_release(models, Release(revision=4, stable="v1", canary=TERMS, labels={"tested": "v3"}))
        await data_plane.ask()
        assert data_plane.counts(CANARY).answers == 6
        write_release(models, Release(revision=5, stable="v1", canary=TERMS.model_copy(update={"version": "v3"})))
        await data_plane.ask()
        assert (data_plane.counts(CANARY).version, data_plane.counts(CANARY).answers) == ("v3", 1)


# Judgement.


def canary(**bounds: Any) -> Canary:
    return Canary(version="v2", **bounds)


@pytest.mark.parametrize(
    ("counts", "beyond"),
    [
        ({"answers": 49, "errors": 49}, False),
        ({"answers": 50, "errors": 50}, True),
        ({"answers": 50, "errors": 3}, False),
        ({"answers": 50, "errors": 10}, True),
        ({"answers": 10_000, "errors": 210}, False),
        ({"answers": 10_000, "errors": 300}, True),
        ({"answers": 100, "compared": 49, "agreed": 0}, False),
        ({"answers": 100, "compared": 50, "agreed": 0}, True),
        ({"answers": 100, "compared": 100, "agreed": 75}, False),
        ({"answers": 100, "compared": 100, "agreed": 60}, True),
        ({}, False),
    ],
)
def test_a_canary_is_judged_by_the_least_rate_that_its_counts_allow(counts: dict[str, int], beyond: bool) -> None:
    trial = TrialCounts(CANARY, "v2", **counts)
    assert (why_beyond_bounds(trial, canary(max_error_rate=0.02, max_disagreement=0.2)) is not None) is beyond


@given(trials=st.integers(1, 10**6), share=st.floats(0.0, 1.0))
def test_the_least_rate_is_below_what_was_counted_and_grows_with_it(trials: int, share: float) -> None:
    hits = round(share * trials)
    assert 0.0 <= least_rate(hits, trials) <= hits / trials
    if hits < trials:
        assert least_rate(hits, trials) < least_rate(hits + 1, trials)


def test_the_least_rate_is_that_of_wilson() -> None:
    # Ten of a hundred at three standard deviations: (0.1 + 0.045 - 3 * sqrt(0.0009 + 0.000225)) / 1.09.
    assert least_rate(10, 100) == pytest.approx(0.040712, abs=1e-6)


def test_chance_takes_no_good_canary_back(figure: Callable[[str], None]) -> None:
    chance = random.Random(7)
    terms = canary(max_error_rate=0.02, max_disagreement=0.2)
    taken = 0
    for _ in range(500):
        counts = TrialCounts(CANARY, "v2")
        for _ in range(1000):
            counts.answers += 1
            counts.errors += chance.random() < 0.01
            counts.compared += 1
            counts.agreed += chance.random() < 0.85
            if why_beyond_bounds(counts, terms) is not None:
                taken += 1
                break
    figure(f"of 500 canaries at 1 % errors of 2 and 15 % disagreement of 20, {taken} are taken back in 1,000 answers")
    assert taken <= 15
