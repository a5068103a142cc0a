from __future__ import annotations

from frontend.backends.placement import Placement
from serving.prediction import Query

QUERIES = [Query(f"model-{number}", "x") for number in range(200)]


def test_queries_of_one_replica_go_together_as_soon_as_it_is_known() -> None:
    placement = Placement(16)
    assert {placement.group_of(query) for query in QUERIES} == set(range(16))
    for partition in range(16):
        placement.learn(partition, "left" if partition < 4 else "right")
    assert {placement.group_of(query) for query in QUERIES} == {"left", "right"}
    for query in QUERIES:
        assert placement.group_of(query) == ("left" if placement.partition_of(query) < 4 else "right")


def test_what_was_told_is_believed_for_a_while() -> None:
    now = [100.0]
    placement = Placement(16, lambda: now[0])
    partition = placement.partition_of(QUERIES[0])
    placement.learn(partition, "left")
    now[0] = 109.0
    assert placement.group_of(QUERIES[0]) == "left"
    now[0] = 111.0
    assert placement.group_of(QUERIES[0]) == partition


def test_what_is_in_doubt_goes_alone_until_it_is_told_again() -> None:
    placement = Placement(16)
    partition = placement.partition_of(QUERIES[0])
    placement.learn(partition, "left")
    placement.doubt(partition)
    assert placement.group_of(QUERIES[0]) == partition
    placement.learn(partition, "right")
    assert placement.group_of(QUERIES[0]) == "right"


def test_a_replica_without_a_name_is_nobody() -> None:
    placement = Placement(16)
    partition = placement.partition_of(QUERIES[0])
    placement.learn(partition, "")
    assert placement.group_of(QUERIES[0]) == partition


def test_every_batch_asks_about_the_partition_that_was_told_longest_ago() -> None:
    now = [100.0]
    placement = Placement(16, lambda: now[0])
    asked = []
    for _ in range(32):
        now[0] += 1.0
        asked.append(placement.least_sure(QUERIES))
        placement.learn(asked[-1], "left")
    assert set(asked[:16]) == set(range(16))
    assert asked[:16] == asked[16:]
