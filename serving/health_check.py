"""``python -m serving.health_check [ADDRESS]``: asks a service for its health, for those who can only start commands.

Exits with 0 where it says SERVING, with 1 and one line anywhere else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_OPTIONS: Final = (("grpc.enable_http_proxy", 0),)


def health_of(address: str, service: str, timeout: float, authority: bytes | None) -> str:
    """Return the health of ``service``, by the name that the protocol has for it; the whole server's where it is empty.

    Args:
        address: where it listens, ``host:port``.
        service: the name of a gRPC service.
        timeout: seconds to wait for the answer.
        authority: who signed the server's certificate, in PEM; without one the connection is not encrypted.

    Raises:
        grpc.RpcError: there is no answer.
    """
    with _channel(address, authority) as channel:
        # The published types of the health stub leave its calls out.
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the health that the command line asks for."""
    flags = _flags(arguments)
    authority = None if flags.tls_authority is None else flags.tls_authority.read_bytes()
    try:
        health = health_of(flags.address, flags.service, flags.timeout, authority)
    except grpc.RpcError as error:
        failed: Any = error
        sys.exit(f"{flags.address} does not answer: {failed.code().name}: {failed.details()}")
    if health != "SERVING":
        sys.exit(f"{flags.address} says {health}")


def _channel(address: str, authority: bytes | None) -> grpc.Channel:
    if authority is None:
        return grpc.insecure_channel(address, options=_OPTIONS)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(authority), options=_OPTIONS)


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.health_check", description="Ask a service for its health.")
    parser.add_argument("address", nargs="?", default="127.0.0.1:51001", help="of the service (default: %(default)s)")
    parser.add_argument("--service", default="", help="the gRPC service that is meant (default: the whole server)")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds to wait (default: %(default)s)")
    parser.add_argument("--tls-authority", type=Path, help="PEM file of the authority that signed its certificate")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
