"""For any message, the servicer answers as the protocol says or refuses with an error of the tree."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from serving.call.call import enter_call
from serving.domain.errors import ServingError
from serving.stubs import open_inference_pb2 as pb
from serving.wire.raw_tensors import pack_bytes, unpack_bytes, unpack_floats
from tests.builders import a_call, publish
from tests.fakes.backend import FakeBackend
from tests.frontend.open_inference.running import CLASSES, LIMITS, an_answer_with_reasons, servicer_before
from tests.serving.refusals import assert_fit_for_callers


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    publish(root, "model", classes=CLASSES, ModelVersion="1.0")
    publish(root, "foreign", Algorithm="image-segmentation")
    return root


parameters = st.dictionaries(
    st.sampled_from(["classification", "timeout", "threshold", "shared_memory_region", "priority", ""]),
    st.builds(pb.InferParameter, int64_param=st.integers(-2, 1 << 40))
    | st.builds(pb.InferParameter, string_param=st.text(max_size=3))
    | st.builds(pb.InferParameter, double_param=st.floats())
    | st.just(pb.InferParameter()),
    max_size=2,
)
few = st.lists(st.binary(max_size=4) | st.text(max_size=4).map(str.encode), max_size=3)
contents = st.builds(
    pb.InferTensorContents, bytes_contents=few, fp32_contents=st.lists(st.floats(width=32), max_size=1)
)
shapes = st.lists(st.integers(-1, 3) | st.integers(-(1 << 63), (1 << 63) - 1), max_size=3)
inputs = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["document", "document", "other", ""]),
    datatype=st.sampled_from(["BYTES", "BYTES", "FP32", "", "bytes"]),
    shape=shapes,
    parameters=st.just({}) | parameters,
    contents=st.none() | contents,
)
outputs = st.builds(
    pb.ModelInferRequest.InferRequestedOutputTensor,
    name=st.sampled_from(["label", "score", "score", "best_label", "best_score", "explanation", "other"]),
    parameters=st.just({}) | parameters,
)
requests = st.builds(
    pb.ModelInferRequest,
    model_name=st.sampled_from(["model", "model", "model", "foreign", "unknown", "..", ""]) | st.text(max_size=4),
    model_version=st.sampled_from(["", "", "1.0", "2"]) | st.text(max_size=3),
    id=st.text(max_size=5),
    parameters=st.just({}) | parameters,
    inputs=st.lists(inputs, max_size=2),
    outputs=st.lists(outputs, max_size=3),
    raw_input_contents=st.just([]) | st.lists(few.map(pack_bytes) | st.binary(max_size=9), max_size=2),
)


def outcome_of(models: Path, request: pb.ModelInferRequest) -> pb.ModelInferResponse | ServingError:
    async def ask() -> pb.ModelInferResponse | ServingError:
        enter_call(a_call())
        async with servicer_before(models, FakeBackend(an_answer_with_reasons)) as servicer:
            try:
                return await servicer.ModelInfer(request)
            except ServingError as error:
                return error

    return asyncio.run(ask())


def assert_sound(request: pb.ModelInferRequest, outcome: pb.ModelInferResponse | ServingError) -> None:
    if isinstance(outcome, ServingError):
        assert_fit_for_callers(outcome)
        return
    assert (outcome.model_name, outcome.id) == (request.model_name, request.id)
    raw = bool(request.raw_input_contents)
    assert len(outcome.raw_output_contents) == (len(outcome.outputs) if raw else 0)
    assert [tensor.name for tensor in outcome.outputs] == [
        output.name for output in request.outputs
    ] or not request.outputs
    for number, tensor in enumerate(outcome.outputs):
        assert tensor.HasField("contents") is not raw
        elements: Any
        if tensor.datatype == "BYTES":
            elements = unpack_bytes(outcome.raw_output_contents[number]) if raw else tensor.contents.bytes_contents
        else:
            data = outcome.raw_output_contents[number] if raw else b""
            elements = unpack_floats(data, "FP32") if raw else tensor.contents.fp32_contents
        assert len(elements) == math.prod(tensor.shape)
        assert tensor.shape[0] == request.inputs[0].shape[0] <= LIMITS.max_batch_size


@given(requests)
def test_any_request_is_answered_or_refused(models: Path, request: pb.ModelInferRequest) -> None:
    assert_sound(request, outcome_of(models, request))


@given(requests, st.data())
def test_any_bytes_are_answered_or_refused(models: Path, request: pb.ModelInferRequest, data: st.DataObject) -> None:
    whole = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        damaged = pb.ModelInferRequest.FromString(bytes(whole))
    except DecodeError:
        return  # the boundary's business
    assert_sound(damaged, outcome_of(models, damaged))


@given(
    st.lists(st.text(max_size=12), min_size=1, max_size=LIMITS.max_batch_size),
    st.booleans(),
    st.booleans(),
)
def test_documents_arrive_as_they_were_sent(models: Path, documents: list[str], raw: bool, column: bool) -> None:
    request = pb.ModelInferRequest(model_name="model")
    request.inputs.add(name="document", datatype="BYTES", shape=[len(documents), *([1] if column else [])])
    if raw:
        request.raw_input_contents.append(pack_bytes(document.encode() for document in documents))
    else:
        request.inputs[0].contents.bytes_contents.extend(document.encode() for document in documents)
    engine = FakeBackend()

    async def ask() -> None:
        enter_call(a_call())
        async with servicer_before(models, engine) as servicer:
            await servicer.ModelInfer(request)

    asyncio.run(ask())
    assert [query.document for batch in engine.batches for query in batch] == documents
