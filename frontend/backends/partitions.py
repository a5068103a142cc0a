"""Which models go together: the unit in which they are spread over the replicas of an engine."""

from __future__ import annotations

import zlib


def partition_of(model_id: str, partitions: int) -> int:
    """Return the partition of a model, from 0 on: the same in every process and for ever, which ``hash()`` is not."""
    return zlib.crc32(model_id.encode()) % partitions if partitions > 1 else 0
