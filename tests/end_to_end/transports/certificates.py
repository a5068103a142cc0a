"""Certificates for tests, made anew with openssl: authorities, a server, callers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_SERVER = "subjectAltName=IP:127.0.0.1,DNS:localhost"


class Authority:
    """Who signs certificates. Skips the test where there is no openssl."""

    def __init__(self, folder: Path, name: str) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("no openssl on the PATH to make certificates with")
        self._folder = folder
        self._name = name
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl("req", "-x509", *_new_key(self._key), "-subj", f"/CN={name}", "-out", self.certificate, "-days", "2")

    def signed(self, name: str) -> tuple[Path, Path]:
        """Return the files of a certificate for this machine and of its key."""
        certificate, key = self._folder / f"{self._name}-{name}.pem", self._folder / f"{self._name}-{name}.key"
        request = certificate.with_suffix(".csr")
        _openssl("req", *_new_key(key), "-subj", f"/CN={name}", "-addext", _SERVER, "-out", request)
        signer = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *signer, "-copy_extensions", "copy", "-days", "2", "-out", certificate)
        return certificate, key


def _new_key(path: Path) -> tuple[str | Path, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path)


def _openssl(*arguments: str | Path) -> None:
    run = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
