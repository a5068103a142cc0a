"""The certificate that is used, and its replacement without a restart."""

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
    """What is in use, and what replaces it once the files change.

    The files may be replaced in any way: renamed over, written in place, behind a link that is swapped. New ones are
    taken when they fit each other; others change nothing, are told once they have stayed as they are, and are counted.

    Args:
        files: where it is.
        used_for: whom it meets, for log lines.

    Raises:
        UnusableCertificate: there is nothing to begin with.
    """

    def __init__(self, files: TlsFiles, used_for: str = "callers") -> None:
        self._files = files
        self._log = log.bind(used_for=used_for)
        self._seen = identity_of(files)
        self._doubted = self._seen
        self._hand_over: Callable[[TlsMaterial], None] | None = None
        self.material = read_material(files)
        """In use. Replaced as a whole, so that it may be read in any thread."""

    @classmethod
    def of(cls, files: TlsFiles | None) -> Self | None:
        """Return the certificates in ``files``; ``None`` where a service has none and does not encrypt."""
        return None if files is None else cls(files)

    def on_change(self, hand_over: Callable[[TlsMaterial], None]) -> None:
        """Have what is new handed over before it counts as in use. Called in a thread; may raise OSError."""
        self._hand_over = hand_over

    async def look(self) -> None:
        """Take the files if they are new and fit each other."""
        seen = await asyncio.to_thread(identity_of, self._files)
        if seen == self._seen:
            return
        try:
            material = await asyncio.to_thread(self._take)
        except UnusableCertificate as error:
            if seen != self._doubted:
                # The other half may be on its way.
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
            raise UnusableCertificate("the new certificate has expired already; have it made anew")
        if self._hand_over is not None and material != self.material:
            try:
                self._hand_over(material)
            except OSError as error:
                raise UnusableCertificate(f"it cannot be put in use ({error.strerror})") from error
        return material


def _shown(moment: float) -> str | None:
    return None if math.isinf(moment) else datetime.fromtimestamp(moment, UTC).isoformat()
