from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serving.runtime.supervision.reservation import Reservation
from serving.transport.hosts.listening import CannotListen

HOST = "127.0.0.1"


@contextmanager
def listening(port: int, *, shared: bool = True) -> Iterator[socket.socket]:
    """Listen on the port, as a worker does."""
    with socket.socket() as it:
        it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        it.bind((HOST, port))
        it.listen()
        yield it


def test_any_port_becomes_one_port_on_which_all_workers_listen() -> None:
    with Reservation() as reservation:
        port = reservation.take(HOST, 0)
        with listening(port), listening(port), socket.create_connection((HOST, port)):
            pass


def test_until_a_worker_listens_nobody_is_connected() -> None:
    with Reservation() as reservation:
        port = reservation.take(HOST, 0)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port))


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_another_process_listens_on_cannot_be_had_even_if_that_would_share_it(shared: bool) -> None:
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    with listening(port, shared=shared), Reservation() as reservation:
        with pytest.raises(CannotListen, match=f"cannot listen on {HOST}:{port}: it is in use"):
            reservation.take(HOST, port)
        with pytest.raises(CannotListen, match=f"cannot listen on {HOST}:{port} for health checks: it is in use"):
            reservation.take(HOST, port, " for health checks")


def test_a_port_that_another_supervisor_has_taken_cannot_be_had() -> None:
    with Reservation() as first, Reservation() as second:
        port = first.take(HOST, 0)
        with pytest.raises(CannotListen):
            second.take(HOST, port)
        with listening(port), pytest.raises(CannotListen):
            second.take(HOST, port)


def test_connections_of_a_former_process_do_not_matter() -> None:
    with Reservation() as reservation:
        port = reservation.take(HOST, 0)
        with listening(port) as server, socket.create_connection((HOST, port)) as caller:
            accepted, _ = server.accept()
            # The side that closes first keeps the port for a minute.
            accepted.close()
            assert caller.recv(1) == b""
    with Reservation() as reservation:
        assert reservation.take(HOST, port) == port


def test_behind_the_block_the_port_is_free() -> None:
    with Reservation() as reservation:
        port = reservation.take(HOST, 0)
    with listening(port, shared=False):
        pass


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "::", "[::1]"])  # noqa: S104 - nothing listens there
def test_hosts_are_written_as_elsewhere(host: str) -> None:
    with Reservation() as reservation:
        assert reservation.take(host, 0) > 0


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_of_this_machine_cannot_be_had(host: str) -> None:
    with Reservation() as reservation, pytest.raises(CannotListen):
        reservation.take(host, 0)
