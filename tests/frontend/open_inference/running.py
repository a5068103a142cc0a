"""Builders for tests of the Open Inference Protocol: a frontend that speaks the protocol, and requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from grpc import StatusCode

from frontend.engines.backend import Backend
from frontend.open_inference.grpc.servicer import OpenInferenceServicer, open_inference_service
from frontend.open_inference.service import open_inference_servicer
from frontend.predictions.predictions import RoutedPredictions
from frontend.releases.service import build_releases
from frontend.routing.catalog import Catalog
from frontend.routing.router import Router
from serving.domain.explanation import Explanation, LabelExplanation
from serving.domain.prediction import Fallback, Prediction, Query, ScoredLabel
from serving.domain.query_limits import QueryLimits
from serving.stubs import open_inference_pb2 as pb
from serving.stubs import open_inference_pb2_grpc as pb_grpc
from serving.volume.freshness.comparison import ThreadComparison
from serving.volume.model_store import ModelStore
from serving.wire.raw_tensors import pack_bytes
from tests.builders import PATIENCE, channel_to, hosted

LIMITS: Final = QueryLimits(max_document_bytes=64, max_batch_size=8)
CLASSES: Final = {"0": "no", "1": "yes", "2": "maybe"}

Requested = pb.ModelInferRequest.InferRequestedOutputTensor


def an_answer(query: Query) -> Prediction:
    """Return an answer with the label "yes" and as many best labels as the query requests."""
    best = (ScoredLabel("yes", 0.75), ScoredLabel("maybe", 0.2), ScoredLabel("no", 0.05))
    return Prediction("yes", 0.75, best[: query.k], query.model_id, "1.0")


EXPLAINED: Final = Explanation(
    ("a", "ö", "a ö"), (1,), (LabelExplanation("yes", 1.25, 0.5, (0.25, 0.0, 0.5)),), temperature=2.0
)


def an_answer_with_reasons(query: Query) -> Prediction:
    """Return an answer whose label is "yes", or "oos" if 0.75 is below the threshold; explain the answer on request."""
    answer = an_answer(query)._replace(explanation=None if query.explain is None else EXPLAINED)
    threshold = 0.0 if query.threshold is None else query.threshold
    if threshold <= answer.score:
        return answer
    return answer._replace(label="oos", score=0.0, fallback=Fallback(ScoredLabel("yes", 0.75), threshold))


@asynccontextmanager
async def servicer_before(
    models: Path, backend: Backend, *, is_ready: Callable[[], bool] = lambda: True, freshness_seconds: float = 0.0
) -> AsyncIterator[OpenInferenceServicer]:
    """Yield the real servicer, with models in files, before ``backend``."""
    store = ModelStore(models)
    catalog = Catalog(store, threads=2, freshness_seconds=freshness_seconds, comparison=ThreadComparison())
    router = Router({"intent-classification": backend})
    releases = build_releases(
        models,
        catalog,
        router,
        threads=1,
        freshness_seconds=freshness_seconds,
        release_freshness_seconds=freshness_seconds,
        comparison=ThreadComparison(),
    )
    predictions = RoutedPredictions(catalog, router, LIMITS, releases.answers)
    servicer = open_inference_servicer(
        store=store, catalog=catalog, router=router, predictions=predictions, limits=LIMITS, is_ready=is_ready
    )
    try:
        yield servicer
    finally:
        servicer.close()
        await predictions.close()


@dataclass
class Caller:
    """A client of the protocol on its own channel."""

    stub: Any

    async def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """Return the answer."""
        answer: pb.ModelInferResponse = await self.stub.ModelInfer(request, timeout=PATIENCE)
        return answer

    async def refusal(self, method: str, request: Any) -> tuple[StatusCode, str]:
        """Return the code and the message of a refused call."""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(self.stub, method)(request, timeout=PATIENCE)
        return refused.value.code(), refused.value.details() or ""


@asynccontextmanager
async def calling(models: Path, backend: Backend, **options: Any) -> AsyncIterator[Caller]:
    """Yield a client of a real server that speaks the protocol before ``backend``."""
    async with (
        servicer_before(models, backend, **options) as servicer,
        hosted(models, open_inference_service(servicer)) as address,
        channel_to(address) as channel,
    ):
        yield Caller(pb_grpc.GRPCInferenceServiceStub(channel))


def typed(*documents: str, shape: Sequence[int] | None = None, model: str = "model", **fields: Any) -> Any:
    """Return a request with the documents as typed contents."""
    request = pb.ModelInferRequest(model_name=model, **fields)
    tensor = request.inputs.add(name="document", datatype="BYTES", shape=[len(documents)] if shape is None else shape)
    tensor.contents.bytes_contents.extend(document.encode() for document in documents)
    return request


def raw(*documents: str, shape: Sequence[int] | None = None, model: str = "model", **fields: Any) -> Any:
    """Return a request with the documents as raw contents."""
    request = pb.ModelInferRequest(model_name=model, **fields)
    request.inputs.add(name="document", datatype="BYTES", shape=[len(documents)] if shape is None else shape)
    request.raw_input_contents.append(pack_bytes(document.encode() for document in documents))
    return request


def classes_of(count: int, name: str = "score") -> Any:
    """Return a requested output whose parameter ``classification`` is ``count``."""
    return Requested(name=name, parameters={"classification": pb.InferParameter(int64_param=count)})
