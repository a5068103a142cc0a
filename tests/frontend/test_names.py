from __future__ import annotations

import pytest

from frontend.backends.channel import may_be_several, partitions_before


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
