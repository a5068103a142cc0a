"""The certificate in use, and its replacement without a restart."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self

import structlog

from serving.files.material import TlsFiles, TlsMaterial, UnusableCertificate, identity_of, read_material
from serving.files.reloads import RELOAD_FAILURES

log = structlog.get_logger()


class Certificates:
    """The TLS material in use, which is replaced when its files change.

    The files may be replaced in any way: by a rename, by writing in place, or by swapping a link. New files are put in
    use when they match each other. Other files change nothing; if they are still the same at the next check, the
    failure is logged and counted.

    Args:
        files: paths of the files.
        used_for: peers to which the certificate is presented, for log lines.

    Raises:
        UnusableCertificate: the files cannot be used at the start.
    """

    def __init__(self, files: TlsFiles, used_for: str = "callers") -> None:
        self._files = files
        self._log = log.bind(used_for=used_for)
        self._seen = identity_of(files)
        self._doubted = self._seen
        self._hand_over: Callable[[TlsMaterial], None] | None = None
        self.material = read_material(files)
        """Material in use. Replaced as a whole, so that any thread may read it."""

    @classmethod
    def of(cls, files: TlsFiles | None) -> Self | None:
        """Return the certificates in ``files``; ``None`` for a service without files, which does not encrypt."""
        return None if files is None else cls(files)

    def on_change(self, hand_over: Callable[[TlsMaterial], None]) -> None:
        """Register ``hand_over``, which receives new material before it is put in use.

        ``hand_over`` is called in a thread and may raise OSError.
        """
        self._hand_over = hand_over

    async def look(self) -> None:
        """Put the files in use if they have changed and match each other."""
        seen = await asyncio.to_thread(identity_of, self._files)
        if seen == self._seen:
            return
        try:
            material = await asyncio.to_thread(self._take)
        except UnusableCertificate as error:
            if seen != self._doubted:
                # The other file of the pair may not be written yet.
                self._doubted = seen
                return
            self._seen = seen
            RELOAD_FAILURES.count("certificate")
            self._log.error("certificate not replaced; the former one stays in use", reason=str(error))
            return
        self._seen = self._doubted = seen
        if material != self.material:
            self.material = material
            self._log.info("certificate replaced", valid_until=_shown(material.expires))

    def _take(self) -> TlsMaterial:
        material = read_material(self._files)
        if material.expires < time.time():
            raise UnusableCertificate("the new certificate has already expired; have another one issued")
        if self._hand_over is not None and material != self.material:
            try:
                self._hand_over(material)
            except OSError as error:
                raise UnusableCertificate(f"the new certificate cannot be put into use ({error.strerror})") from error
        return material


def _shown(moment: float) -> str | None:
    return None if math.isinf(moment) else datetime.fromtimestamp(moment, UTC).isoformat()
