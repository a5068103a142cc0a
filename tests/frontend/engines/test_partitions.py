from __future__ import annotations

from collections import Counter

import pytest

from frontend.engines.partitions import partition_of


@pytest.mark.parametrize(("model_id", "partition"), [("clinc150", 78), ("banking77", 26), ("1", 183), ("a.b-c_d", 4)])
def test_a_model_has_the_same_partition_in_every_process_and_for_ever(model_id: str, partition: int) -> None:
    assert partition_of(model_id, 256) == partition


def test_where_there_is_one_partition_it_is_that() -> None:
    assert {partition_of(f"model-{number}", 1) for number in range(10)} == {0}


def test_models_are_spread_over_all_partitions() -> None:
    sizes = Counter(partition_of(f"model-{number}", 16) for number in range(16_000))
    assert len(sizes) == 16
    assert all(800 < size < 1200 for size in sizes.values())
