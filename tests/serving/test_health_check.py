from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.builders import PATIENCE, PREDICTOR, host_of, hosted, refusing_address, server_settings
from tests.conftest import ROOT
from tests.end_to_end.transports.certificates import Authority
from tests.fakes.predictor import echo, fake_predictor


async def check(*arguments: str) -> tuple[int | None, str]:
    """Run the command; return its exit code and its text on standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "serving.health_check", *arguments, stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
    return process.returncode, said.decode()


async def test_a_service_that_says_serving_is_healthy(tmp_path: Path) -> None:
    async with hosted(tmp_path, fake_predictor(echo)) as address:
        assert await check(address) == (0, "")
        assert await check(address, "--service", PREDICTOR) == (0, "")


async def test_a_service_that_says_not_serving_is_not(tmp_path: Path) -> None:
    host = host_of(server_settings(tmp_path), [fake_predictor(echo)])
    address = await host.start()
    try:
        assert await check(address) == (1, f"{address} reports NOT_SERVING\n")
    finally:
        await host.stop(0)


async def test_a_service_that_it_does_not_have_is_not(tmp_path: Path) -> None:
    async with hosted(tmp_path, fake_predictor(echo)) as address:
        code, said = await check(address, "--service", "no.such.Service")

    assert code == 1
    assert said.startswith(f"{address} does not answer: NOT_FOUND")


async def test_nothing_there_is_not() -> None:
    code, said = await check(refusing_address())

    assert code == 1
    assert "does not answer: UNAVAILABLE" in said
    assert said.count("\n") == 1


async def test_one_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        code, said = await check(f"127.0.0.1:{port}", "--timeout", "0.3")

    assert code == 1
    assert "does not answer: DEADLINE_EXCEEDED" in said


async def test_a_service_behind_tls_is_asked_through_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.signed("server")
    async with hosted(tmp_path, fake_predictor(echo), tls_certificate=certificate, tls_key=key) as address:
        assert await check(address, "--tls-authority", str(authority.certificate)) == (0, "")
        assert (await check(address, "--timeout", "0.5"))[0] == 1
