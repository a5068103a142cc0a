from __future__ import annotations

from predictor.cache.sightings import Sightings
from serving.domain.model_id import ModelId
from tests.builders import fingerprint_of
from tests.fakes.clock import FakeClock

A, B, C = ModelId("a"), ModelId("b"), ModelId("c")


def sightings(most_models: int = 10) -> tuple[Sightings, FakeClock]:
    clock = FakeClock(1000.0)
    return Sightings(1.0, most_models, clock), clock


def test_files_settle_a_second_after_they_were_first_seen_as_they_are() -> None:
    seen, clock = sightings()
    assert not seen.have_settled(A, fingerprint_of(1))
    assert seen.seen(A, fingerprint_of(1)) == 1.0
    clock.now += 0.75
    assert not seen.have_settled(A, fingerprint_of(1))
    assert seen.seen(A, fingerprint_of(1)) == 0.25
    clock.now += 0.25
    assert seen.have_settled(A, fingerprint_of(1))
    assert seen.seen(A, fingerprint_of(1)) == 0.0


def test_files_that_change_begin_anew_even_if_they_change_back() -> None:
    seen, clock = sightings()
    seen.seen(A, fingerprint_of(1))
    clock.now += 1.0
    assert not seen.have_settled(A, fingerprint_of(2))
    assert seen.seen(A, fingerprint_of(2)) == 1.0
    assert not seen.have_settled(A, fingerprint_of(1))


def test_each_model_has_a_time_of_its_own() -> None:
    seen, clock = sightings()
    seen.seen(A, fingerprint_of(1))
    clock.now += 1.0
    seen.seen(B, fingerprint_of(1))
    assert seen.have_settled(A, fingerprint_of(1))
    assert not seen.have_settled(B, fingerprint_of(1))


def test_models_beyond_the_bound_are_forgotten_the_longest_unused_first() -> None:
    seen, clock = sightings(most_models=2)
    seen.seen(A, fingerprint_of(1))
    seen.seen(B, fingerprint_of(1))
    clock.now += 1.0
    assert seen.have_settled(A, fingerprint_of(1))
    seen.seen(C, fingerprint_of(1))
    assert seen.have_settled(A, fingerprint_of(1))
    assert not seen.have_settled(B, fingerprint_of(1))
