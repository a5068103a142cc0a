"""The program that every transport hosts: a service that handles its calls as ordered."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, wrappers_pb2

from serving.access.certificates import certificate_names
from serving.call.call import Call
from serving.call.identity import Identity, Requirement, Right
from serving.call.presented import Presented
from serving.runtime.program import Program
from serving.runtime.settings import ServerSettings, service_settings
from serving.runtime.workload import Workload
from serving.transport.boundary import Boundary
from serving.transport.exchange import ContextExchange
from serving.transport.guards import Guards
from serving.transport.service import Registry, Service
from tests.end_to_end.transports.notebook import Notebook
from tests.end_to_end.transports.orders import Echo, Order

ECHO = "transports.Echo"
GUARDED = "transports.Guarded"
_MESSAGE = ".google.protobuf.StringValue"
_NAMES = "\n"


class Settings(ServerSettings):
    """Settings of the program, which adds none to those of every server."""

    model_config = service_settings("TRANSPORTS_", "transports")


PROGRAM = Program("transports", f"{__name__}:build")


def build(settings: Settings) -> Workload:
    """Return both services: one directly on the transport, one behind the boundary as in the products."""
    del settings
    _describe()
    notebook = Notebook()
    echo = EchoServicer(notebook)

    def register_straight(registry: Registry) -> None:
        # The boundary accepts no streams from callers, and these tests cover what lies below it.
        transport = registry._transport if isinstance(registry, Boundary) else registry
        transport.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ECHO, echo.handlers()),))

    def register_guarded(registry: Registry) -> None:
        handler = grpc.unary_unary_rpc_method_handler(echo.guarded, Order.from_wire, Echo.to_wire)
        registry.add_registered_method_handlers(GUARDED, {"Unary": handler})

    async def nothing() -> None:
        """Return at once: there is nothing to wait for."""

    services = [Service(ECHO, register_straight), Service(GUARDED, register_guarded)]
    return Workload(services, nothing, nothing, guards=Guards(access=NamedAccess()))


class NamedAccess:
    """Access check that admits every caller under the names in its certificate."""

    def identify(self, presented: Presented) -> Identity:
        return Identity(_NAMES.join(certificate_names(presented)), frozenset(Right), ("*",))

    def check_method(self, identity: Identity, required: Requirement | None) -> None:
        """Allow every method."""

    def named(self, name: str) -> Identity:
        return Identity(name, frozenset(Right), ("*",))


class EchoServicer:
    """Servicer for all four kinds of calls: streams as generators, and with the context's ``read`` and ``write``."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        read, write = Order.from_wire, Echo.to_wire
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary, read, write),
            "ClientStream": grpc.stream_unary_rpc_method_handler(self.client_stream, read, write),
            "ServerStream": grpc.unary_stream_rpc_method_handler(self.server_stream, read, write),
            "Both": grpc.stream_stream_rpc_method_handler(self.both, read, write),
            "ReadClientStream": grpc.stream_unary_rpc_method_handler(self.read_client_stream, read, write),
            "WrittenServerStream": grpc.unary_stream_rpc_method_handler(self.written_server_stream, read, write),
            "ReadAndWritten": grpc.stream_stream_rpc_method_handler(self.read_and_written, read, write),
            "Noted": grpc.unary_unary_rpc_method_handler(self.noted, read, write),
        }

    async def noted(self, order: Order, context: Any) -> Echo:
        """Answer once the name is in the notebook."""
        await self._notebook.noted(order.name)
        return _echo(order, context)

    async def unary(self, order: Order, context: Any) -> Echo:
        with self._notebook.call(order.name):
            await self._begin(order, context)
            return _echo(order, context)

    async def guarded(self, order: Order, call: Call) -> Echo:
        """Answer with what a handler behind the boundary has, which is a call and no context."""
        with self._notebook.call(order.name):
            if order.notes:
                self._notebook.note(order.notes)
            if order.wait:
                await self._notebook.noted(order.wait)
            if order.fails:
                raise ZeroDivisionError(order.text)
            names = tuple(filter(None, call.identity.name.split(_NAMES)))
            remaining = call.deadline.remaining()
            return Echo(order.text, remaining=remaining, names=names, ballast="." * order.size)

    async def client_stream(self, orders: AsyncIterator[Order], context: Any) -> Echo:
        with contextlib.ExitStack() as noted:
            received: list[Order] = []
            async for order in orders:
                if not received:
                    noted.enter_context(self._notebook.call(order.name))
                received.append(order)
            return await self._answer_to(received, context)

    async def read_client_stream(self, orders: AsyncIterator[Order], context: Any) -> Echo:
        del orders
        with contextlib.ExitStack() as noted:
            received: list[Order] = []
            while (order := await context.read()) is not grpc.aio.EOF:
                if not received:
                    noted.enter_context(self._notebook.call(order.name))
                received.append(order)
            return await self._answer_to(received, context)

    async def _answer_to(self, orders: list[Order], context: Any) -> Echo:
        # A stream may be empty, and grpcio reports the departure of some callers as the end of their stream.
        first = orders[0] if orders else Order()
        await self._begin(first, context)
        return _echo(first, context, [order.text for order in orders])

    async def server_stream(self, order: Order, context: Any) -> AsyncIterator[Echo]:
        with self._notebook.call(order.name):
            for number in range(order.times):
                if number == 0 or order.wait:
                    await self._begin(order, context)
                yield _echo(order, context)
                self._notebook.note(f"{order.name} sent {number + 1}")

    async def written_server_stream(self, order: Order, context: Any) -> None:
        with self._notebook.call(order.name):
            await self._begin(order, context)
            for number in range(order.times):
                await context.write(_echo(order, context))
                self._notebook.note(f"{order.name} sent {number + 1}")

    async def both(self, orders: AsyncIterator[Order], context: Any) -> AsyncIterator[Echo]:
        with contextlib.ExitStack() as noted:
            begun = False
            async for order in orders:
                if order.notes:
                    self._notebook.note(order.notes)
                if not begun:
                    begun = True
                    noted.enter_context(self._notebook.call(order.name))
                    await self._begin(order, context)
                for _ in range(order.times):
                    yield _echo(order, context)

    async def read_and_written(self, orders: AsyncIterator[Order], context: Any) -> None:
        del orders
        first = await context.read()
        if first is grpc.aio.EOF:
            # The stream may be empty or its caller gone, as in ``_answer_to``.
            return
        with self._notebook.call(first.name):
            await self._begin(first, context)
            order = first
            while order is not grpc.aio.EOF:
                for _ in range(order.times):
                    await context.write(_echo(order, context))
                order = await context.read()

    async def _begin(self, order: Order, context: Any) -> None:
        if order.notes:
            self._notebook.note(order.notes)
        if order.gzip:
            context.set_compression(grpc.Compression.Gzip)
        if order.initial:
            await context.send_initial_metadata(order.initial)
        if order.trailing:
            context.set_trailing_metadata(order.trailing)
        if order.code:
            context.set_code(grpc.StatusCode[order.code])
        if order.details:
            context.set_details(order.details)
        if order.wait:
            await self._notebook.noted(order.wait)
        if order.fails:
            raise ZeroDivisionError(order.text)
        if order.abort is not None:
            code, message = order.abort
            await context.abort(grpc.StatusCode[code], message)


def _echo(order: Order, context: Any, texts: list[str] | None = None) -> Echo:
    return Echo(
        text=order.text,
        texts=texts or [],
        metadata=tuple((key, value) for key, value in context.invocation_metadata()),
        remaining=context.time_remaining(),
        names=certificate_names(ContextExchange(context)),
        ballast="." * order.size,
    )


def _describe() -> None:
    """Describe the messages of the services to reflection, because no .proto file does."""
    file = descriptor_pb2.FileDescriptorProto(
        name="transports.proto",
        package="transports",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, methods in ((ECHO, EchoServicer(Notebook()).handlers()), (GUARDED, {"Unary": None})):
        service = file.service.add(name=name.rpartition(".")[2])
        for method, handler in methods.items():
            service.method.add(
                name=method,
                input_type=_MESSAGE,
                output_type=_MESSAGE,
                client_streaming=handler is not None and handler.request_streaming,
                server_streaming=handler is not None and handler.response_streaming,
            )
    descriptor_pool.Default().Add(file)
