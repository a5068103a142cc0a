"""A channel for the generated stubs of grpcio, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from grpc import ChannelConnectivity

from grpc_http2.alarms import Alarms, alarms_of
from grpc_http2.client.calls.call import Call, Method, Options
from grpc_http2.client.calls.kinds import (
    MultiCallable,
    start_stream_stream,
    start_stream_unary,
    start_unary_stream,
    start_unary_unary,
)
from grpc_http2.client.calls.retries import RetryBudget
from grpc_http2.client.calls.stream import Headers, size_of
from grpc_http2.client.servers.balancing import Balancer
from grpc_http2.client.settings import DEFAULTS, ChannelSettings, Tls
from grpc_http2.wire import Metadatum

Serializer = Callable[[Any], bytes] | None
Deserializer = Callable[[bytes], Any] | None


class Channel(grpc.aio.Channel):
    """Makes calls to one server, or distributes them over several.

    A channel belongs to the event loop on which its first call is made. Calls that cannot be sent at once wait in
    bounded queues until their deadlines.

    Args:
        addresses: addresses of the servers: ``host:port``, or ``unix:`` and a path.
        settings: limits and timings.
        tls: TLS settings; without them, connections are not encrypted.
        metadata: metadata sent with every call.
        compression: compression of requests whose calls specify none.
        make_balancer: returns the balancer, on the event loop of the first call.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        settings: ChannelSettings = DEFAULTS,
        *,
        tls: Tls | None = None,
        metadata: Sequence[Metadatum] = (),
        compression: grpc.Compression | None = None,
        make_balancer: Callable[[ChannelSettings, Tls | None, Callable[[], None]], Balancer] = Balancer,
    ) -> None:
        self.settings = settings
        self.metadata = tuple(metadata)
        self.compression = compression
        self.budget = None if settings.retries is None else RetryBudget(settings.retries)
        """Budget that decides whether a failed call is retried."""
        self.calls: set[Call] = set()
        """Calls that have not ended."""
        self.alarms: Alarms
        """Alarms of the event loop."""
        self.balancer: Balancer
        """Balancer that assigns calls to servers."""
        self._addresses = tuple(addresses)
        self._tls = tls
        self._make_balancer = make_balancer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: list[asyncio.Future[None]] = []
        self._emptied: asyncio.Future[None] | None = None
        self._is_closed = False

    # Interface for stubs.

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """Return a callable for a method with one request and one response."""
        return self._callable(method, request_serializer, response_deserializer, start_unary_unary)

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """Return a callable for a method with one request and many responses."""
        return self._callable(method, request_serializer, response_deserializer, start_unary_stream)

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """Return a callable for a method with many requests and one response."""
        return self._callable(method, request_serializer, response_deserializer, start_stream_unary)

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer = None,
        response_deserializer: Deserializer = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """Return a callable for a method with many requests and many responses."""
        return self._callable(method, request_serializer, response_deserializer, start_stream_stream)

    # Servers.

    def set_addresses(self, addresses: Sequence[str]) -> None:
        """Send further calls to these servers. No call fails: active calls on removed servers finish there."""
        self._addresses = tuple(addresses)
        if self._loop is not None and not self._is_closed:
            self.balancer.set_addresses(self._addresses)

    def renew(self) -> None:
        """Open new connections for further calls, for example after a change of certificates."""
        if self._loop is not None and not self._is_closed:
            self.balancer.renew()

    def address_for(self, affinity: str) -> str | None:
        """Return the address that calls of ``affinity`` currently go to; ``None`` if no server can be reached."""
        self.open()
        return self.balancer.address_for(affinity)

    def get_state(self, try_to_connect: bool = False) -> ChannelConnectivity:
        """Return the best connectivity state of any server."""
        if self._is_closed:
            return ChannelConnectivity.SHUTDOWN
        self.open()
        if try_to_connect:
            self.balancer.connect()
        return self.balancer.state

    async def wait_for_state_change(self, last_observed_state: ChannelConnectivity) -> None:
        """Return once the state differs from ``last_observed_state``."""
        while self.get_state() is last_observed_state:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    async def channel_ready(self) -> None:
        """Return once a server is ready."""
        while (state := self.get_state(try_to_connect=True)) is not ChannelConnectivity.READY:
            await self.wait_for_state_change(state)

    # Shutdown.

    async def close(self, grace: float | None = None) -> None:
        """Accept no further calls, and cancel those that have not ended after ``grace`` seconds."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._loop is None:
            return
        if grace and self.calls:
            self._emptied = self._loop.create_future()
            await asyncio.wait([self._emptied], timeout=grace)
        for call in list(self.calls):
            call.cancel()
        await self.balancer.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._wake_waiters()

    async def __aenter__(self) -> Self:
        """Return the channel."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the channel, and cancel active calls."""
        await self.close()

    # Interface for calls.

    def open(self) -> None:
        """Bind the channel to the running event loop on first use.

        Raises:
            grpc.aio.UsageError: the channel is closed.
        """
        if self._is_closed:
            raise grpc.aio.UsageError("the channel is closed")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self.alarms = alarms_of(self._loop)
            self.balancer = self._make_balancer(self.settings, self._tls, self._wake_waiters)
            self.balancer.set_addresses(self._addresses)

    def own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Return a task that runs ``work``. Closing the channel waits for the task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def ended(self, call: Call) -> None:
        """Remove a call that has ended."""
        self.calls.discard(call)
        if self._emptied is not None and not self.calls and not self._emptied.done():
            self._emptied.set_result(None)

    def is_too_large(self, headers: Headers) -> bool:
        """Return whether headers exceed the limit of the settings."""
        return size_of(headers) > self.settings.max_metadata_bytes

    def _callable(
        self,
        path: str,
        serialize: Serializer,
        deserialize: Deserializer,
        start: Callable[[Channel, Method, Options, Any], Call],
    ) -> MultiCallable:
        return MultiCallable(self, Method(path, serialize, deserialize), start)

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
