"""Extras that the services can have switched on: encryption, access rules, metrics, traces, workers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.calls import Call
from benchmarks.systems.certificates import make_certificate
from benchmarks.workload import MODEL_ID
from peers.programs import free_ports, running
from serving.access.keys import hash_of, new_key

_RECEIVER: Final = "benchmarks.systems.programs.trace_receiver"


@dataclass(frozen=True, slots=True)
class Extra:
    """Flags for the services, and settings for their callers."""

    flags: tuple[str | Path, ...] = ()
    """Flags for the service that callers connect to."""
    predictor_flags: tuple[str | Path, ...] = ()
    """Flags for the predictor behind that service, if there is one."""
    metadata: tuple[tuple[str, str], ...] = ()
    """Credential of callers; callers without it are refused."""
    authority: bytes | None = None
    """Certificate, in PEM, of the authority of the service that callers connect to."""

    def asked(self, call: Call) -> Call:
        """Return ``call`` with the credential and the authority that callers need."""
        return replace(call, metadata=self.metadata, authority=self.authority)


Prepare = Callable[[ExitStack, Path], Extra]
"""Creates the files of an extra in a workplace, and starts its programs, which run until the stack is closed."""


def nothing(stack: ExitStack, workplace: Path) -> Extra:
    """Start the services without further flags."""
    del stack, workplace
    return Extra()


def with_flags(*flags: str) -> Prepare:
    """Return a function that adds ``flags`` to the service that callers connect to."""

    def prepare(stack: ExitStack, workplace: Path) -> Extra:
        del stack, workplace
        return Extra(flags)

    return prepare


def all_off(stack: ExitStack, workplace: Path) -> Extra:
    """Log no calls, not even failed ones; everything else is off by default."""
    del stack, workplace
    return Extra(("--log-calls", "none"), ("--log-calls", "none"))


def guarded(stack: ExitStack, workplace: Path) -> Extra:
    """Admit only callers with a key, log refused and failed calls, and count all calls in metrics."""
    del stack
    key = new_key()
    identities = {
        "benchmark": {"keys": [{"sha256": hash_of(key)}], "models": [MODEL_ID], "rights": ["predict"]},
        "another": {"keys": [{"sha256": hash_of(new_key())}], "models": ["another-*"], "rights": ["predict"]},
    }
    file = workplace / "access.json"
    file.write_text(json.dumps({"identities": identities}))
    port, predictor_port = map(str, free_ports(2))
    return Extra(
        ("--access-file", file, "--metrics-port", port, "--log-calls", "failed"),
        ("--metrics-port", predictor_port, "--log-calls", "failed"),
        metadata=(("authorization", f"Bearer {key}"),),
    )


def encrypted(stack: ExitStack, workplace: Path) -> Extra:
    """Use TLS for connections from callers."""
    del stack
    files = make_certificate(workplace)
    flags = ("--tls-certificate", files.certificate, "--tls-key", files.key)
    return Extra(flags, authority=files.certificate.read_bytes())


def traced(stack: ExitStack, workplace: Path) -> Extra:
    """Send traces to a receiver, with the default sampling."""
    (port,) = free_ports(1)
    stack.enter_context(running((sys.executable, "-m", _RECEIVER, str(port)), workplace / "receiver.log"))
    flags = ("--trace-endpoint", f"127.0.0.1:{port}")
    return Extra(flags, flags)
