"""A short memory of credentials that were found good, so that not every call hashes a key or checks a signature."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from serving.call.identity import Identity

MOST_REMEMBERED: Final = 10_000
REMEMBERED_SECONDS: Final = 60.0
"""Time after which a credential is checked again, however long it is good."""


class RememberedCredentials:
    """Remembers who sent which good credential. Belongs to one version of the access file.

    Args:
        most: credentials.
        clock: tells the seconds since 1970; the system's clock if left out.
    """

    def __init__(self, most: int = MOST_REMEMBERED, clock: Callable[[], float] | None = None) -> None:
        self._most = most
        self._clock = time.time if clock is None else clock
        # Oldest first: a dictionary keeps the order in which it was filled.
        self._known: dict[str, tuple[float, Identity]] = {}

    def identity_of(self, credential: str) -> Identity | None:
        """Return who sends the credential; ``None`` if it has to be checked."""
        known = self._known.get(credential)
        if known is None:
            return None
        until, identity = known
        if self._clock() < until:
            return identity
        del self._known[credential]
        return None

    def keep(self, credential: str, identity: Identity, expires_at: float) -> None:
        """Remember a credential that was checked, until ``expires_at`` in seconds since 1970 at most."""
        self._known.pop(credential, None)
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[credential] = (min(expires_at, self._clock() + REMEMBERED_SECONDS), identity)

    def __len__(self) -> int:
        return len(self._known)
