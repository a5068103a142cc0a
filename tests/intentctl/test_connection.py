"""Options of connections, which several commands share."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.builders import PATIENCE
from tests.conftest import ROOT

pytestmark = pytest.mark.end_to_end

KEY = "a-key-0123456789"
COMMANDS = ("predict", "explain", "models", "evaluate", "compare", "doctor")
OPTIONS = ("--tls-authority", "--tls-certificate", "--tls-key", "--tls-server-name", "--credential-file")


async def intentctl(*arguments: str, **variables: str) -> tuple[int | None, str, str]:
    """Run the command; return its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "intentctl", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"} | variables,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("command", COMMANDS)
async def test_every_command_that_asks_a_service_has_them(command: str) -> None:
    code, said, _ = await intentctl(command, "--help")

    assert code == 0
    assert [option for option in OPTIONS if option not in said] == []
    assert "INTENT_CREDENTIAL" in said


async def test_what_cannot_be_used_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    text, empty = tmp_path / "text", tmp_path / "empty"
    text.write_text("no PEM")
    empty.touch()
    asked = ("predict", "a", "x", "--address", "127.0.0.1:1")
    for flags, message in (
        (("--tls-authority", str(text)), "is not PEM"),
        (("--tls-authority", str(tmp_path / "missing")), "does not exist"),
        (("--tls-key", str(text)), "belong together"),
        (("--credential-file", str(empty)), "holds no credential"),
        (("--credential-file", str(text)), "one line of printable ASCII"),
    ):
        code, _, said = await intentctl(*asked, *flags)
        assert (code, message in " ".join(said.split())) == (2, True), said


class Doorkeeper(grpc.GenericRpcHandler):
    """Handler without methods, which keeps the credentials that callers send."""

    def __init__(self) -> None:
        self.seen: list[str | bytes] = []

    def service(self, handler_call_details: Any) -> None:
        metadata = handler_call_details.invocation_metadata
        self.seen += [value for key, value in metadata if key == "authorization"]


async def test_the_credential_comes_from_a_file_or_from_a_variable(tmp_path: Path) -> None:
    doorkeeper, server = Doorkeeper(), grpc.aio.server()
    server.add_generic_rpc_handlers((doorkeeper,))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    marked = tmp_path / "marked"
    marked.write_bytes(b"\xef\xbb\xbf" + KEY.encode() + b"\r\n")
    named = ("--credential-file", str(file))
    asked = ("explain", "a", "x", "--address", address)
    try:
        for flags, variables, sent in (
            (named, {}, [f"Bearer {KEY}"]),
            ((), {"INTENT_CREDENTIAL_FILE": str(file)}, [f"Bearer {KEY}"]),
            ((), {"INTENT_CREDENTIAL": "another"}, ["Bearer another"]),
            (named, {"INTENT_CREDENTIAL": "another"}, [f"Bearer {KEY}"]),
            # As editors and shells of Windows save it.
            (("--credential-file", str(marked)), {}, [f"Bearer {KEY}"]),
            ((), {"INTENT_CREDENTIAL": f"\ufeff{KEY}\r\n"}, [f"Bearer {KEY}"]),
            ((), {}, []),
        ):
            doorkeeper.seen.clear()
            code, out, said = await intentctl(*asked, *flags, **variables)
            assert (code, doorkeeper.seen) == (1, sent), said
            assert KEY not in out + said
    finally:
        await server.stop(None)
