"""ModelInfer of the Open Inference Protocol, over a real server: contract, forms, outputs, and each refusal's code."""

from __future__ import annotations

import asyncio
import json
import math
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

from serving.call.call import Call
from serving.domain.errors import NonFiniteLogits, OutOfCapacity, ServingError, Unavailable
from serving.domain.prediction import Outcome, Prediction, Query
from serving.stubs import open_inference_pb2 as pb
from serving.wire.raw_tensors import unpack_bytes, unpack_floats
from tests.builders import a_prediction, publish
from tests.fakes.backend import FakeBackend
from tests.frontend.open_inference.running import (
    CLASSES,
    EXPLAINED,
    Requested,
    an_answer,
    an_answer_with_reasons,
    calling,
    classes_of,
    raw,
    typed,
)
from tests.serving.refusals import assert_fit_for_callers

Change = Callable[[Any], object]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish(tmp_path, "model", classes=CLASSES, ModelVersion="1.0")
    return tmp_path


def shapes_of(answer: pb.ModelInferResponse) -> dict[str, tuple[str, list[int]]]:
    return {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in answer.outputs}


async def test_typed_documents_are_answered_typed(models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        answer = await caller.infer(typed("left", "right", "", id="request 7"))

    assert (answer.model_name, answer.model_version, answer.id) == ("model", "1.0", "request 7")
    assert shapes_of(answer) == {"label": ("BYTES", [3]), "score": ("FP32", [3])}
    assert list(answer.outputs[0].contents.bytes_contents) == [b"left", b"right", b""]
    assert list(answer.outputs[1].contents.fp32_contents) == [0.5, 0.5, 0.5]
    assert not answer.raw_output_contents


async def test_raw_documents_are_answered_raw(models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        answer = await caller.infer(raw("left", "ünïcode", id="8"))

    assert [tensor.HasField("contents") for tensor in answer.outputs] == [False, False]
    labels, scores = answer.raw_output_contents
    assert unpack_bytes(labels) == [b"left", "ünïcode".encode()]
    assert unpack_floats(scores, "FP32") == [0.5, 0.5]
    assert answer.id == "8"


@pytest.mark.parametrize("make", [typed, raw], ids=["typed", "raw"])
@pytest.mark.parametrize("shape", [[1], [1, 1], [2], [2, 1]], ids=str)
async def test_outputs_have_the_shape_of_the_input(make: Callable[..., Any], shape: list[int], models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        answer = await caller.infer(make(*["text"] * shape[0], shape=shape))

    assert shapes_of(answer) == {"label": ("BYTES", shape), "score": ("FP32", shape)}


async def test_one_document_is_asked_alone_and_several_as_one_batch(models: Path) -> None:
    class FakeSpy(FakeBackend):
        async def predict(self, query: Query, call: Call) -> Prediction:
            alone.append(query)
            return a_prediction(query)

    alone: list[Query] = []
    engine = FakeSpy()
    async with calling(models, engine) as caller:
        await caller.infer(typed("one"))
        await caller.infer(typed("two", "three"))

    assert alone == [Query("model", "one")]
    assert engine.batches == [[Query("model", "two"), Query("model", "three")]]


@pytest.mark.parametrize(
    ("wanted", "named"),
    [([], ["label", "score"]), (["score"], ["score"]), (["score", "label"], ["score", "label"])],
    ids=str,
)
async def test_outputs_come_as_they_were_asked_for(wanted: Sequence[str], named: Sequence[str], models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        for make in (typed, raw):
            answer = await caller.infer(make("x", outputs=[Requested(name=name) for name in wanted]))
            assert [tensor.name for tensor in answer.outputs] == named
            assert len(answer.raw_output_contents) == (len(named) if make is raw else 0)


async def test_classes_are_told_as_triton_tells_them(models: Path) -> None:
    engine = FakeBackend(an_answer)
    async with calling(models, engine) as caller:
        answer = await caller.infer(typed("x", "y", shape=[2, 1], outputs=[classes_of(2)]))
        assert shapes_of(answer) == {"score": ("BYTES", [2, 2])}
        assert list(answer.outputs[0].contents.bytes_contents) == [b"0.750000:1:yes", b"0.200000:2:maybe"] * 2

        answer = await caller.infer(raw("x", outputs=[Requested(name="label"), classes_of(1)]))
        assert unpack_bytes(answer.raw_output_contents[0]) == [b"yes"]
        assert unpack_bytes(answer.raw_output_contents[1]) == [b"0.750000:1:yes"]
    assert [query.k for batch in engine.batches for query in batch] == [2, 2, 1]


async def test_classes_are_told_of_either_output(models: Path) -> None:
    async with calling(models, FakeBackend(an_answer)) as caller:
        answer = await caller.infer(typed("x", outputs=[classes_of(2, "label"), classes_of(1, "score")]))

    assert [(output.name, output.datatype, list(output.shape)) for output in answer.outputs] == [
        ("label", "BYTES", [1, 2]),
        ("score", "BYTES", [1, 1]),
    ]
    label, score = (list(output.contents.bytes_contents) for output in answer.outputs)
    assert score == label[:1]


async def test_more_classes_than_there_are_stand_for_all_of_them(models: Path) -> None:
    async with calling(models, FakeBackend(an_answer)) as caller:
        answer = await caller.infer(typed("x", outputs=[classes_of(1 << 40)]))

    assert list(answer.outputs[0].shape) == [1, 3]
    assert answer.outputs[0].contents.bytes_contents[2] == b"0.050000:0:no"


async def test_classes_that_an_engine_does_not_tell_are_not_made_up(models: Path) -> None:
    def label_alone(query: Query) -> Prediction:
        return Prediction("yes", 0.5, (), query.model_id, "")

    async with calling(models, FakeBackend(label_alone)) as caller:
        answer = await caller.infer(typed("x", outputs=[classes_of(1)]))
        assert list(answer.outputs[0].contents.bytes_contents) == [b"0.500000:1:yes"]

        code, message = await caller.refusal("ModelInfer", typed("x", outputs=[classes_of(2)]))
        assert (code, "fewer" in message) == (StatusCode.FAILED_PRECONDITION, True)


async def test_a_label_that_the_manifest_does_not_have_has_no_index(models: Path) -> None:
    async with calling(models, FakeBackend(lambda query: a_prediction(query, "stranger"))) as caller:
        code, message = await caller.refusal("ModelInfer", typed("x", outputs=[classes_of(1)]))

    assert (code, "classes" in message) == (StatusCode.FAILED_PRECONDITION, True)


async def test_an_older_copy_gets_no_indices_of_the_new_manifest(models: Path) -> None:
    async with calling(models, FakeBackend(an_answer)) as caller:
        # The labels have changed places; the engine answers from its older copy until it has loaded the new one.
        publish(models, "model", classes={"0": "maybe", "1": "no", "2": "yes"}, ModelVersion="2.0")
        for documents in (["x"], ["x", "y"]):
            request = typed(*documents, outputs=[classes_of(1)])
            code, message = await caller.refusal("ModelInfer", request)
            assert (code, "ask again" in message) == (StatusCode.UNAVAILABLE, True)
        answer = await caller.infer(typed("x"))
        assert answer.model_version == "1.0", "without classes, the older copy's answer is as good as any"


async def test_a_model_without_classes_in_its_manifest_answers_all_but_classes(models: Path) -> None:
    publish(models, "model", classes={})
    async with calling(models, FakeBackend()) as caller:
        assert (await caller.infer(typed("x"))).outputs[0].contents.bytes_contents == [b"x"]
        code, _ = await caller.refusal("ModelInfer", typed("x", outputs=[classes_of(1)]))

    assert code is StatusCode.FAILED_PRECONDITION


# Thresholds and explanations


BEST = [Requested(name="best_score"), Requested(name="label"), Requested(name="best_label"), Requested(name="score")]


@pytest.mark.parametrize(
    ("value", "threshold"),
    [
        ({"double_param": 0.8}, 0.8), ({"string_param": "0.8"}, 0.8), ({"int64_param": 1}, 1.0),
        ({"uint64_param": 1}, 1.0), ({"int64_param": 0}, 0.0), ({"string_param": "0"}, 0.0),
    ],
    ids=str,
)  # fmt: skip
async def test_a_threshold_is_of_the_whole_request_in_each_form(
    value: dict[str, Any], threshold: float, models: Path
) -> None:
    engine = FakeBackend()
    request = typed("x", "y")
    with_threshold(**value)(request)
    async with calling(models, engine) as caller:
        await caller.infer(request)
        await caller.infer(typed("x"))

    assert [[query.threshold for query in batch] for batch in engine.batches] == [[threshold] * 2, [None]]


@pytest.mark.parametrize("make", [typed, raw], ids=["typed", "raw"])
async def test_what_fell_back_tells_its_best_label_and_score_on_request(make: Callable[..., Any], models: Path) -> None:
    async with calling(models, FakeBackend(an_answer_with_reasons)) as caller:
        request = make("x", "y", shape=[2, 1], outputs=BEST)
        with_threshold(double_param=0.8)(request)
        fell_back = await caller.infer(request)
        answered = await caller.infer(make("x", "y", shape=[2, 1], outputs=BEST))

    assert elements_of(fell_back) == {
        "best_score": [0.75] * 2, "label": [b"oos"] * 2, "best_label": [b"yes"] * 2, "score": [0.0] * 2,
    }  # fmt: skip
    assert elements_of(answered) == {
        "best_score": [0.75] * 2, "label": [b"yes"] * 2, "best_label": [b"yes"] * 2, "score": [0.75] * 2,
    }  # fmt: skip
    assert shapes_of(answered)["best_label"] == ("BYTES", [2, 1])
    assert shapes_of(answered)["best_score"] == ("FP32", [2, 1])


def elements_of(answer: pb.ModelInferResponse) -> dict[str, Any]:
    """Return the elements of each output, typed or raw."""
    found: dict[str, Any] = {}
    for number, tensor in enumerate(answer.outputs):
        if not answer.raw_output_contents:
            found[tensor.name] = list(tensor.contents.bytes_contents or tensor.contents.fp32_contents)
        elif tensor.datatype == "BYTES":
            found[tensor.name] = unpack_bytes(answer.raw_output_contents[number])
        else:
            found[tensor.name] = unpack_floats(answer.raw_output_contents[number], "FP32")
    return found


async def test_who_asks_for_nothing_new_gets_what_there_was_before(models: Path) -> None:
    async with calling(models, FakeBackend(an_answer_with_reasons)) as caller:
        request = typed("x")
        with_threshold(double_param=0.8)(request)
        answer = await caller.infer(request)

    assert elements_of(answer) == {"label": [b"oos"], "score": [0.0]}


async def test_classes_are_told_whatever_the_threshold(models: Path) -> None:
    async with calling(models, FakeBackend(an_answer_with_reasons)) as caller:
        request = typed("x", outputs=[classes_of(2)])
        with_threshold(double_param=0.8)(request)
        assert elements_of(await caller.infer(request)) == {"score": [b"0.750000:1:yes", b"0.200000:2:maybe"]}


async def test_of_an_engine_that_tells_no_classes_the_best_one_is_told_whatever_the_threshold(models: Path) -> None:
    def without_best(query: Query) -> Prediction:
        return an_answer_with_reasons(query)._replace(best=())

    async with calling(models, FakeBackend(without_best)) as caller:
        request = typed("x", outputs=[classes_of(1)])
        with_threshold(double_param=0.8)(request)
        assert elements_of(await caller.infer(request)) == {"score": [b"0.750000:1:yes"]}


@pytest.mark.parametrize("make", [typed, raw], ids=["typed", "raw"])
async def test_an_explanation_is_json_for_each_document(make: Callable[..., Any], models: Path) -> None:
    engine = FakeBackend(an_answer_with_reasons)
    async with calling(models, engine) as caller:
        answer = await caller.infer(make("x", "y", outputs=[Requested(name="explanation"), Requested(name="label")]))

    assert shapes_of(answer) == {"explanation": ("BYTES", [2]), "label": ("BYTES", [2])}
    assert [query.explain for batch in engine.batches for query in batch] == [(), ()]
    first, second = map(json.loads, elements_of(answer)["explanation"])
    assert first == second == {
        "tokens": ["a", "ö", "a ö"],
        "unknown": [1],
        "labels": [{"label": "yes", "logit": 1.25, "bias": 0.5, "contributions": [0.25, 0.0, 0.5]}],
        "temperature": EXPLAINED.temperature,
    }  # fmt: skip


async def test_an_explanation_that_the_engine_does_not_give_is_refused(models: Path) -> None:
    async with calling(models, FakeBackend(an_answer)) as caller:
        code, message = await caller.refusal("ModelInfer", typed("x", outputs=[Requested(name="explanation")]))

    assert (code, "explain" in message) == (StatusCode.FAILED_PRECONDITION, True)
    assert_fit_for_callers(ServingError(message))


# Refusals


def of_input(**fields: Any) -> Change:
    """Return a change of the first input."""

    def change(request: pb.ModelInferRequest) -> None:
        request.inputs[0].MergeFrom(pb.ModelInferRequest.InferInputTensor(**fields))

    return change


def with_shape(*shape: int) -> Change:
    def change(request: pb.ModelInferRequest) -> None:
        request.inputs[0].shape[:] = shape

    return change


def with_raw(*entries: bytes) -> Change:
    def change(request: pb.ModelInferRequest) -> None:
        del request.raw_input_contents[:]
        request.raw_input_contents.extend(entries)

    return change


def instead(request: pb.ModelInferRequest) -> Change:
    return lambda changed: changed.CopyFrom(request)


def two_raw(_: str) -> pb.ModelInferRequest:
    request: pb.ModelInferRequest = raw("x", "y")
    return request


def with_outputs(*outputs: Any) -> Change:
    return lambda request: request.outputs.extend(outputs)


def with_timeout(**value: Any) -> Change:
    return lambda request: request.parameters["timeout"].MergeFrom(pb.InferParameter(**value))


def with_threshold(**value: Any) -> Change:
    return lambda request: request.parameters["threshold"].MergeFrom(pb.InferParameter(**value))


SHARED_MEMORY = {"shared_memory_region": pb.InferParameter(string_param="region")}

REFUSALS: dict[str, tuple[Callable[..., Any], Change, str]] = {
    "no input": (typed, lambda request: request.ClearField("inputs"), "exactly one input"),
    "another input": (typed, of_input(name="text"), "'document'"),
    "two inputs": (typed, lambda request: request.inputs.add().CopyFrom(request.inputs[0]), "exactly one input"),
    "another datatype": (typed, of_input(datatype="FP32"), "datatype BYTES"),
    "no datatype": (typed, lambda request: request.inputs[0].ClearField("datatype"), "datatype BYTES"),
    "no shape": (typed, with_shape(), "shape"),
    "no documents": (typed, with_shape(0), "at least one"),
    "a size that is left open": (typed, with_shape(-1), "shape"),
    "several columns": (typed, with_shape(1, 2), "shape"),
    "three dimensions": (typed, with_shape(1, 1, 1), "shape"),
    "documents in the second dimension": (typed, with_shape(1, 0), "shape"),
    "more elements than the shape": (typed, of_input(contents=pb.InferTensorContents(bytes_contents=[b"y"])), "have 2"),
    "fewer elements than the shape": (typed, with_shape(2), "requires 2 elements"),
    "no contents": (typed, lambda request: request.inputs[0].ClearField("contents"), "have 0"),
    "contents of another type": (typed, of_input(contents=pb.InferTensorContents(int_contents=[1])), "bytes_contents"),
    "no UTF-8": (raw, with_raw(b"\2\0\0\0\xc0\xaf"), "row 0 .* UTF-8"),
    "no UTF-8 in the second of two": (two_raw, with_raw(b"\1\0\0\0x\1\0\0\0\xff"), "row 1 .* UTF-8"),
    "more documents than are taken": (typed, instead(typed(*["x"] * 9)), "at most 8 documents"),
    "more documents than are sent": (typed, with_shape(1 << 62), "at most 8 documents"),
    "a document that is too long": (typed, instead(typed("x" * 65)), "at most 64 bytes"),
    "a long document among others": (typed, instead(typed("x", "x" * 65)), "row 1 of 2: .*64"),
    "raw and typed at once": (raw, of_input(contents=pb.InferTensorContents(bytes_contents=[b"x"])), "in one form"),
    "raw and empty contents": (raw, of_input(contents=pb.InferTensorContents()), "in one form"),
    "two raw entries for one input": (raw, lambda request: request.raw_input_contents.append(b""), "exactly one entry"),
    "raw entries without an input": (raw, lambda request: request.ClearField("inputs"), "exactly one entry"),
    "a raw length beyond the end": (raw, with_raw(b"\5\0\0\0text"), "little-endian"),
    "a raw length that is cut off": (raw, with_raw(b"\1\0\0\0x\1\0"), "little-endian"),
    "a raw length in big-endian": (raw, with_raw(b"\0\0\0\1x"), "little-endian"),
    "raw elements that are too few": (raw, with_raw(b""), "have 0"),
    "raw elements that are too many": (raw, with_raw(b"\0\0\0\0\0\0\0\0"), "have 2"),
    "an unknown output": (typed, with_outputs(Requested(name="logits")), "'label' and 'score'"),
    "classes of an output that has none": (typed, with_outputs(classes_of(1, "best_label")), "classification"),
    "an output asked for twice": (typed, with_outputs(Requested(name="label"), Requested(name="label")), "once"),
    "no classes": (typed, with_outputs(classes_of(0)), "at least 1"),
    "fewer than no classes": (typed, with_outputs(classes_of(-1)), "at least 1"),
    "classes that are no number": (
        typed, with_outputs(Requested(name="score", parameters={"classification": pb.InferParameter(bool_param=True)})),
        "whole number"),
    "an input in shared memory": (typed, of_input(parameters=SHARED_MEMORY), "shared memory"),
    "an output in shared memory": (
        typed, with_outputs(Requested(name="label", parameters=SHARED_MEMORY)), "shared memory"),
    "a timeout that is no number": (typed, with_timeout(string_param="1 s"), "microseconds"),
    "a timeout before now": (typed, with_timeout(int64_param=-1), "microseconds"),
    "a threshold above 1": (typed, with_threshold(double_param=1.5), "from 0 to 1"),
    "a threshold below 0": (typed, with_threshold(int64_param=-1), "from 0 to 1"),
    "a threshold that is no number": (typed, with_threshold(double_param=math.nan), "from 0 to 1"),
    "a threshold that is true": (typed, with_threshold(bool_param=True), "from 0 to 1"),
    "a threshold that is a word": (typed, with_threshold(string_param="high"), "from 0 to 1"),
    "a threshold without a value": (typed, with_threshold(), "from 0 to 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
async def test_what_is_not_as_the_protocol_says_is_an_invalid_argument(name: str, models: Path) -> None:
    make, change, told = REFUSALS[name]
    request = make("x")
    change(request)
    engine = FakeBackend()
    async with calling(models, engine) as caller:
        code, message = await caller.refusal("ModelInfer", request)
        assert code is StatusCode.INVALID_ARGUMENT
        assert re.search(told, message), message
        assert_fit_for_callers(ServingError(message))
        # The refusal affects no other call.
        assert (await caller.infer(typed("x"))).outputs[0].contents.bytes_contents == [b"x"]


async def test_a_message_that_is_none_is_an_invalid_argument(models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        caller.stub.ModelInfer._request_serializer = lambda data: data
        code, _ = await caller.refusal("ModelInfer", b"\xff" * 16)

    assert code is StatusCode.INVALID_ARGUMENT


async def test_parameters_that_are_not_known_change_nothing(models: Path) -> None:
    request = typed(
        "x", outputs=[Requested(name="label", parameters={"binary_data": pb.InferParameter(bool_param=True)})]
    )
    request.parameters["sequence_id"].int64_param = 7
    request.parameters["sequence_start"].bool_param = True
    request.parameters["priority"].uint64_param = 3
    request.parameters["mine"].double_param = 0.5
    request.inputs[0].parameters["content_type"].string_param = "str"
    async with calling(models, FakeBackend()) as caller:
        assert (await caller.infer(request)).outputs[0].contents.bytes_contents == [b"x"]


@pytest.mark.parametrize(
    "name",
    ["unknown", "", "..", "../model", "/etc", "a b", "model\n", "x" * 5000, "MODEL"],
    ids=lambda name: ascii(name)[:20],
)
async def test_a_name_that_no_model_has_is_not_found(name: str, models: Path) -> None:
    async with calling(models, FakeBackend()) as caller:
        code, message = await caller.refusal("ModelInfer", typed("x", model=name))

    assert code is StatusCode.NOT_FOUND
    assert "name" in message
    assert "runId" not in message
    assert_fit_for_callers(ServingError(message))


@pytest.mark.parametrize(("told", "versions"), [("2.1", ["", "2.1"]), (None, ["", "1"])], ids=["told", "not told"])
async def test_a_model_has_the_version_of_its_manifest(told: str | None, versions: list[str], models: Path) -> None:
    publish(models, "model", ModelVersion=told)
    engine = FakeBackend(lambda query: Prediction("yes", 1.0, (), query.model_id, told or ""))
    async with calling(models, engine) as caller:
        for version in versions:
            answer = await caller.infer(typed("x", model_version=version))
            assert answer.model_version == versions[-1]
        for version in ("1.0", "-1", "2", "2.1 ", "latest"):
            code, message = await caller.refusal("ModelInfer", typed("x", model_version=version))
            assert (code, "version" in message) == (StatusCode.NOT_FOUND, True)


async def test_the_version_in_the_answer_is_the_one_that_answered(models: Path) -> None:
    engine = FakeBackend(lambda query: Prediction("yes", 1.0, (), query.model_id, "2.0"))
    async with calling(models, engine) as caller:
        assert (await caller.infer(typed("x"))).model_version == "2.0"
        # A caller that requests a version gets no other version.
        code, _ = await caller.refusal("ModelInfer", typed("x", model_version="1.0"))
        assert code is StatusCode.NOT_FOUND


async def test_an_engine_with_versions_of_its_own_changes_nothing_where_the_manifest_tells_none(models: Path) -> None:
    publish(models, "model")
    engine = FakeBackend(lambda query: Prediction("yes", 1.0, (), query.model_id, "7"))
    async with calling(models, engine) as caller:
        for version in ("", "1"):
            assert (await caller.infer(typed("x", model_version=version))).model_version == "1"


async def test_rows_that_two_versions_answered_are_not_told_as_one(models: Path) -> None:
    engine = FakeBackend(lambda query: Prediction("yes", 1.0, (), query.model_id, query.document))
    async with calling(models, engine) as caller:
        code, message = await caller.refusal("ModelInfer", typed("1.0", "2.0"))

    assert (code, "again" in message) == (StatusCode.UNAVAILABLE, True)


async def test_a_document_without_an_answer_fails_all_and_its_row_is_told(models: Path) -> None:
    def answer(query: Query) -> Outcome:
        return NonFiniteLogits("the answer is no number") if query.document == "bad" else a_prediction(query)

    async with calling(models, FakeBackend(answer)) as caller:
        assert await caller.refusal("ModelInfer", typed("a", "b", "bad")) == (
            StatusCode.INTERNAL, "row 2 of 3: the answer is no number"
        )  # fmt: skip
        assert await caller.refusal("ModelInfer", typed("bad")) == (StatusCode.INTERNAL, "the answer is no number")
        assert await caller.refusal("ModelInfer", typed("bad", "bad")) == (
            StatusCode.INTERNAL, "the answer is no number"
        )  # fmt: skip


@pytest.mark.parametrize("error", [Unavailable("away"), OutOfCapacity("full")], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("documents", [["x"], ["x", "y"]], ids=["one", "two"])
async def test_a_status_of_the_engine_passes_unchanged(error: ServingError, documents: list[str], models: Path) -> None:
    async with calling(models, FakeBackend(failure=error)) as caller:
        assert await caller.refusal("ModelInfer", typed(*documents)) == (error.code, str(error))


async def test_a_model_that_is_there_and_cannot_be_served_is_told_as_predict_tells_it(models: Path) -> None:
    publish(models, "foreign", Algorithm="image-segmentation")
    (models / "empty").mkdir()
    publish(models, "damaged")
    (models / "damaged" / "manifest.json").write_text("{")
    async with calling(models, FakeBackend()) as caller:
        for name, told in (("foreign", "no engine"), ("empty", "manifest.json"), ("damaged", "manifest.json")):
            for documents in (["x"], ["x", "y"]):
                code, message = await caller.refusal("ModelInfer", typed(*documents, model=name))
                assert (code, told in message) == (StatusCode.FAILED_PRECONDITION, True)


async def test_a_timeout_shortens_the_deadline_of_its_request(models: Path) -> None:
    class FakeSlow(FakeBackend):
        async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
            remaining.append(call.deadline.remaining())
            await asyncio.Event().wait()
            raise AssertionError

    remaining: list[float] = []
    async with calling(models, FakeSlow()) as caller:
        request = typed("x", "y")
        request.parameters["timeout"].int64_param = 50_000
        code, message = await caller.refusal("ModelInfer", request)

    assert (code, "timeout" in message) == (StatusCode.DEADLINE_EXCEEDED, True)
    assert remaining[0] <= 0.05


@pytest.mark.parametrize(
    "value",
    [pb.InferParameter(int64_param=0), pb.InferParameter(uint64_param=(1 << 64) - 1)],
    ids=["none", "for ever"],
)
async def test_a_timeout_of_zero_or_for_ever_shortens_nothing(value: pb.InferParameter, models: Path) -> None:
    request = typed("x")
    request.parameters["timeout"].CopyFrom(value)
    engine = FakeBackend()
    async with calling(models, engine) as caller:
        assert (await caller.infer(request)).outputs[0].contents.bytes_contents == [b"x"]
    assert engine.calls[0].deadline.remaining() > 1


async def test_scores_are_told_in_four_bytes(models: Path) -> None:
    def third(query: Query) -> Prediction:
        return Prediction("yes", 1 / 3, (), query.model_id, "1.0")

    async with calling(models, FakeBackend(third)) as caller:
        answer = await caller.infer(raw("x", "y"))

    assert answer.raw_output_contents[1] == struct.pack("<2f", 1 / 3, 1 / 3)
