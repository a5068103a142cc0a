"""A backend before servers of the Open Inference Protocol: refusals, deadlines, readiness, several servers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack

import pytest
import structlog
from grpc import StatusCode

from serving.domain.errors import (
    DeadlineExceeded,
    InvalidManifest,
    InvalidRequest,
    ModelIncomplete,
    ServingError,
    Unavailable,
)
from serving.domain.prediction import Query
from serving.stubs import open_inference_pb2 as pb
from tests.builders import PATIENCE, a_call, free_port, model_id, refusing_address
from tests.fakes.open_inference import (
    INSIDES,
    FakeOpenInference,
    asking,
    before,
    queries,
    refusing,
    serving,
    told,
)
from tests.serving.refusals import assert_fit_for_callers


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


_TELLS_INSIDES = re.compile(r"secret|Traceback|\d{2,}|127\.0\.0\.1", re.IGNORECASE)

_TOLD_AS = {
    StatusCode.CANCELLED: StatusCode.UNAVAILABLE,
    StatusCode.UNKNOWN: StatusCode.INTERNAL,
    StatusCode.INVALID_ARGUMENT: StatusCode.INVALID_ARGUMENT,
    StatusCode.DEADLINE_EXCEEDED: StatusCode.DEADLINE_EXCEEDED,
    StatusCode.NOT_FOUND: StatusCode.FAILED_PRECONDITION,
    StatusCode.ALREADY_EXISTS: StatusCode.INTERNAL,
    StatusCode.PERMISSION_DENIED: StatusCode.PERMISSION_DENIED,
    StatusCode.UNAUTHENTICATED: StatusCode.UNAUTHENTICATED,
    StatusCode.RESOURCE_EXHAUSTED: StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.FAILED_PRECONDITION: StatusCode.FAILED_PRECONDITION,
    StatusCode.ABORTED: StatusCode.INTERNAL,
    StatusCode.UNIMPLEMENTED: StatusCode.FAILED_PRECONDITION,
    StatusCode.OUT_OF_RANGE: StatusCode.INVALID_ARGUMENT,
    StatusCode.INTERNAL: StatusCode.INTERNAL,
    StatusCode.UNAVAILABLE: StatusCode.UNAVAILABLE,
    StatusCode.DATA_LOSS: StatusCode.INTERNAL,
}


@pytest.mark.parametrize("code", [code for code in StatusCode if code is not StatusCode.OK], ids=lambda code: code.name)
async def test_every_status_of_the_engine_is_told_in_our_words(code: StatusCode) -> None:
    async with before(FakeOpenInference(refusing(code))) as backend:
        with pytest.raises(ServingError) as caught:
            await backend.predict(Query("m", "a"), a_call())
    assert caught.value.code is _TOLD_AS[code]
    assert_fit_for_callers(caught.value)
    assert not _TELLS_INSIDES.search(str(caught.value))


# The messages of Triton 2.51, MLServer 1.7 and former releases of Triton.
UNKNOWN_MODEL = pytest.mark.parametrize(
    ("code", "details"),
    [
        (StatusCode.NOT_FOUND, "Request for unknown model: 'm' is not found"),
        (StatusCode.NOT_FOUND, "Model m with version  not found"),
        (StatusCode.UNAVAILABLE, "Request for unknown model: 'm' has no available versions"),
    ],
)


@UNKNOWN_MODEL
async def test_a_model_that_the_engine_does_not_have_is_told_to_the_publisher(code: StatusCode, details: str) -> None:
    async with before(FakeOpenInference(refusing(code, details=details))) as backend:
        with pytest.raises(ModelIncomplete, match=r"manifest\.json") as caught:
            await backend.predict(Query("m", "a"), a_call())
    assert_fit_for_callers(caught.value)


@UNKNOWN_MODEL
async def test_an_engine_that_starts_or_ends_is_unavailable_for_what_it_does_not_have(
    code: StatusCode, details: str
) -> None:
    engine = FakeOpenInference(refusing(code, details=details))
    engine.ready = False
    async with before(engine) as backend:
        with pytest.raises(Unavailable) as caught:
            await backend.predict(Query("m", "a"), a_call())
        assert_fit_for_callers(caught.value)
    assert engine.asked_whether_ready.is_set()


def described(
    inputs: Sequence[tuple[str, str, Sequence[int]]] = (), outputs: Sequence[str] = ()
) -> pb.ModelMetadataResponse:
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name="m",
        inputs=[tensor(name=name, datatype=datatype, shape=shape) for name, datatype, shape in inputs],
        outputs=[tensor(name=name, datatype="BYTES", shape=[-1, 1]) for name in outputs],
    )


@pytest.mark.parametrize(
    ("metadata", "told_of"),
    [
        (described([("TEXT", "BYTES", [-1, 1])]), "no input 'document'"),
        (described([("document", "INT64", [-1, 1])]), "type BYTES"),
        (described([("document", "BYTES", [-1])]), r"shape \[-1\], and not of \[-1, 1\]"),
        (described([("document", "BYTES", [-1, 8])]), r"shape \[-1, 8\]"),
        (described(outputs=["LABEL", "score"]), "no output 'label'"),
        (described([("document", "BYTES", [-1, 1])], ["label"]), "no output 'score'"),
    ],
)
async def test_a_manifest_that_does_not_fit_the_model_is_told_to_the_publisher(
    metadata: pb.ModelMetadataResponse, told_of: str
) -> None:
    engine = FakeOpenInference(refusing(StatusCode.INVALID_ARGUMENT))
    engine.described = metadata
    async with before(engine) as backend:
        with pytest.raises(InvalidManifest, match=told_of) as caught:
            await backend.predict(Query("m", "a"), a_call())
        assert_fit_for_callers(caught.value)
        # The fault is the same for every document.
        engine.asked.clear()
        assert told(await backend.predict_batch(queries("a", "b"), a_call())) == ["InvalidManifest"] * 2
        assert engine.sizes == [2]


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        described(),
        described([("document", "BYTES", [-1, 1]), ("other", "INT64", [1])], ["label", "score", "other"]),
        described([("document", "BYTES", [1, -1])]),
    ],
)
async def test_a_document_that_the_model_refuses_is_told_to_the_caller(
    metadata: pb.ModelMetadataResponse | None,
) -> None:
    engine = FakeOpenInference(refusing(StatusCode.INVALID_ARGUMENT))
    engine.described = metadata
    async with before(engine) as backend:
        with pytest.raises(InvalidRequest) as caught:
            await backend.predict(Query("m", "a"), a_call())
        assert_fit_for_callers(caught.value)


async def test_an_engine_that_is_down_is_told_as_unavailable() -> None:
    async with asking(refusing_address()) as backend:
        with pytest.raises(Unavailable) as caught:
            await backend.predict(Query("m", "a"), a_call())
        assert_fit_for_callers(caught.value)
        assert not _TELLS_INSIDES.search(str(caught.value))
        assert told(await backend.predict_batch(queries("a", "b"), a_call())) == ["Unavailable", "Unavailable"]


async def test_an_engine_that_comes_back_is_found_again() -> None:
    port = free_port()
    async with asking(f"127.0.0.1:{port}") as backend:
        for _ in range(2):
            async with serving(FakeOpenInference(), port):
                await asyncio.wait_for(backend.wait_until_ready(), PATIENCE)
                assert (await backend.predict(Query("m", "a"), a_call())).label == "a"
            with pytest.raises(Unavailable):
                await backend.predict(Query("m", "a"), a_call())


async def test_a_deadline_that_passes_ends_the_wait_and_the_work() -> None:
    ended = asyncio.Event()

    async def hang(_: list[str]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with before(FakeOpenInference(hang)) as backend:
        with pytest.raises(DeadlineExceeded):
            await backend.predict(Query("m", "a"), a_call(seconds=0.3))
        await asyncio.wait_for(ended.wait(), PATIENCE)


async def test_a_deadline_that_has_passed_asks_nobody() -> None:
    engine = FakeOpenInference()
    async with before(engine) as backend:
        with pytest.raises(DeadlineExceeded):
            await backend.predict(Query("m", "a"), a_call(seconds=0.0))
        assert told(await backend.predict_batch(queries("a", "b"), a_call(seconds=0.0))) == ["DeadlineExceeded"] * 2
    assert not engine.asked


@pytest.mark.slow
async def test_an_engine_that_takes_its_time_is_asked_once_and_not_pinged_until_it_hangs_up() -> None:
    # With a ping each second, as at our own predictor, servers with gRPC's defaults hang up after five seconds.
    async def take_time(_: list[str]) -> None:
        await asyncio.sleep(8.0)

    engine = FakeOpenInference(take_time)
    async with before(engine) as backend:
        assert (await backend.predict(Query("m", "a"), a_call())).label == "a"
    assert engine.sizes == [1]


async def test_a_caller_that_leaves_ends_the_work_of_the_engine() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def hang(_: list[str]) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with before(FakeOpenInference(hang)) as backend:
        caller = asyncio.create_task(backend.predict_batch(queries("a"), a_call()))
        await asyncio.wait_for(started.wait(), PATIENCE)
        caller.cancel()
        await asyncio.wait_for(ended.wait(), PATIENCE)
        await asyncio.wait([caller], timeout=PATIENCE)
        assert caller.cancelled()


# Readiness, and the choice of the server.


async def test_it_waits_until_the_engine_says_that_it_is_ready() -> None:
    engine = FakeOpenInference()
    engine.ready = False
    async with before(engine) as backend:
        waiting = asyncio.create_task(backend.wait_until_ready())
        await asyncio.wait_for(engine.asked_whether_ready.wait(), PATIENCE)
        assert not waiting.done()
        engine.ready = True
        await asyncio.wait_for(waiting, PATIENCE)


async def test_it_waits_for_an_engine_that_comes_later() -> None:
    port = free_port()
    async with asking(f"127.0.0.1:{port}") as backend:
        waiting = asyncio.create_task(backend.wait_until_ready())
        with pytest.raises(Unavailable):
            await backend.predict(Query("m", "a"), a_call())
        assert not waiting.done()
        async with serving(FakeOpenInference(), port):
            await asyncio.wait_for(waiting, PATIENCE)


async def test_an_engine_that_does_not_know_the_question_is_ready() -> None:
    engine = FakeOpenInference(refusing(StatusCode.NOT_FOUND))
    engine.ready = None
    async with before(engine) as backend:
        await asyncio.wait_for(backend.wait_until_ready(), PATIENCE)
        with pytest.raises(ModelIncomplete):
            await backend.predict(Query("m", "a"), a_call())


async def test_models_of_others_are_not_unloaded() -> None:
    async with asking("127.0.0.1:1") as backend:
        with pytest.raises(ServingError) as caught:
            await backend.unload(model_id("m"), a_call())
        assert caught.value.code is StatusCode.UNIMPLEMENTED
        assert_fit_for_callers(caught.value)


async def test_each_model_stays_with_one_of_several_engines() -> None:
    engines = [FakeOpenInference(), FakeOpenInference()]
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(serving(engine)) for engine in engines]
        backend = await stack.enter_async_context(asking(f"ipv4:{first},{second}", partitions=64))
        await asyncio.wait_for(backend.wait_until_ready(), PATIENCE)
        models = [f"model-{number}" for number in range(40)]
        for _ in range(3):
            outcomes = await backend.predict_batch([Query(model, model) for model in models], a_call())
            assert told(outcomes) == models
    homes = [{request.model_name for request in engine.asked} for engine in engines]
    assert all(homes)
    assert not homes[0] & homes[1]


async def test_a_name_that_stands_for_nobody_is_told() -> None:
    async def nobody(_: str, __: int) -> Sequence[str]:
        raise OSError(INSIDES)

    async with asking("engines.invalid:1", look_up=nobody) as backend:
        with pytest.raises(Unavailable) as caught:
            await backend.predict(Query("m", "a"), a_call())
        assert_fit_for_callers(caught.value)
        assert told(await backend.predict_batch(queries("a", "b"), a_call())) == ["Unavailable", "Unavailable"]


async def test_a_document_is_refused_before_anybody_is_asked_where_utf8_cannot_hold_it() -> None:
    engine = FakeOpenInference()
    async with before(engine) as backend:
        with pytest.raises(InvalidRequest):
            await backend.predict(Query("m", "\ud800"), a_call())
    assert not engine.asked
