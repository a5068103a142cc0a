"""Addresses as people write them."""

from __future__ import annotations

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intent_serving_client.addresses import InvalidAddress, address_of, check_address, parse_host
from intent_serving_client.channels import open_async_channel, open_channel
from serving.domain.errors import InvalidConnection

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9]{1,10}){0,3}", fullmatch=True)
NUMBERS = st.ip_addresses().map(str)
PORTS = st.integers(1, 65_535)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("a_container.b", "a_container.b"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("::", "::"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_a_host_may_be_a_name_or_an_address_with_or_without_brackets(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("http://localhost", "leave out 'http://'"),
        ("https://localhost", "TLS is an option of its own"),
        ("localhost:51001", "leave out ':51001'"),
        ("[::1]:51001", "leave out ':51001'"),
        ("localhost/path", "leave out '/path'"),
        ("unix:/run/intent.sock", "unix sockets are not supported"),
        ("*", "0.0.0.0"),  # noqa: S104 - as the message has it
        ("", "neither a name nor an address"),
        ("a b", "neither a name nor an address"),
        ("a..b", "neither a name nor an address"),
        ("[::1", "neither a name nor an address"),
        ("[localhost]", "neither a name nor an address"),
        ("x" * 64, "neither a name nor an address"),
    ],
)
def test_what_is_no_host_is_refused_with_what_to_write_instead(text: str, told: str) -> None:
    with pytest.raises(InvalidAddress) as refused:
        parse_host(text)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("http://localhost:51001", "leave out 'http://'; the address must be host:port"),
        ("https://localhost:51001", "TLS is an option of its own"),
        ("grpc://localhost:51001", "leave out 'grpc://'"),
        ("localhost:51001/", "leave out '/'"),
        ("localhost", "the address must be host:port"),
        (":51001", "the address must be host:port"),
        ("::1", "with its port: [::1]:51001"),
        ("[::1]", "with its port: [::1]:51001"),
        ("::1:51001", "in brackets: "),
        ("fe80::2:51001", "in brackets: "),
        ("localhost:0", "the port must be from 1 to 65535"),
        ("localhost:65536", "the port must be from 1 to 65535"),
        ("[localhost]:51001", "neither a name nor an address"),
    ],
)
async def test_clients_refuse_what_is_no_address_with_what_to_write_instead(text: str, told: str) -> None:
    for opened in (open_channel, open_async_channel):
        with pytest.raises(InvalidConnection) as refused:
            opened(text)
        assert told in str(refused.value)


@pytest.mark.parametrize(
    "target", ["unix:/run/a.sock", "dns:///localhost:1", "ipv4:127.0.0.1:1,127.0.0.1:2", "[::1]:1"]
)
async def test_clients_take_the_notations_of_grpc(target: str) -> None:
    with open_channel(target):
        await open_async_channel(target).close()


@given(host=NAMES | NUMBERS, port=PORTS)
def test_an_address_made_of_a_host_and_a_port_is_one(host: str, port: int) -> None:
    address = address_of(parse_host(host), port)
    check_address(address)
    assert address_of(f"[{host}]", port) == address if ":" in host else address == f"{host}:{port}"
    if ":" in host:
        assert ipaddress.ip_address(address.rpartition(":")[0].strip("[]")) == ipaddress.ip_address(host)


@given(text=st.text(max_size=60))
def test_whatever_is_written_is_an_address_or_refused(text: str) -> None:
    for check in (parse_host, check_address):
        with contextlib.suppress(InvalidAddress):
            check(text)
