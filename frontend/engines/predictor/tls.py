"""TLS to predictors: the authority that the frontend trusts, and the certificate that proves its identity."""

from __future__ import annotations

import ssl
from typing import Final

from frontend.engines.replicas import name_in
from grpc_http2.client.encryption import client_context
from grpc_http2.client.settings import Tls
from serving.files.certificates import Certificates
from serving.files.material import TlsFiles, TlsMaterial

_USED_FOR: Final = "predictors"


class EngineTls:
    """TLS settings of the connections to an engine. Replaced files apply to connections that are opened afterwards.

    Args:
        files: authority that signed the engine's certificate; the frontend's own certificate and key, or neither.
        server_name: name that the engine's certificate must be for; if empty, the host of the route.

    Raises:
        UnusableCertificate: the files cannot be used.
    """

    def __init__(self, files: TlsFiles, server_name: str = "") -> None:
        self._certificates = Certificates(files, used_for=_USED_FOR)
        self._server_name = server_name
        self._material: TlsMaterial | None = None
        self._made: ssl.SSLContext | None = None

    def to(self, target: str) -> Tls:
        """Return the TLS settings of a channel to the route's address ``target``."""
        name = name_in(target)
        # The frontend resolves names itself, so the address alone does not say which name the certificate must be for.
        return Tls(self._context, self._server_name or (None if name is None else name.host))

    async def has_changed(self) -> bool:
        """Check the files; return whether there is new material for the next connections."""
        former = self._certificates.material
        await self._certificates.look()
        return self._certificates.material is not former

    def _context(self) -> ssl.SSLContext:
        material = self._certificates.material
        if self._made is None or self._material is not material:
            self._made = client_context(material.authority, material.certificate, material.key)
            self._material = material
        return self._made
