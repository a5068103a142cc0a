from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from grpc_http2.client.servers.ring import PLACES, Ring

KEYS = [str(number) for number in range(300)]
servers = st.lists(
    st.from_regex(r"10\.\d{1,3}\.\d{1,3}\.\d{1,3}:\d{1,5}", fullmatch=True), min_size=2, max_size=8, unique=True
)


def owner(ring: Ring, key: str) -> str:
    return next(ring.owners(key))


@settings(max_examples=20)
@given(servers, st.data())
def test_where_a_server_leaves_its_keys_move_and_no_others(names: list[str], data: st.DataObject) -> None:
    leaving = data.draw(st.sampled_from(names))
    before, after = Ring(names), Ring([name for name in names if name != leaving])
    for key in KEYS:
        if owner(before, key) != leaving:
            assert owner(after, key) == owner(before, key)
        else:
            # The next server on the ring takes over.
            assert owner(after, key) == list(before.owners(key))[1]


@settings(max_examples=20)
@given(servers)
def test_the_order_of_servers_is_of_no_account(names: list[str]) -> None:
    one, other = Ring(names), Ring([*reversed(names), names[0]])
    assert [list(one.owners(key)) for key in KEYS[:50]] == [list(other.owners(key)) for key in KEYS[:50]]


@settings(max_examples=20)
@given(servers)
def test_every_server_stands_in_for_every_key_in_some_order(names: list[str]) -> None:
    ring = Ring(names)
    assert all(sorted(ring.owners(key)) == sorted(names) for key in KEYS[:20])


@settings(max_examples=20)
@given(servers)
def test_shares_are_even(names: list[str]) -> None:
    ring = Ring(names)
    shares = Counter(owner(ring, f"key-{number}") for number in range(5_000))
    even = 5_000 / len(names)
    assert all(abs(shares[name] - even) < even * 10 / PLACES**0.5 for name in names)


def test_a_ring_of_nobody_has_no_owner() -> None:
    assert list(Ring(()).owners("key")) == []


def test_a_ring_is_the_same_in_every_process() -> None:
    ring = Ring(["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"])
    assert [owner(ring, key)[7] for key in KEYS[:12]] == list("223221233233")
