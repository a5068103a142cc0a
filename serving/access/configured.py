"""Access as configured by an access file."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from intent_serving_client.metadata import AUTHORIZATION_KEY
from serving.access.access_map import AccessMap, Tokens, read_access_map
from serving.access.credentials import SCHEME, credential_of
from serving.access.failure_log import FailureLog
from serving.call.counters import AccessCounters, FailureReason
from serving.call.identity import OPEN, Identity, Requirement, Right
from serving.call.presented import Presented
from serving.domain.errors import PermissionDenied, Unauthenticated
from serving.files.following import LOOK_SECONDS
from serving.files.reloaded import Reloaded

CertificateNames: TypeAlias = Callable[[Presented], tuple[str, ...]]

_MESSAGES: Final[dict[FailureReason, str]] = {
    "missing": "the call has no credential; send an API key or a token as `authorization: Bearer ...`",
    "unknown": "the credential is unknown; ask the operator for a valid one",
    "expired": "the credential has expired; ask for a new one",
    "invalid": "the credential is malformed, or not intended for this service; ask for a new one",
}


class ConfiguredAccess:
    """An :class:`~serving.transport.guards.Access` that knows exactly the identities in the access file.

    Belongs to one event loop. The file is checked for changes while the service runs. A new version is in force from
    the next call on; if it cannot be used, the previous version stays in force.

    Args:
        path: path of the access file.
        certificate_names: returns the names in a caller's certificate, which the transport has verified.
        look_seconds: time between two checks of the file, in seconds.
        clock: returns the time that bounds the log of failures, in seconds.

    Raises:
        InvalidAccessFile: the file cannot be used.
    """

    def __init__(
        self,
        path: Path,
        certificate_names: CertificateNames = lambda _: (),
        *,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = AccessCounters()
        self._certificate_names = certificate_names
        self._failures = FailureLog(clock)
        self._reloaded = Reloaded(path, partial(_read, path, self.counters), look_seconds)

    def identify(self, presented: Presented) -> Identity:
        """Return the identity of the caller that sent ``presented``.

        Raises:
            Unauthenticated: the caller is not known.
        """
        known = self._reloaded.value
        authorization = presented.metadatum(AUTHORIZATION_KEY)
        remembered = None if authorization is None else known.remembered_keys.identity_of(authorization)
        return self._found_out(known, authorization, presented) if remembered is None else remembered

    def _found_out(self, known: AccessMap, authorization: str | None, presented: Presented) -> Identity:
        credential = credential_of(authorization, presented)
        if credential is None:
            return self._by_certificate(known, presented)
        value = credential.value
        key = known.keys.get(hashlib.sha256(value.encode("utf-8", "replace")).digest())
        if key is not None:
            if key.expires_at <= time.time():
                raise self._unknown("expired", key.identity.name)
            # A value with extra spaces is not remembered: there may be many spaces, and all would be kept.
            if authorization is not None and len(authorization) == len(SCHEME) + len(value):
                known.remembered_keys.keep(authorization, key.identity, key.expires_at)
            return key.identity
        if credential.may_be_token and known.tokens is not None and value.count(".") == 2:
            remembered = known.tokens.remembered.identity_of(value)
            return self._by_token(known, known.tokens, value) if remembered is None else remembered
        raise self._unknown("unknown" if value else "invalid")

    def check_method(self, identity: Identity, required: Requirement | None) -> None:
        """Check that ``identity`` may call a method; ``None`` for ``required``: the method declares no rights.

        Raises:
            PermissionDenied: the identity may not call the method.
        """
        if required is OPEN:
            return
        if required is None:
            self.counters.denied += 1
            raise PermissionDenied("no caller may use this method; the service declares no right for it")
        if isinstance(required, Right):
            identity.check_right(required)
        elif identity.rights.isdisjoint(required):
            identity.check_right(required[0])

    def named(self, name: str) -> Identity:
        """Return the identity with this name, on whose behalf a frontend makes a call.

        Raises:
            PermissionDenied: the name is not known.
        """
        identity = self._reloaded.value.identities.get(name)
        if identity is None:
            self.counters.denied += 1
            raise PermissionDenied(
                "the engine does not know the caller; ask the operator to grant the caller access at the engine too"
            )
        return identity

    async def close(self) -> None:
        """Stop watching the file."""
        await self._reloaded.close()

    def _by_certificate(self, known: AccessMap, presented: Presented) -> Identity:
        if known.certificates:
            for name in self._certificate_names(presented):
                identity = known.certificates.get(name)
                if identity is not None:
                    return identity
        raise self._unknown("missing")

    def _by_token(self, known: AccessMap, tokens: Tokens, value: str) -> Identity:
        # Imported only where the file configures tokens; the module is loaded by then.
        from serving.access.tokens import BadToken  # noqa: PLC0415

        try:
            token = tokens.verifier.verified(value)
        except BadToken as error:
            raise self._unknown(error.reason) from None
        identity = known.identities.get(token.subject)
        if identity is None:
            raise self._unknown("unknown")
        tokens.remembered.keep(value, identity, token.expires_at)
        return identity

    def _unknown(self, reason: FailureReason, identity: str = "") -> Unauthenticated:
        self.counters.failures[reason] += 1
        self._failures.log_failure(reason, identity=identity)
        error = Unauthenticated(_MESSAGES[reason])
        error.was_logged = True
        return error


def _read(path: Path, counters: AccessCounters) -> tuple[AccessMap, Sequence[Path]]:
    found = read_access_map(path, counters)
    return found, found.files
