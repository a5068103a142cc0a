"""``python -m serving.health_check [ADDRESS]``: checks the health of a service, for probes that can only run commands.

Exits with 0 if the service reports SERVING, else with 1 and one line. With TLS, check the port of ``--health-port``,
which needs no options; or the service's own port with ``--tls-authority`` and, if the service requires a certificate,
with ``--tls-certificate`` and ``--tls-key``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from intent_serving_client.channels import PLAIN, ChannelOptions, open_channel
from serving.domain.errors import InvalidConnection


def health_of(address: str, service: str, timeout: float, options: ChannelOptions = PLAIN) -> str:
    """Return the health of ``service`` as the protocol's status name; that of the whole server if ``service`` is empty.

    Args:
        address: address of the server, ``host:port``.
        service: the name of a gRPC service.
        timeout: seconds to wait for the answer.
        options: TLS options.

    Raises:
        grpc.RpcError: the server does not answer.
        InvalidConnection: the files of ``options`` cannot be used.
    """
    with open_channel(address, options) as channel:
        # The published types of the health stub lack its calls.
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the check that the command line requests."""
    flags = _flags(arguments)
    options = ChannelOptions(
        tls_authority=flags.tls_authority,
        tls_certificate=flags.tls_certificate,
        tls_key=flags.tls_key,
        server_name=flags.tls_server_name,
    )
    try:
        health = health_of(flags.address, flags.service, flags.timeout, options)
    except InvalidConnection as error:
        sys.exit(str(error))
    except grpc.RpcError as error:
        failed: Any = error
        sys.exit(f"{flags.address} does not answer: {failed.code().name}: {failed.details()}")
    if health != "SERVING":
        sys.exit(f"{flags.address} reports {health}")


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.health_check", description="Query the health of a service."
    )
    parser.add_argument(
        "address", nargs="?", default="127.0.0.1:51001", help="address of the service (default: %(default)s)"
    )
    parser.add_argument("--service", default="", help="name of the gRPC service to check (default: the whole server)")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds to wait (default: %(default)s)")
    parser.add_argument(
        "--tls-authority", type=Path, help="PEM file of the authority that signed the service's certificate"
    )
    parser.add_argument(
        "--tls-certificate", type=Path, help="PEM file of your certificate, if the service requires one"
    )
    parser.add_argument("--tls-key", type=Path, help="PEM file of the private key of your certificate")
    parser.add_argument(
        "--tls-server-name", help="name in the service's certificate (default: the host of the address)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
