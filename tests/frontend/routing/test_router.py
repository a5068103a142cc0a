from __future__ import annotations

import pytest
from grpc import StatusCode

from frontend.routing.router import Router
from serving.domain.errors import NoBackend, status_of
from serving.domain.manifest import Manifest
from tests.fakes.backend import FakeBackend
from tests.serving.refusals import refused


def manifest(algorithm: str) -> Manifest:
    return Manifest(Algorithm=algorithm)


def test_a_model_goes_to_the_engine_of_its_algorithm() -> None:
    ours, other = FakeBackend(), FakeBackend()
    router = Router({"intent-classification": ours, "intent-classification-torch": other})
    assert router.backend_for(manifest("intent-classification")) is ours
    assert router.backend_for(manifest("intent-classification-torch")) is other


@pytest.mark.parametrize("algorithm", ["Intent-Classification", "intent", "intent-classification ", "*", "{}"])
def test_an_algorithm_without_a_route_is_told_and_not_guessed(algorithm: str) -> None:
    router = Router({"intent-classification": FakeBackend()})
    with refused(NoBackend) as caught:
        router.backend_for(manifest(algorithm))
    assert status_of(caught.value).code is StatusCode.FAILED_PRECONDITION


def test_an_engine_of_several_algorithms_is_listed_once() -> None:
    ours, other = FakeBackend(), FakeBackend()
    assert Router({"a": ours, "b": other, "c": ours}).backends == (ours, other)


def test_routes_that_change_afterwards_do_not_change_the_router() -> None:
    table = {"a": FakeBackend()}
    router = Router(table)
    table.clear()
    assert isinstance(router.backend_for(manifest("a")), FakeBackend)
