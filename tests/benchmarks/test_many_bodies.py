"""Load with many request bodies, against a real server."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from benchmarks.many_bodies import BrokenConnection, drive
from peers.programs import free_ports

METHOD = "/echo.Echo/Say"


def answer(request: bytes, context: Any) -> bytes:
    if request == b"bad":
        context.abort(grpc.StatusCode.NOT_FOUND, "there is none")
    return b"<" + request + b">"


@pytest.fixture
def address() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    handlers: dict[str, Any] = {"Say": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_bodies_are_sent_in_turn_and_each_gets_its_own_answer(address: str) -> None:
    bodies = [f"body {number}".encode() for number in range(10)]

    seconds, answers = drive(address, METHOD, bodies, requests=1000, connections=4, streams=8)

    assert seconds > 0
    assert Counter(answer.body for answer in answers) == dict.fromkeys(range(10), 100)
    assert all(answer.message == b"<" + bodies[answer.body] + b">" for answer in answers)
    assert {answer.grpc_status for answer in answers} == {"0"}


def test_errors_are_seen_under_load(address: str) -> None:
    _, answers = drive(address, METHOD, [b"good", b"bad"], requests=100, connections=2, streams=4)

    expected = {(0, "0", b"<good>"): 50, (1, str(grpc.StatusCode.NOT_FOUND.value[0]), b""): 50}
    assert Counter((answer.body, answer.grpc_status, answer.message) for answer in answers) == expected


def test_more_than_the_first_window_is_sent(address: str) -> None:
    body = b"x" * 10_000

    _, answers = drive(address, METHOD, [body], requests=200, connections=1, streams=16)

    assert {answer.message for answer in answers} == {b"<" + body + b">"}


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConnectionRefusedError):
        drive(f"127.0.0.1:{free_ports(1)[0]}", METHOD, [b""], requests=1, connections=1, streams=1)


def test_a_server_that_speaks_something_else_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def close_first_caller() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=close_first_caller)
        thread.start()
        with pytest.raises((BrokenConnection, ConnectionError)):
            drive(f"127.0.0.1:{server.getsockname()[1]}", METHOD, [b""], requests=1, connections=1, streams=1)
        thread.join()
