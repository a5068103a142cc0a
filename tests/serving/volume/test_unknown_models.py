from __future__ import annotations

import pytest

from serving.domain.errors import ModelNotFound
from serving.domain.model_id import ModelId
from serving.volume.unknown_models import UnknownBounds, UnknownModels
from tests.fakes.clock import FakeClock

A, B, C = ModelId("a"), ModelId("b"), ModelId("c")


def is_unknown(models: UnknownModels, model_id: ModelId) -> bool:
    try:
        models.check(model_id)
    except ModelNotFound:
        return True
    return False


def test_a_model_is_unknown_until_its_time_is_over_or_it_is_found() -> None:
    clock = FakeClock()
    models = UnknownModels(UnknownBounds(seconds=2.0), clock)
    models.add(A, ModelNotFound("no such model"))
    models.add(B, ModelNotFound("no such model"))
    models.discard(B)
    models.discard(C)
    clock.now = 1.9
    assert [is_unknown(models, name) for name in (A, B, C)] == [True, False, False]
    clock.now = 2.0
    assert not is_unknown(models, A)


def test_each_caller_gets_a_copy_of_the_error() -> None:
    models = UnknownModels(UnknownBounds())
    models.add(A, ModelNotFound("no such model"))
    caught = []
    for _ in range(2):
        with pytest.raises(ModelNotFound, match="no such model") as refused:
            models.check(A)
        caught.append(refused.value)
    assert caught[0] is not caught[1]


def test_no_more_models_are_remembered_than_may_be() -> None:
    models = UnknownModels(UnknownBounds(most=2))
    for name in (A, B, C):
        models.add(name, ModelNotFound("no such model"))
    assert [is_unknown(models, name) for name in (A, B, C)] == [False, True, True]
