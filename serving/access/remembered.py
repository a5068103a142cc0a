"""A short-lived cache of valid credentials, so that not every call hashes a key or verifies a signature."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from serving.call.identity import Identity

MOST_REMEMBERED: Final = 10_000
REMEMBERED_SECONDS: Final = 60.0
"""Time after which a credential is checked again, however long it is valid, in seconds."""


class RememberedCredentials:
    """Identities by their valid credentials. Belongs to one version of the access file.

    Args:
        most: maximum number of credentials.
        clock: returns the seconds since 1970; defaults to the system's clock.
    """

    def __init__(self, most: int = MOST_REMEMBERED, clock: Callable[[], float] | None = None) -> None:
        self._most = most
        self._clock = time.time if clock is None else clock
        # Oldest first: a dictionary keeps insertion order.
        self._known: dict[str, tuple[float, Identity]] = {}

    def identity_of(self, credential: str) -> Identity | None:
        """Return the identity that the credential belongs to; ``None`` if the credential has to be checked."""
        known = self._known.get(credential)
        if known is None:
            return None
        until, identity = known
        if self._clock() < until:
            return identity
        del self._known[credential]
        return None

    def keep(self, credential: str, identity: Identity, expires_at: float) -> None:
        """Remember a credential that was checked, at most until ``expires_at``, in seconds since 1970."""
        self._known.pop(credential, None)
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[credential] = (min(expires_at, self._clock() + REMEMBERED_SECONDS), identity)

    def __len__(self) -> int:
        return len(self._known)
