"""Metadata keys of calls, in both directions."""

from __future__ import annotations

from typing import Final

AUTHORIZATION_KEY: Final = "authorization"
"""Metadata key of the caller's credential."""
REQUEST_ID_KEY: Final = "x-request-id"
"""Metadata key that carries the request id, from the caller on and back to it."""
RETRY_AFTER_KEY: Final = "retry-after"
"""Metadata key of refused calls: the seconds after which trying again makes sense."""
