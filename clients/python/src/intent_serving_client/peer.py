"""The service at the other end of a client's connection, and the errors of calls to it."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import grpc

from intent_serving_client.channels import ChannelOptions
from intent_serving_client.connection_faults import ConnectionFault, connection_fault
from intent_serving_client.errors import NoAnswerInTime, RemoteError, ServingError, Unreachable
from intent_serving_client.remote import FailedCall, error_of_call, is_of_service

# A client whose service is down does not look for the cause at every call.
_KEPT_SECONDS: Final = 5.0
_STEP_SECONDS: Final = 1.0
_STEPS: Final = 4

_PORTS: Final = {"frontend": 51001, "predictor": 51002}
"""Default ports of the services."""


class Peer:
    """A service, and what is wrong with connections to it.

    Args:
        service: kind of the service, ``frontend`` or ``predictor``.
        address: address of the service, in gRPC's notation.
        options: options of the connection.
    """

    def __init__(self, service: str, address: str, options: ChannelOptions) -> None:
        self._service = service
        self._address = address
        self._options = options
        self._lock = threading.Lock()
        self._fault = ConnectionFault()
        self._looked_at = -math.inf

    @contextmanager
    def errors(self, timeout: float = math.inf) -> Iterator[None]:
        """Raise the typed form of a gRPC error of a call with this timeout. Both kinds of channel raise such errors."""
        started = time.monotonic()
        try:
            yield
        except grpc.RpcError as error:
            failed: Any = error
            if _is_unreachable(failed):
                self._look(timeout - (time.monotonic() - started))
            raise self._error_of(failed) from error

    @asynccontextmanager
    async def async_errors(self, timeout: float = math.inf) -> AsyncIterator[None]:  # noqa: ASYNC109 - that of the call
        """Raise errors as :meth:`errors` does, without blocking the event loop."""
        started = time.monotonic()
        try:
            yield
        except grpc.RpcError as error:
            failed: Any = error
            if _is_unreachable(failed) and self._is_forgotten:
                await asyncio.to_thread(self._look, timeout - (time.monotonic() - started))
            raise self._error_of(failed) from error

    @property
    def _is_forgotten(self) -> bool:
        return time.monotonic() - self._looked_at > _KEPT_SECONDS

    def _look(self, seconds: float) -> None:
        """Find out what is wrong with connections, in at most ``seconds``, unless that is known."""
        step = min(_STEP_SECONDS, seconds / _STEPS)
        if step <= 0 or not self._lock.acquire(timeout=step):
            return
        try:
            if self._is_forgotten:
                self._fault = connection_fault(self._address, self._options, step)
                self._looked_at = time.monotonic()
        finally:
            self._lock.release()

    def _error_of(self, failed: FailedCall) -> ServingError:
        error = error_of_call(failed, self._service)
        if is_of_service(failed):
            return error
        if _is_unreachable(failed):
            return Unreachable(f"no answer from {self._address}: {self._fault.text or error}", self._fault.is_listening)
        if failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return NoAnswerInTime(f"no answer from {self._address} in time: {error}")
        if failed.code() is grpc.StatusCode.UNIMPLEMENTED:
            return RemoteError(self._of_other_service(), grpc.StatusCode.UNIMPLEMENTED)
        return error

    def _of_other_service(self) -> str:
        other = "predictor" if self._service == "frontend" else "frontend"
        return (
            f"{self._address} has no such method of a {self._service}: it may be the address of a {other}, or of a "
            f"{self._service} of another version; give the {self._service}'s address, with port "
            f"{_PORTS[self._service]} by default"
        )


def _is_unreachable(failed: FailedCall) -> bool:
    return failed.code() is grpc.StatusCode.UNAVAILABLE and not is_of_service(failed)
