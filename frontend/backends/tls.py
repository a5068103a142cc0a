"""TLS to predictors: whom the frontend trusts, and the certificate with which it proves who it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc

from frontend.backends.replicas import name_in
from serving.settings import TlsFiles
from serving.tls.certificates import Certificates

_USED_FOR: Final = "predictors"


class EngineTls:
    """What channels to an engine are encrypted with. Replaced files are taken by the channels after that.

    Args:
        files: the authority that signed the engine's certificate; the frontend's own certificate and key, or neither.
        server_name: the name that the engine's certificate must be for; empty: the host of the route.

    Raises:
        UnusableCertificate: the files cannot be used.
    """

    def __init__(self, files: TlsFiles, server_name: str = "") -> None:
        self._certificates = Certificates(files, used_for=_USED_FOR)
        self._server_name = server_name

    def channel(self, target: str, address: str, options: Sequence[tuple[str, int | str]]) -> grpc.aio.Channel:
        """Return an encrypted channel.

        Args:
            target: the route's address, as it was written.
            address: what it stands for now, as gRPC takes it.
            options: of the channel.
        """
        material = self._certificates.material
        credentials = grpc.ssl_channel_credentials(material.authority, material.key, material.certificate)
        name = name_in(target)
        # Names are looked up by us: of the address alone gRPC would not know whom it is to meet.
        expected = self._server_name or (None if name is None else name.host)
        named = () if expected is None else (("grpc.ssl_target_name_override", expected),)
        return grpc.aio.secure_channel(address, credentials, options=(*options, *named))

    async def has_changed(self) -> bool:
        """Look at the files; return whether there is something new for channels to begin with."""
        former = self._certificates.material
        await self._certificates.look()
        return self._certificates.material is not former
