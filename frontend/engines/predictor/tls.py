"""TLS to predictors: whom the frontend trusts, and the certificate with which it proves who it is."""

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
    """What connections to an engine are encrypted with. Replaced files are taken by the connections after that.

    Args:
        files: the authority that signed the engine's certificate; the frontend's own certificate and key, or neither.
        server_name: the name that the engine's certificate must be for; empty: the host of the route.

    Raises:
        UnusableCertificate: the files cannot be used.
    """

    def __init__(self, files: TlsFiles, server_name: str = "") -> None:
        self._certificates = Certificates(files, used_for=_USED_FOR)
        self._server_name = server_name
        self._material: TlsMaterial | None = None
        self._made: ssl.SSLContext | None = None

    def to(self, target: str) -> Tls:
        """Return what a channel to the route's address ``target`` is made with."""
        name = name_in(target)
        # Names are looked up by us: of the address alone nobody would know whom it is to meet.
        return Tls(self._context, self._server_name or (None if name is None else name.host))

    async def has_changed(self) -> bool:
        """Look at the files; return whether there is something new for connections to begin with."""
        former = self._certificates.material
        await self._certificates.look()
        return self._certificates.material is not former

    def _context(self) -> ssl.SSLContext:
        material = self._certificates.material
        if self._made is None or self._material is not material:
            self._made = client_context(material.authority, material.certificate, material.key)
            self._material = material
        return self._made
