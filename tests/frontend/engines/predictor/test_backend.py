from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from grpc import StatusCode

from frontend.engines.predictor.backend import PredictorBackend
from serving.call.call import current_call
from serving.domain.errors import (
    INTERNAL_MESSAGE,
    DeadlineExceeded,
    OutOfCapacity,
    ServingError,
    Status,
    Unauthenticated,
    Unavailable,
    error_of,
    status_of,
)
from serving.domain.prediction import Prediction, Query
from tests.builders import PATIENCE, a_call, free_port, host_of, hosted, refusing_address, server_settings
from tests.fakes.predictor import echo, fake_predictor
from tests.serving.refusals import assert_fit_for_callers

# UNAUTHENTICATED is left out: it means that the predictor does not know the frontend, not the frontend's caller.
CODES = [code for code in StatusCode if code not in (StatusCode.OK, StatusCode.UNAUTHENTICATED)]

_INSIDES = re.compile(r"127\.0\.0\.1|ipv4|\d{4,}|grpc|rror\b|Failed|socket|recv|0x", re.IGNORECASE)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@asynccontextmanager
async def asking(address: str) -> AsyncIterator[PredictorBackend]:
    backend = PredictorBackend(address)
    try:
        yield backend
    finally:
        await backend.close()


def assert_told_in_our_words(error: ServingError, code: StatusCode) -> None:
    status = status_of(error)
    assert status.code is code
    assert_fit_for_callers(error)
    assert not _INSIDES.search(status.message), status.message


async def test_a_query_is_answered(tmp_path: Path) -> None:
    async with hosted(tmp_path, fake_predictor(echo)) as address, asking(address) as backend:
        assert (await backend.predict(Query("a", "hello"), a_call())).label == "hello"


async def test_a_batch_is_answered_in_its_order(tmp_path: Path) -> None:
    async with hosted(tmp_path, fake_predictor(echo)) as address, asking(address) as backend:
        outcomes = await backend.predict_batch([Query("a", str(number)) for number in range(20)], a_call())
        assert [outcome.label for outcome in outcomes if isinstance(outcome, Prediction)] == [*map(str, range(20))]


async def test_a_caller_is_not_blamed_where_the_predictor_does_not_know_the_frontend(tmp_path: Path) -> None:
    async def refuse(_: Query) -> str:
        raise Unauthenticated("the credential is unknown")

    async with hosted(tmp_path, fake_predictor(refuse)) as address, asking(address) as backend:
        with pytest.raises(Unavailable, match="the operator has to give the frontend") as caught:
            await backend.predict(Query("a", "x"), a_call())
    assert_fit_for_callers(caught.value)
    assert caught.value.tried_enough


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
async def test_a_status_of_the_predictor_passes_unchanged(code: StatusCode, tmp_path: Path) -> None:
    wanted = Status(code, f"what to do about {code.name}, in the predictor's words: é😀")

    async def refuse(_: Query) -> str:
        raise error_of(wanted)

    async with hosted(tmp_path, fake_predictor(refuse)) as address, asking(address) as backend:
        with pytest.raises(ServingError) as caught:
            await backend.predict(Query("a", "x"), a_call())
        assert status_of(caught.value) == wanted
        with pytest.raises(ServingError) as caught:
            await backend.predict_batch([Query("a", "x")], a_call())
        assert status_of(caught.value) == wanted


async def test_a_bug_of_the_predictor_passes_with_the_fixed_text(tmp_path: Path) -> None:
    async def broken(_: Query) -> str:
        raise ValueError("secret")

    async with hosted(tmp_path, fake_predictor(broken)) as address, asking(address) as backend:
        with pytest.raises(ServingError) as caught:
            await backend.predict(Query("a", "x"), a_call())
        assert status_of(caught.value) == Status(StatusCode.INTERNAL, INTERNAL_MESSAGE)


async def test_a_predictor_that_is_down_is_told_as_unavailable_without_its_address() -> None:
    async with asking(refusing_address()) as backend:
        with pytest.raises(Unavailable) as caught:
            await backend.predict(Query("a", "x"), a_call())
        assert_told_in_our_words(caught.value, StatusCode.UNAVAILABLE)


async def test_a_name_that_cannot_be_resolved_is_told_as_unavailable_without_the_name() -> None:
    async with asking("no-such-host.invalid:1") as backend:
        with pytest.raises(Unavailable) as caught:
            await backend.predict(Query("a", "x"), a_call())
        assert_told_in_our_words(caught.value, StatusCode.UNAVAILABLE)
        assert "invalid" not in str(caught.value)


