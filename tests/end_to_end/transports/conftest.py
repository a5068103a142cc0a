from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.processes import Service, transports
from tests.end_to_end.transports.callers import AsyncCaller, Caller, NodeCaller, SyncCaller
from tests.end_to_end.transports.node_packages import installed_packages
from tests.end_to_end.transports.running import running

NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="session", params=transports())
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The program, on each transport."""
    with running(tmp_path_factory.mktemp("transports"), request.param) as service:
        yield service


@pytest.fixture
def address(host: Service) -> str:
    return host.address


@pytest.fixture(params=["grpcio", "grpc.aio", "grpc-js"])
def caller(request: pytest.FixtureRequest) -> Caller:
    """Each client library."""
    if request.param == "grpc-js":
        found: Caller = request.getfixturevalue("node_caller")
        return found
    return SyncCaller() if request.param == "grpcio" else AsyncCaller()


@pytest.fixture(scope="session")
def node_caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    modules = installed_packages(request.config, NODE)
    process = subprocess.Popen(
        ["node", str(NODE / "caller.js")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"NODE_PATH": str(modules)},
    )
    yield NodeCaller(process)
    process.kill()
    process.communicate()
