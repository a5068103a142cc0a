"""Callers who check every answer of the chaos run."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple, Self

import grpc

from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from tests.chaos.tenants import Answer, Tenant, some_document

DOCUMENTED: Final = frozenset(
    {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE,
    }
)
"""Statuses that the documents give to the faults of this run."""

_DEADLINE_SECONDS: Final = 3.0
_PAUSE_SECONDS: Final = 0.05


class Callers:
    """Threads that ask for models by chance, until the block ends.

    Args:
        address: address of the frontend.
        tenants: tenants to ask for.
        seed: seed of the choices.
        number: number of threads.
    """

    def __init__(self, address: str, tenants: Sequence[Tenant], seed: int, number: int = 4) -> None:
        self._address = address
        self._tenants = tenants
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(f"{seed}-{each}",)) for each in range(number)]
        self._lock = threading.Lock()
        self.statuses: Counter[str] = Counter()
        """Calls by status."""
        self.messages: Counter[tuple[str, str]] = Counter()
        """Calls by status and message."""
        self.faults: list[str] = []
        """Wrong answers, and statuses that no document names."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, seed: str) -> None:
        chance = random.Random(seed)
        with ExitStack() as ends:
            channel = ends.enter_context(channel_to(self._address))
            while not self._over.is_set():
                tenant = chance.choice(self._tenants)
                # A name that everybody asks for stays in memory, the others come and go.
                if chance.random() < 0.3:
                    tenant = self._tenants[0]
                seen = asked(channel, tenant, some_document(chance))
                with self._lock:
                    self.statuses[seen.status] += 1
                    self.messages[seen.status, seen.message] += 1
                    if seen.fault:
                        self.faults.append(seen.fault)
                if seen.status != "OK":
                    # A caller that is refused at once would count more than all others.
                    self._over.wait(_PAUSE_SECONDS)


def channel_to(address: str) -> grpc.Channel:
    """Return a channel that comes back soon after the service does."""
    options = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
    )
    return grpc.insecure_channel(address, options=options)


class Seen(NamedTuple):
    """The outcome of one call."""

    status: str
    version: str
    """Version that answered; empty without an answer."""
    message: str
    """Message of the status; empty for an answer."""
    fault: str
    """The fault of the outcome; empty for a right answer and for a documented status."""


def asked(channel: grpc.Channel, tenant: Tenant, document: str) -> Seen:
    """Ask once, and check the answer."""
    request = pb.PredictRequest(runId=tenant.model_id, document=document)
    try:
        found = pb_grpc.PredictionServiceStub(channel).Predict(request, timeout=_DEADLINE_SECONDS)
    except grpc.RpcError as error:
        code = error.code()
        undocumented = code not in DOCUMENTED
        message = error.details() or ""
        return Seen(code.name, "", message, f"{tenant.model_id}: {code.name}: {message}" if undocumented else "")
    answer = Answer(found.label, found.score, found.model.version)
    is_right = tenant.is_right(document, answer)
    return Seen("OK", answer.version, "", "" if is_right else f"{tenant.model_id}: {document!r}: {answer}")
