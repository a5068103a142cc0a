from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.processes import Service, transports
from tests.end_to_end.transports.callers import AsyncCaller, Caller, NodeCaller, SyncCaller
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
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("no node or no npm on the PATH")
    cache = getattr(request.config, "cache", None)
    if cache is None:
        pytest.skip("pytest's cache is off, into which @grpc/grpc-js is installed")
    modules = _installed(cache.mkdir("transports-node"), NODE)
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


def _installed(cache: Path, wanted: Path) -> Path:
    """Return the folder of the pinned packages, which are installed if they are missing."""
    pins = hashlib.sha256((wanted / "package-lock.json").read_bytes()).hexdigest()
    installed = cache / pins[:16]
    if not installed.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            staged = Path(folder) / "staged"
            staged.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(wanted / name, staged / name)
            command = ["npm", "ci", "--prefix", str(staged), "--ignore-scripts", "--no-audit", "--no-fund"]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                pytest.skip(f"npm cannot install @grpc/grpc-js: {run.stderr.strip()[-200:]}")
            # Another test process may have been faster; its folder is just as good.
            with contextlib.suppress(OSError):
                staged.rename(installed)
    return installed / "node_modules"