async def test_a_connection_that_breaks_off_is_told_as_unavailable_without_its_insides() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server, asking(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as backend:
        with pytest.raises(Unavailable) as caught:
            await backend.predict(Query("a", "x"), a_call())
        assert_told_in_our_words(caught.value, StatusCode.UNAVAILABLE)


async def test_a_peer_that_speaks_something_else_is_told_without_its_insides() -> None:
    async def speak_http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 404 Not Found\r\nServer: secret/1.0\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak_http1, "127.0.0.1", 0)
    async with server, asking(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as backend:
        with pytest.raises(ServingError) as caught:
            await backend.predict(Query("a", "x"), a_call())
        assert_told_in_our_words(caught.value, status_of(caught.value).code)
        assert "secret" not in str(caught.value)


async def test_a_service_that_does_not_know_the_call_is_told(tmp_path: Path) -> None:
    async with hosted(tmp_path) as address, asking(address) as backend:
        with pytest.raises(ServingError) as caught:
            await backend.predict(Query("a", "x"), a_call())
        assert_told_in_our_words(caught.value, StatusCode.UNIMPLEMENTED)


async def test_a_deadline_that_passes_ends_the_wait_and_the_work(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def hang(_: Query) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    async with hosted(tmp_path, fake_predictor(hang)) as address, asking(address) as backend:
        with pytest.raises(DeadlineExceeded) as caught:
            await backend.predict(Query("a", "x"), a_call(seconds=0.3))
        assert_told_in_our_words(caught.value, StatusCode.DEADLINE_EXCEEDED)
        await asyncio.wait_for(ended.wait(), PATIENCE)


async def test_a_deadline_that_has_passed_asks_nobody(tmp_path: Path) -> None:
    asked: list[Query] = []

    async def remember(query: Query) -> str:
        asked.append(query)
        return ""

    async with hosted(tmp_path, fake_predictor(remember)) as address, asking(address) as backend:
        with pytest.raises(DeadlineExceeded):
            await backend.predict(Query("a", "x"), a_call(seconds=0.0))
        await backend.predict(Query("b", "x"), a_call())
        assert [query.model_id for query in asked] == ["b"]


async def test_a_message_that_is_too_large_is_told_and_the_connection_serves_on(tmp_path: Path) -> None:
    async with hosted(tmp_path, fake_predictor(echo), max_message_bytes=2048) as address, asking(address) as backend:
        with pytest.raises(OutOfCapacity) as caught:
            await backend.predict(Query("a", "x" * 5000), a_call())
        assert_told_in_our_words(caught.value, StatusCode.RESOURCE_EXHAUSTED)
        assert (await backend.predict(Query("a", "x"), a_call())).label == "x"


async def test_the_request_id_and_the_deadline_go_with_the_call(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def remember(_: Query) -> str:
        seen.append((current_call().request_id, current_call().deadline.remaining()))
        return ""

    async with hosted(tmp_path, fake_predictor(remember)) as address, asking(address) as backend:
        await backend.predict(Query("a", "x"), a_call(500.0, "an-id.1"))
        await backend.predict_batch([Query("a", "x")], a_call(1000.0, "an-id.2"))
    (first, first_left), (second, second_left) = seen
    assert (first, second) == ("an-id.1", "an-id.2")
    # A deadline on the wire has three digits, rounded up.
    assert 500.0 - PATIENCE < first_left <= 510.0
    assert 1000.0 - PATIENCE < second_left <= 1010.0


async def test_a_caller_that_leaves_ends_the_work_of_the_predictor(tmp_path: Path) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def hang(_: Query) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    async with hosted(tmp_path, fake_predictor(hang)) as address, asking(address) as backend:
        caller = asyncio.create_task(backend.predict(Query("a", "x"), a_call()))
        await asyncio.wait_for(started.wait(), PATIENCE)
        caller.cancel()
        await asyncio.wait_for(ended.wait(), PATIENCE)
        await asyncio.wait([caller], timeout=PATIENCE)
        assert caller.cancelled()


async def test_it_waits_for_a_predictor_that_comes_later_and_gets_ready_later(tmp_path: Path) -> None:
    port = free_port()
    async with asking(f"127.0.0.1:{port}") as backend:
        waiting = asyncio.create_task(backend.wait_until_ready())
        with pytest.raises(Unavailable):
            await backend.predict(Query("a", "x"), a_call())
        host = host_of(server_settings(tmp_path, port=port), [fake_predictor(echo)])
        await host.start()
        try:
            # The predictor listens and answers, but its health check does not report SERVING yet.
            while True:
                try:
                    await backend.predict(Query("a", "x"), a_call())
                    break
                except Unavailable:
                    assert not waiting.done()
            assert not waiting.done()
            await host.set_serving(True)
            await asyncio.wait_for(waiting, PATIENCE)
        finally:
            await host.stop(0)


async def test_a_predictor_that_comes_back_is_found_again(tmp_path: Path) -> None:
    port = free_port()
    async with asking(f"127.0.0.1:{port}") as backend:
        for _ in range(2):
            async with hosted(tmp_path, fake_predictor(echo), port=port):
                await asyncio.wait_for(backend.wait_until_ready(), PATIENCE)
                assert (await backend.predict(Query("a", "x"), a_call())).label == "x"
            with pytest.raises(Unavailable):
                await backend.predict(Query("a", "x"), a_call())


async def test_waiting_for_readiness_leaves_no_call_open_at_the_predictor(tmp_path: Path) -> None:
    host = host_of(server_settings(tmp_path), [fake_predictor(echo)])
    address = await host.start()
    await host.set_serving(True)
    async with asking(address) as backend:
        await backend.wait_until_ready()
        # A call that is still open would use up the whole grace.
        await asyncio.wait_for(host.stop(grace=3600.0), PATIENCE)
