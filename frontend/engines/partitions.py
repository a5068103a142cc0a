"""Partitions of models: the units in which models are spread over the replicas of an engine."""

from __future__ import annotations

import zlib
from typing import Final

from frontend.engines.replicas import may_be_several

_PARTITIONS: Final = 1024


def partition_of(model_id: str, partitions: int) -> int:
    """Return a model's partition, counted from 0. Unlike ``hash()``, it is the same in every process and forever."""
    return zlib.crc32(model_id.encode()) % partitions if partitions > 1 else 0


def partitions_before(target: str) -> int:
    """Return the default number of partitions for the models of ``target``.

    The share of one of N replicas is off by about sqrt(N / partitions): with 1,024 partitions, three replicas hold a
    third each to within a twentieth. The hash ring itself is as coarse, so more partitions would not even that out; nor
    would they cost much.
    """
    return _PARTITIONS if may_be_several(target) else 1
