"""Causes of addresses that cannot be listened on."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from pathlib import Path

import pytest

from grpc_http2.server.listening import bound_sockets
from serving.runtime.supervision.reservation import Reservation
from serving.transport.hosts.health import DrainableHealth
from serving.transport.hosts.health_port import HealthPort
from serving.transport.hosts.listening import CannotListen, cannot_listen
from serving.transport.hosts.metrics_port import MetricsServer
from tests.builders import free_port, host_of, server_settings
from tests.end_to_end.processes import transports

IN_USE = "it is in use"
NO_NAME = "there is no such name"
ELSEWHERE = "it is not an address of this machine"
WRONG = {
    "no-such-host.invalid": NO_NAME,
    "192.0.2.1": ELSEWHERE,
    "2001:db8::1": ELSEWHERE,
    "a..b": "its host is not a name",
}


async def listen(listener: str, folder: Path, host: str, port: int) -> None:
    if listener == "metrics":
        await MetricsServer(host, port, []).start()
    elif listener == "health":
        await HealthPort(host, port, DrainableHealth()).start()
    elif listener == "workers":
        with Reservation() as reservation:
            reservation.take(host, port)
    else:
        settings = server_settings(folder, port=port, transport=listener)
        await host_of(settings.model_copy(update={"host": host}), []).start()


async def refusal_of(listener: str, folder: Path, host: str, port: int) -> str:
    with pytest.raises(CannotListen) as refused:
        await listen(listener, folder, host, port)
    return str(refused.value)


LISTENERS = pytest.mark.parametrize("listener", [*transports(), "metrics", "health", "workers"])


@LISTENERS
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_port_in_use_is_told(listener: str, host: str, tmp_path: Path) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as holder:
        port = holder.getsockname()[1]
        told = await refusal_of(listener, tmp_path, host, port)
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert told.startswith(f"cannot listen on {shown}")
    assert IN_USE in told


@LISTENERS
@pytest.mark.parametrize("host", WRONG)
async def test_a_host_that_is_not_of_this_machine_is_told(listener: str, host: str, tmp_path: Path) -> None:
    assert WRONG[host] in await refusal_of(listener, tmp_path, host, free_port())


def test_other_causes_are_those_of_the_system() -> None:
    assert "may not listen" in str(cannot_listen("::", 80, PermissionError(13, os.strerror(13))))
    assert "no more files" in str(cannot_listen("::", 80, OSError(24, os.strerror(24))))
    assert str(cannot_listen("::1", 80, OSError(5, os.strerror(5)), " for metrics")) == (
        "cannot listen on [::1]:80 for metrics: input/output error"
    )


async def test_a_name_is_listened_on_where_it_is_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Containers without IPv6 often resolve localhost to ::1 too, which no test can take from this machine."""
    both = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)

    async def found(*_: object, **__: object) -> object:
        return both

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
    host = host_of(server_settings(tmp_path, host="localhost", port=0), [])
    assert (await host.start()).startswith("localhost:")
    await host.stop(0)
    metrics = MetricsServer("localhost", 0, [])
    await metrics.start()
    await metrics.close()
    with Reservation() as reservation:
        assert reservation.take("localhost", 0)


def link_local_address() -> str:
    """Return a link-local address of this machine with its zone, or skip the test."""
    table = Path("/proc/net/if_inet6")
    for line in table.read_text().splitlines() if table.exists() else ():
        digits, _, _, scope, _, interface = line.split()
        if scope == "20":
            return f"{ipaddress.IPv6Address(bytes.fromhex(digits))}%{interface}"
    pytest.skip("this machine has no link-local address")


async def listens(listener: str, folder: Path, host: str) -> None:
    """Check that a listener takes an address: a second one on the same port is refused, because it is in use."""
    for each in await bound_sockets(host, 0):
        each.listen()
        told = await refusal_of(listener, folder, host, each.getsockname()[1])
        each.close()
        assert IN_USE in told


@LISTENERS
async def test_a_link_local_address_keeps_its_zone(listener: str, tmp_path: Path) -> None:
    await listens(listener, tmp_path, link_local_address())


@LISTENERS
async def test_a_link_local_address_without_its_zone_is_told(listener: str, tmp_path: Path) -> None:
    address, _, _ = link_local_address().partition("%")
    assert "needs the name of its interface" in await refusal_of(listener, tmp_path, address, free_port())


@LISTENERS
async def test_an_ipv4_address_may_be_written_as_an_ipv6_one(listener: str, tmp_path: Path) -> None:
    await listens(listener, tmp_path, "::ffff:127.0.0.1")
