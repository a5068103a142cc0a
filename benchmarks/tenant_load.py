"""Comparison of many tenants with one: the same service, the same load, all models in memory."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from benchmarks.calls import Call, WrongAnswer, ask
from benchmarks.many_bodies import drive
from benchmarks.systems.base import Running
from benchmarks.systems.predictions import PREDICT
from benchmarks.tenants import load_directly, make_tenants
from benchmarks.workload import DOCUMENT, MODEL_ID, MODELS
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query
from serving.stubs import prediction_service_pb2 as pb

_KINDS: Final = 20
_CONNECTIONS: Final = 8
_STREAMS: Final = 8
_LOAD_SECONDS: Final = 60.0


class ServesFolders(Protocol):
    """A system that serves any folder of models."""

    def serve(self, models: Path, workplace: Path, call_at: Callable[[str], Call]) -> AbstractContextManager[Running]:
        """Start the system; yield once the call that ``call_at`` returns for its address gets the right answer."""


@dataclass(frozen=True, slots=True)
class Tenants:
    """A volume of tenants and the label that each answers with."""

    volume: Path
    labels: dict[ModelId, str]

    @classmethod
    def make(cls, folder: Path, count: int) -> Tenants:
        """Create ``count`` tenants below ``folder``, with a few different models."""
        kinds = min(_KINDS, count)
        volume = folder / "models"
        ids = make_tenants(MODELS / MODEL_ID, volume, tenants=count, models=kinds)
        labels = []
        for model_id, model in load_directly(volume, ids[:kinds]).items():
            (outcome,) = model.predict([Query(model_id, DOCUMENT)])
            assert isinstance(outcome, Prediction)
            labels.append(outcome.label)
        return cls(volume, dict(zip(ids, itertools.cycle(labels), strict=False)))


@dataclass(frozen=True, slots=True)
class TenantFigures:
    """Requests per second, 64 in flight, from the same generator."""

    one: float
    many: float


def measure_tenants(system: ServesFolders, tenants: Tenants, *, seconds: float, workplace: Path) -> TenantFigures:
    """Return the request rates for one tenant, and for all tenants with the requests spread evenly over them.

    Raises:
        WrongAnswer: a call failed, or an answer was that of another tenant.
    """
    everyone = list(tenants.labels)
    random.Random(1).shuffle(everyone)

    def call(tenant: ModelId, address: str) -> Call:
        label = tenants.labels[tenant]
        return Call(address, PREDICT, _request(tenant), lambda answer: _check(answer, tenant, label))

    with system.serve(tenants.volume, workplace, partial(call, everyone[0])) as running:
        for tenant in everyone:
            ask(call(tenant, running.predict.address), timeout=_LOAD_SECONDS)
        load = _Load(running.predict.address, tenants.labels)
        requests = max(len(everyone), int(seconds / 2 / load.seconds_each(everyone, 2 * len(everyone))))
        # Forward and backward, so that drift of the machine affects both alike.
        one, many, many_again, one_again = (
            load.seconds_each(who, requests) for who in (everyone[:1], everyone, everyone, everyone[:1])
        )
        return TenantFigures(one=2 / (one + one_again), many=2 / (many + many_again))


@dataclass(frozen=True, slots=True)
class _Load:
    address: str
    labels: dict[ModelId, str]

    def seconds_each(self, tenants: Sequence[ModelId], requests: int) -> float:
        """Query ``tenants`` in turn, check all answers, and return the seconds of the run per request."""
        bodies = [_request(tenant) for tenant in tenants]
        seconds, answers = drive(
            self.address, PREDICT, bodies, requests=requests, connections=_CONNECTIONS, streams=_STREAMS
        )
        for answer in answers:
            if answer.grpc_status != "0":
                raise WrongAnswer(f"a request under load ended with grpc-status {answer.grpc_status}")
            tenant = tenants[answer.body]
            _check(answer.message, tenant, self.labels[tenant])
        return seconds / requests


def _check(message: bytes, tenant: ModelId, label: str) -> None:
    response = pb.PredictResponse.FromString(message)
    if response.model.id != tenant or response.label != label:
        raise WrongAnswer(f"{tenant} got the answer of {response.model.id}: {response.label!r}")


def _request(tenant: ModelId) -> bytes:
    return pb.PredictRequest(runId=tenant, document=DOCUMENT).SerializeToString()
