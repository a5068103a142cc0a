"""Which calls are made again: gRPC's proposal A6."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from grpc import StatusCode


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a call that has failed is made again, within its deadline and before anything of an answer has come."""

    most_attempts: int = 4
    """The attempts of one call, the first included."""
    first_backoff_seconds: float = 0.03
    """The pause before the second attempt."""
    backoff_factor: float = 3.0
    """What each further pause is longer by."""
    max_backoff_seconds: float = 0.3
    """The longest pause."""
    codes: frozenset[StatusCode] = frozenset({StatusCode.UNAVAILABLE})
    """The statuses that are worth another attempt."""
    most_tokens: float = 1000.0
    """The budget: a failed attempt takes one token, and nothing is repeated once half of the tokens are spent."""
    tokens_back: float = 0.1
    """The tokens that a call brings back that did not fail so."""
    most_kept_bytes: int = 2 << 20
    """The largest request that is kept for another attempt."""


class RetryBudget:
    """Decides about repetitions of all calls of a channel."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self._tokens = policy.most_tokens

    def returned(self) -> None:
        """Count a call that has ended with an answer, or with a status that another attempt would not change."""
        self._tokens = min(self._tokens + self.policy.tokens_back, self.policy.most_tokens)

    def pause_before(
        self, attempt: int, code: StatusCode, pushback: str | None, seconds_left: float | None = None
    ) -> float | None:
        """Count a failed attempt; return the seconds until the next one, ``None`` where there is none.

        Args:
            attempt: the number of the next attempt; the first of all is 1.
            code: why the last one failed.
            pushback: what the server says of it in ``grpc-retry-pushback-ms``.
            seconds_left: until the deadline of the call; ``None`` where it has none.
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
            # A server that wants no repetition says so with a negative number, or with nonsense.
            asked = int(pushback) / 1000 if pushback.isdecimal() and len(pushback) < 10 else math.inf
            return asked if asked < left else None
        if left <= 0.0:
            return None
        pause = policy.first_backoff_seconds * policy.backoff_factor ** (attempt - 2)
        # A shorter pause is worth more to a call near its deadline than a failure is; half is left for the answer.
        return min(jittered(min(pause, policy.max_backoff_seconds)), left / 2)


def jittered(seconds: float) -> float:
    """Return ``seconds``, a fifth more or less, so that those who fail together do not return together."""
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
