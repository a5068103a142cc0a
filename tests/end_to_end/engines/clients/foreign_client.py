"""Clients of other servers, as separate processes: each in the environment of its peer, with its own protobuf."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from peers.environments import CannotInstall, environment
from tests.builders import PATIENCE

_SCRIPTS = Path(__file__).parent


class ForeignClient:
    """A script that reads one order per line and writes one outcome per line, both in JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, do: str, **order: Any) -> Any:
        """Return the answer that the client received; fail the test if the client was refused."""
        outcome = self._outcome(do, order)
        assert "refused" not in outcome, outcome
        return outcome["answer"]

    def refusal(self, do: str, **order: Any) -> tuple[str, str]:
        """Return the code and the message that the client received instead of an answer."""
        outcome = self._outcome(do, order)
        assert "refused" in outcome, outcome
        return outcome["refused"], outcome["message"]

    def _outcome(self, do: str, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the client has ended"
        outcome: dict[str, Any] = json.loads(line)
        return outcome


@contextmanager
def foreign_client(peer: str, script: str, *arguments: str) -> Iterator[ForeignClient]:
    """Run the script in the environment of ``peer``; skip the test if that cannot be installed."""
    try:
        python = environment(peer).python
    except CannotInstall as error:
        pytest.skip(str(error))
    command = [str(python), str(_SCRIPTS / script), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield ForeignClient(process)
    finally:
        process.communicate(timeout=PATIENCE)
