"""Distribution of one client's connections over the workers of a service, on each transport.

``python -m benchmarks.worker_connections --help``. On grpcio, the kernel chooses the worker of a connection; on http2,
the workers distribute the connections. A third figure is that of workers that accept from one inherited socket, each as
soon as it can, as forked servers do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import uvloop

from tests.conftest import ROOT
from tests.end_to_end.processes import start, transports

_LOOK_SECONDS = 0.05
_PATIENCE_SECONDS = 30.0

Counts = Callable[[], Sequence[int]]
"""Returns the number of connections of each worker."""


@contextmanager
def service(transport: str, workers: int) -> Iterator[tuple[int, Counts]]:
    """Run a service; yield its port, and a function that counts the connections of its workers."""
    with tempfile.TemporaryDirectory() as logs:
        it = start("model_service", ROOT / "models", Path(logs), "--workers", str(workers), transport=transport)
        port = int(it.address.rpartition(":")[2])
        try:
            it.wait_until_logged("ready")
            yield port, lambda: [_connections(process, port) for process in it.family()[1:]]
        finally:
            it.stop()


@contextmanager
def one_socket(workers: int) -> Iterator[tuple[int, Counts]]:
    """Run processes that accept from one socket, on the event loop that the services use."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = int(listening.getsockname()[1])
        children = [_fork(listening) for _ in range(workers)]
        processes = [psutil.Process(child) for child in children]
        try:
            yield port, lambda: [_connections(process, port) for process in processes]
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def share_of_the_busiest(port: int, counts: Counts, connections: int) -> float:
    """Open ``connections`` connections at once, and return the share of them that the busiest worker got."""
    with contextlib.ExitStack() as stack:
        for _ in range(connections):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect(("127.0.0.1", port))
        _wait_until(lambda: sum(counts()) == connections)
        return max(counts()) / connections


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each way, number of workers and number of connections."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker_connections", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--connections", type=int, nargs="+", default=[8, 64])
    options = parser.parse_args(arguments)
    print("way", "workers", "connections", "mean share of the busiest", "worst", sep="\t")
    for workers in options.workers:
        ways = {name: service(name, workers) for name in transports()} | {"one socket": one_socket(workers)}
        for way, running in ways.items():
            with running as (port, counts):
                for connections in options.connections:
                    shares = []
                    for _ in range(options.rounds):
                        shares.append(share_of_the_busiest(port, counts, connections))
                        _wait_until(lambda: sum(counts()) == 0)
                    print(way, workers, connections, f"{statistics.fmean(shares):.3f}", f"{max(shares):.3f}", sep="\t")
                    sys.stdout.flush()


def _connections(process: psutil.Process, port: int) -> int:
    found = Counter(each.status for each in process.net_connections("tcp") if each.laddr.port == port)
    return found[psutil.CONN_ESTABLISHED]


def _fork(listening: socket.socket) -> int:
    child = os.fork()
    if child:
        return child

    async def accept() -> None:
        listening.setblocking(False)
        await asyncio.get_running_loop().create_server(asyncio.Protocol, sock=listening)
        await asyncio.Event().wait()

    uvloop.run(accept())
    os._exit(0)


def _wait_until(holds: Callable[[], bool]) -> None:
    given_up = time.monotonic() + _PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > given_up:
            raise TimeoutError("connections are missing, or do not end")
        time.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    main()
