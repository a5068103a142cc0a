"""Certificates for tests, newly made with openssl: authorities, a server, callers."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.builders import PATIENCE

_THIS_MACHINE: Final = "IP:127.0.0.1,DNS:localhost"
_PAST: Final = ("20200101000000Z", "20200201000000Z")
_REGISTER: Final = """\
[ca]
default_ca = default
[default]
database = {folder}/{name}.register
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = policy
copy_extensions = copy
unique_subject = no
[policy]
commonName = optional
"""


class Authority:
    """Authority that signs certificates. The test is skipped if openssl is missing."""

    def __init__(self, folder: Path, name: str) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("no openssl on the PATH to make certificates with")
        self._folder = folder
        self._name = name
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl("req", "-x509", *_new_key(self._key), "-subj", f"/CN={name}", "-out", self.certificate, "-days", "2")

    def signed(self, name: str, alternative_names: str = _THIS_MACHINE) -> tuple[Path, Path]:
        """Return the files of a certificate, by default for this machine, and of its key."""
        certificate, key, request = self._requested(name, alternative_names)
        signer = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *signer, "-copy_extensions", "copy", "-days", "2", "-out", certificate)
        return certificate, key

    def expired(self, name: str) -> tuple[Path, Path]:
        """Return the files of an expired certificate and of its key."""
        certificate, key, request = self._requested(name, _THIS_MACHINE)
        configuration = self._folder / f"{self._name}.cnf"
        configuration.write_text(_REGISTER.format(folder=self._folder, name=self._name))
        (self._folder / f"{self._name}.register").touch()
        signer = ("-config", configuration, "-cert", self.certificate, "-keyfile", self._key)
        times = ("-startdate", _PAST[0], "-enddate", _PAST[1])
        _openssl("ca", "-batch", "-notext", *signer, *times, "-in", request, "-out", certificate)
        return certificate, key

    def _requested(self, name: str, alternative_names: str) -> tuple[Path, Path, Path]:
        certificate, key = self._folder / f"{self._name}-{name}.pem", self._folder / f"{self._name}-{name}.key"
        request = certificate.with_suffix(".csr")
        extension = f"subjectAltName={alternative_names}"
        _openssl("req", *_new_key(key), "-subj", f"/CN={name}", "-addext", extension, "-out", request)
        return certificate, key, request


def shown_certificate(address: str, authority: Path) -> bytes:
    """Return the certificate, in DER, that a server presents to a new connection."""
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as connection,
        context.wrap_socket(connection, server_hostname=host) as secured,
    ):
        shown = secured.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def der_of(certificate: Path) -> bytes:
    """Return a certificate in the form in which servers present it."""
    return ssl.PEM_cert_to_DER_cert(certificate.read_text())


def _new_key(path: Path) -> tuple[str | Path, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path)


def _openssl(*arguments: str | Path) -> None:
    run = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
