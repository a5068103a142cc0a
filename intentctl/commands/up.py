"""``intentctl up``: run the services on this machine."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from intent_serving_client.addresses import InvalidAddress, parse_host
from intentctl.first_prediction import make_first_prediction
from intentctl.output import fail, print_error, print_line
from intentctl.stack import LocalStack, ServiceEnded, StackOptions
from serving.domain.errors import ServingError
from serving.runtime.settings import TRANSPORTS, Transport, known_transport


def _transport(value: str) -> str:
    """Return ``value``. Raises typer.BadParameter if it names no transport."""
    try:
        known = known_transport(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if known not in TRANSPORTS:
        raise typer.BadParameter(f"there is no transport {value!r}; choose {' or '.join(TRANSPORTS)}")
    return value


def _host(value: str) -> str:
    """Return the host in ``value``. Raises typer.BadParameter if it is not a host."""
    try:
        return parse_host(value)
    except InvalidAddress as error:
        raise typer.BadParameter(f"{value!r}: {error}") from error


def up(
    *,
    model_dir: Annotated[
        Path, typer.Option(envvar="MODEL_DIR", exists=True, file_okay=False, help="Folder with one folder per model.")
    ] = Path("models"),
    host: Annotated[
        str,
        typer.Option(
            parser=_host, metavar="HOST", help="Name or address that both services listen on, of IPv4 or IPv6."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the frontend.")] = 51001,
    predictor_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the predictor.")] = 51002,
    single_process: Annotated[
        bool, typer.Option("--single-process", help="Run the frontend with the predictor inside, in one process.")
    ] = False,
    transport: Annotated[
        Transport | None,
        typer.Option(
            parser=_transport,
            metavar=f"[{'|'.join(TRANSPORTS)}]",
            help="Server implementation for callers; http2, used unless set otherwise, is faster and serves REST too.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=256,
            help="Number of processes of the frontend, or of the single process, on one port; 0: one per core. 1 unless"
            " set otherwise.",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Time limit of the start, in seconds.")] = 60.0,
    check: Annotated[bool, typer.Option("--check", help="Stop after the first prediction.")] = False,
) -> None:
    """Start the frontend and the predictor on this machine; Ctrl-C drains and stops them."""
    options = StackOptions(model_dir.absolute(), host, port, predictor_port, transport, single_process, workers)
    try:
        asyncio.run(_up(options, timeout, check=check))
    except ServiceEnded as error:
        fail(str(error))
    except TimeoutError:
        fail(f"the services were not ready within {timeout:g} seconds")
    except ServingError as error:
        fail(f"the first prediction failed: {error}")


async def _up(options: StackOptions, timeout: float, *, check: bool) -> None:  # noqa: ASYNC109 - passed on
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    single = options.single_process
    stack = LocalStack(options)
    try:
        starting = asyncio.ensure_future(stack.start(timeout))
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            if check:
                raise ServiceEnded("stopped before the first prediction")
            return
        starting.result()
        print_line(f"ready: {_where(options)}")
        try:
            await make_first_prediction(options)
        except ServingError as error:
            if check:
                raise
            # One tenant's model must not keep the others from being served.
            print_error(f"the first prediction failed: {error}")
        if check:
            return
        print_line("Ctrl-C stops it." if single else "Ctrl-C stops both.")
        ended = asyncio.ensure_future(stack.wait_for_an_end())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise ServiceEnded(ended.result())
        ended.cancel()
    finally:
        await stack.stop()


def _where(options: StackOptions) -> str:
    if options.single_process:
        together = "in one process" if options.workers in {None, 1} else "together in each worker"
        return f"frontend and predictor {options.frontend}, {together}"
    return f"frontend {options.frontend}, predictor {options.predictor}"
