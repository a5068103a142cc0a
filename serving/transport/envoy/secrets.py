"""The certificate as Envoy takes it: files of its secret discovery service, each replaced by a rename.

Envoy would follow the operator's files too, but sees only renames, and takes one half of a pair before the other is
there. What is here was read at one time, and its parts fit each other.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from serving.tls.material import TlsMaterial

_CERTIFICATE: Final = "certificate"
_CLIENT_AUTHORITY: Final = "client-authority"
_TYPES: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


def write_secrets(folder: Path, material: TlsMaterial) -> None:
    """Write what Envoy is to use from now on. Nobody else may read it.

    Raises:
        OSError: there is no place for it.
    """
    if material.authority is not None:
        _write(folder, _CLIENT_AUTHORITY, {"validation_context": {"trusted_ca": _inline(material.authority)}})
    pair = {"certificate_chain": _inline(material.certificate), "private_key": _inline(material.key)}
    _write(folder, _CERTIFICATE, {"tls_certificate": pair})


def transport_socket(folder: Path, *, asks_callers: bool) -> dict[str, Any]:
    """Return Envoy's configuration of TLS with what :func:`write_secrets` puts into ``folder``.

    Args:
        folder: of the secrets.
        asks_callers: whether callers must have certificates.
    """
    context: dict[str, Any] = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        # The second for requests of plain HTTP.
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [_source(folder, _CERTIFICATE)],
    }
    if asks_callers:
        context["validation_context_sds_secret_config"] = _source(folder, _CLIENT_AUTHORITY)
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPES}.DownstreamTlsContext",
            "common_tls_context": context,
            "require_client_certificate": asks_callers,
        },
    }


def _inline(contents: bytes | None) -> dict[str, str]:
    return {"inline_string": (contents or b"").decode("latin-1")}


def _source(folder: Path, name: str) -> dict[str, Any]:
    path = {"path": str(_file(folder, name)), "watched_directory": {"path": str(folder)}}
    return {"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": path}}


def _write(folder: Path, name: str, secret: dict[str, Any]) -> None:
    document = {"resources": [{"@type": f"{_TYPES}.Secret", "name": name, **secret}]}
    staged = folder / f".{name}"
    with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - with its mode from the start
        json.dump(document, file)
    staged.replace(_file(folder, name))


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"
