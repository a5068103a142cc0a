"""Which models are at one replica, as far as its answers have told: what may go there together.

gRPC's ring decides who gets a call, and tells nobody. So a replica puts its name on the answers to batches, and what it
told is believed for a while. A belief that is wrong costs a call and nothing else: a batch is answered with the models
that the replica has in memory, and for the others each is asked alone, by its own partition.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from frontend.backends.partitions import partition_of
from serving.prediction import Query

_BELIEVED_SECONDS: Final = 10.0


class Placement:
    """What is believed of each partition.

    Args:
        partitions: how many there are.
        now: the clock, in seconds.
    """

    def __init__(self, partitions: int, now: Callable[[], float] = time.monotonic) -> None:
        self._partitions = partitions
        self._now = now
        self._replicas: list[str | None] = [None] * partitions
        self._told_at = [0.0] * partitions

    def partition_of(self, query: Query) -> int:
        """Return the partition of the query's model."""
        return partition_of(query.model_id, self._partitions)

    def group_of(self, query: Query) -> str | int:
        """Return what is the same for queries that may go together: a replica's name, or the partition."""
        if self._partitions == 1:
            return 0
        partition = self.partition_of(query)
        replica = self._replicas[partition]
        if replica is None or self._told_at[partition] + _BELIEVED_SECONDS < self._now():
            return partition
        return replica

    def least_sure(self, queries: Sequence[Query]) -> int:
        """Return the partition among those of ``queries`` of which was told longest ago: the next to be asked about."""
        if self._partitions == 1:
            return 0
        return min({self.partition_of(query) for query in queries}, key=self._told_at.__getitem__)

    def learn(self, partition: int, replica: str) -> None:
        """Believe that a call of ``partition`` goes to ``replica``."""
        self._replicas[partition] = replica or None
        self._told_at[partition] = self._now()

    def doubt(self, partition: int) -> None:
        """Believe nothing of ``partition``."""
        self._replicas[partition] = None
        self._told_at[partition] = 0.0
