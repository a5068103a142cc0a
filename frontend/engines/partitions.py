"""Which models go together: the unit in which they are spread over the replicas of an engine."""

from __future__ import annotations

import zlib
from typing import Final

from frontend.engines.replicas import may_be_several

_PARTITIONS: Final = 1024


def partition_of(model_id: str, partitions: int) -> int:
    """Return the partition of a model, from 0 on: the same in every process and for ever, which ``hash()`` is not."""
    return zlib.crc32(model_id.encode()) % partitions if partitions > 1 else 0


def partitions_before(target: str) -> int:
    """Return into how many partitions the models before ``target`` are grouped where nobody says.

    The share of one of N replicas is off by about sqrt(N / partitions): with 1,024, three replicas hold a third each to
    within a twentieth. The ring itself is as coarse, so more would not even that out; nor would more cost much.
    """
    return _PARTITIONS if may_be_several(target) else 1
