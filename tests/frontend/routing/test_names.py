from __future__ import annotations

import socket

import pytest

from frontend.engines.partitions import partitions_before
from frontend.engines.replicas import look_up, may_be_several, name_in


@pytest.mark.parametrize(
    "target", ["predictor:51002", "dns:///predictor.svc:51002", "ipv4:10.0.0.2:1,10.0.0.3:1", "ipv6:[::1]:1,[::2]:1"]
)
def test_a_name_or_a_list_may_stand_for_several_replicas_and_has_partitions_to_spread(target: str) -> None:
    assert may_be_several(target)
    assert partitions_before(target) > 1


@pytest.mark.parametrize("target", ["127.0.0.1:51002", "[::1]:51002", "dns:///127.0.0.1:51002", "ipv4:127.0.0.1:1"])
def test_one_address_is_one_replica_and_needs_one_partition(target: str) -> None:
    assert not may_be_several(target)
    assert partitions_before(target) == 1


@pytest.mark.parametrize(
    ("target", "name"),
    [("predictor:1", ("predictor", 1)), ("dns:///a.b:51002", ("a.b", 51002)), ("127.0.0.1:1", None), ("[::1]:1", None)],
)
def test_a_name_is_told_from_addresses(target: str, name: tuple[str, int] | None) -> None:
    assert name_in(target) == name


async def test_a_host_of_this_machine_is_found_once() -> None:
    assert await look_up("localhost", 51002) in (["127.0.0.1:51002"], ["[::1]:51002"])


async def test_a_host_that_is_not_there_is_an_error() -> None:
    with pytest.raises(socket.gaierror):
        await look_up("no-such-host.invalid", 1)
