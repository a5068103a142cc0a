"""Retries of failed calls, by gRPC's proposal A6."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final

from grpc import StatusCode

_MOST_JITTER: Final = 1.2


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Conditions for retrying a failed call, within its deadline and before any part of a response has arrived."""

    most_attempts: int = 4
    """Maximum number of attempts of one call, including the first."""
    first_backoff_seconds: float = 0.03
    """Pause before the second attempt, in seconds."""
    backoff_factor: float = 3.0
    """Factor by which each further pause is longer."""
    max_backoff_seconds: float = 0.3
    """Longest pause, in seconds."""
    codes: frozenset[StatusCode] = frozenset({StatusCode.UNAVAILABLE})
    """Statuses that are retried."""
    most_tokens: float = 1000.0
    """Retry budget: a failed attempt takes one token, and no call is retried once half of the tokens are spent."""
    tokens_back: float = 0.1
    """Tokens returned by each call that did not fail with one of ``codes``."""
    most_kept_bytes: int = 2 << 20
    """Largest request that is kept for a retry, in bytes."""


class RetryBudget:
    """Decides on the retries of all calls of a channel."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self._tokens = policy.most_tokens

    def returned(self) -> None:
        """Count a call that ended with a response, or with a status that a retry would not change."""
        self._tokens = min(self._tokens + self.policy.tokens_back, self.policy.most_tokens)

    def pause_before(
        self, attempt: int, code: StatusCode, pushback: str | None, seconds_left: float | None = None
    ) -> float | None:
        """Count a failed attempt; return the seconds until the next one, ``None`` if there is to be no retry.

        Args:
            attempt: number of the next attempt; the first attempt of a call is 1.
            code: status with which the last attempt failed.
            pushback: value of the server's ``grpc-retry-pushback-ms``, if any.
            seconds_left: seconds until the deadline of the call; ``None`` without a deadline.
        """
        policy = self.policy
        if code not in policy.codes:
            self.returned()
            return None
        self._tokens = max(self._tokens - 1, 0.0)
        if attempt > policy.most_attempts or self._tokens <= policy.most_tokens / 2:
            return None
        left = math.inf if seconds_left is None else seconds_left
        if pushback is not None:
            # A negative or malformed value means that the server wants no retry.
            asked = int(pushback) / 1000 if pushback.isdecimal() and len(pushback) < 10 else math.inf
            return asked if asked < left else None
        if left <= 0.0:
            return None
        pause = policy.first_backoff_seconds * policy.backoff_factor ** (attempt - 2)
        # Near its deadline, a call gains more from a shorter pause than from a failure; half is left for the response.
        return jittered(min(pause, policy.max_backoff_seconds, left / 2 / _MOST_JITTER))


def jittered(seconds: float) -> float:
    """Return ``seconds`` varied by up to a fifth, so that callers that fail together do not retry together."""
    return seconds * random.uniform(2.0 - _MOST_JITTER, _MOST_JITTER)  # noqa: S311 - no secret
